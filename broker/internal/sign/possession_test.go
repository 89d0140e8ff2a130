package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"testing"
)

// TestThumbprints has the keys of RFC 9449, whose thumbprint stands in §6.1, and of RFC 8037, A.1 and A.3.
func TestThumbprints(t *testing.T) {
	decode := func(s string) []byte {
		b, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	point := append([]byte{4}, decode("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs")...)
	p256, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(point, decode("9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA")...))
	if err != nil {
		t.Fatal(err)
	}
	ed := ed25519.NewKeyFromSeed(decode("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")).Public()
	for want, key := range map[string]any{"0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I": p256, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k": ed} {
		jwk, err := publicJWK(key)
		sum := sha256.Sum256([]byte(jwk))
		if got := base64.RawURLEncoding.EncodeToString(sum[:]); err != nil || got != want {
			t.Errorf("%s: %s, %v", jwk, got, err)
		}
	}
}

// A key is the same once it was written and read, and one of another kind is none.
func TestPossessions(t *testing.T) {
	for alg, other := range map[string]string{"ES256": "EdDSA", "EdDSA": "ES256"} {
		p, err := NewPossession(alg)
		if err != nil {
			t.Fatal(err)
		}
		text, err := p.PEM()
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePossession(alg, text)
		if err != nil || again.Thumbprint != p.Thumbprint || again.header != p.header {
			t.Errorf("%s: %v", alg, err)
		}
		if _, err := ParsePossession(other, text); err == nil {
			t.Errorf("a key for %s is one for %s", alg, other)
		}
		proof, err := p.Sign(map[string]string{"jti": "x"})
		if err != nil || bytes.Count(proof, []byte(".")) != 2 || bytes.Contains(proof, []byte(`"d"`)) {
			t.Errorf("%s: %s, %v", alg, proof, err)
		}
	}
	for _, alg := range []string{"", "none", "HS256", "RS256", "ES384"} {
		if _, err := NewPossession(alg); err == nil {
			t.Errorf("a new key for %q", alg)
		}
		if _, err := ParsePossession(alg, []byte("x")); err == nil {
			t.Errorf("a key for %q", alg)
		}
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(p384)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ParsePossession("ES256", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})); err == nil {
		t.Error("a key on another curve")
	}
}
