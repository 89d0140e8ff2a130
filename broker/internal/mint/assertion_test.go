package mint

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func keyPEM(t testing.TB, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// verifies reports whether the signature is that of signing, as RFC 7518 §3.3–3.5 and RFC 8037 have it.
func verifies(key crypto.PublicKey, alg string, signing, signature []byte) bool {
	d256, d384 := sha256.Sum256(signing), sha512.Sum384(signing)
	switch k := key.(type) {
	case *rsa.PublicKey:
		if alg == "PS256" {
			return rsa.VerifyPSS(k, crypto.SHA256, d256[:], signature, &rsa.PSSOptions{SaltLength: 32}) == nil
		}
		return alg == "RS256" && rsa.VerifyPKCS1v15(k, crypto.SHA256, d256[:], signature) == nil
	case *ecdsa.PublicKey:
		digest, size := d256[:], 32
		if alg == "ES384" {
			digest, size = d384[:], 48
		}
		return len(signature) == 2*size && ecdsa.Verify(k, digest, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
	case ed25519.PublicKey:
		return alg == "EdDSA" && ed25519.Verify(k, signing, signature)
	}
	return false
}

func TestAssertions(t *testing.T) {
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	now := time.Unix(1_800_000_000, 0)
	for _, tt := range []struct {
		key   crypto.Signer
		asked string
		want  string // empty: refused
	}{
		{rsaKey, "", "RS256"}, {rsaKey, "RS256", "RS256"}, {rsaKey, "PS256", "PS256"}, {p256, "", "ES256"}, {p384, "", "ES384"}, {ed, "", "EdDSA"},
		{rsaKey, "ES256", ""}, {rsaKey, "EdDSA", ""}, {p256, "RS256", ""}, {p256, "ES384", ""}, {p384, "ES256", ""}, {ed, "ES256", ""}, {ed, "RS256", ""}, {rsaKey, "none", ""},
	} {
		in := control.Injector{Params: []control.Param{{Name: "alg", Value: tt.asked}, {Name: "kid", Value: "k1"}}}
		got, err := signAssertion(keyPEM(t, tt.key), in, claims{"iss": "me", "aud": "https://id.example.org"}, now)
		if tt.want == "" {
			if err == nil || got != nil {
				t.Errorf("%T with %s: %v", tt.key, tt.asked, err)
			}
			continue
		}
		parts := bytes.Split(got, []byte("."))
		if err != nil || len(parts) != 3 {
			t.Fatalf("%T with %q: %s, %v", tt.key, tt.asked, got, err)
		}
		var header map[string]string
		var c map[string]any
		for i, into := range []any{&header, &c} {
			b, err := base64.RawURLEncoding.DecodeString(string(parts[i]))
			if err != nil || json.Unmarshal(b, into) != nil {
				t.Fatalf("%q: %v", b, err)
			}
		}
		if header["alg"] != tt.want || header["kid"] != "k1" || c["iss"] != "me" || c["iat"] != float64(now.Unix()-60) || c["exp"] != float64(now.Unix()+300) || len(c["jti"].(string)) < 20 {
			t.Errorf("%v %v", header, c)
		}
		signature, _ := base64.RawURLEncoding.DecodeString(string(parts[2]))
		signing := got[:bytes.LastIndexByte(got, '.')]
		if !verifies(tt.key.Public(), tt.want, signing, signature) {
			t.Errorf("%s does not verify", tt.want)
		}
		signing[len(signing)-1] ^= 1
		if verifies(tt.key.Public(), tt.want, signing, signature) {
			t.Errorf("the control: %s verifies another text", tt.want)
		}
	}
}

// Keys that can't sign are refused without being quoted.
func TestKeysOfTheWrongKind(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	good, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	damaged := keyPEM(t, good)
	damaged[40] ^= 2
	for name, key := range map[string][]byte{"a short RSA key": keyPEM(t, small), "another curve": keyPEM(t, p224), "damaged": damaged, "nothing": nil} {
		got, err := signAssertion(key, control.Injector{}, claims{}, time.Now())
		if err == nil || got != nil || len(key) > 100 && strings.Contains(err.Error(), string(key[60:80])) {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
}

func TestPurpose(t *testing.T) {
	in := control.Injector{Scheme: control.SchemeRegistry}
	for _, tt := range []struct{ method, path, want string }{
		{"GET", "/v2/", ""}, {"GET", "/v2", ""}, {"GET", "/other", ""}, {"GET", "/v2/_catalog?n=5", "registry:catalog:*"},
		{"GET", "/v2/a/manifests/latest", "repository:a:pull"}, {"HEAD", "/v2/a/b/c/blobs/sha256:00", "repository:a/b/c:pull"},
		{"GET", "/v2/a/manifests/manifests/x", "repository:a/manifests:pull"},
		{"PUT", "/v2/a/b/manifests/latest", "repository:a/b:pull,push"}, {"DELETE", "/v2/a/manifests/x", "repository:a:pull,delete"},
		{"POST", "/v2/a/blobs/uploads/?mount=sha256:0&from=x/y", "repository:a:pull,push repository:x/y:pull"},
		{"POST", "/v2/a/blobs/uploads/?from=x%2Fy", "repository:a:pull,push repository:x/y:pull"},
		{"GET", "/v2/a%20b/manifests/x", ""}, {"GET", "/v2/a:push,pull/manifests/x", ""}, {"GET", "/v2/A/manifests/x", ""},
		{"POST", "/v2/a/blobs/uploads/?from=x:pull,push", "repository:a:pull,push"},
	} {
		a, req := protocol.Authority{Host: "registry.example.org", Port: 443}, &protocol.Request{Method: tt.method, Path: tt.path}
		if got := Purpose(in, a, req); got != "@registry.example.org:443 "+tt.want {
			t.Errorf("%s %s: %q, want %q", tt.method, tt.path, got, tt.want)
		}
		sealed := control.Injector{Scheme: control.SchemeRegistry, Params: []control.Param{{Name: "service", Value: "s"}}}
		if got := Purpose(sealed, a, req); got != tt.want {
			t.Errorf("%s %s of a sealed service: %q, want %q", tt.method, tt.path, got, tt.want)
		}
	}
}
