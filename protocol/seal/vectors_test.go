package seal

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hpke"
	"crypto/sha3"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"testing"

	circl "github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem/xwing"
)

// A vector is one of HPKE in base mode; numbers in hex.
type vector struct {
	Info         string `json:"info"`
	SkRm         string `json:"skRm"`
	PkRm         string `json:"pkRm"`
	Enc          string `json:"enc"`
	SharedSecret string `json:"shared_secret"`
	Encryptions  []struct{ AAD, CT, PT string }
}

func readVector(t *testing.T, name string) vector {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var v vector
	if err := json.Unmarshal(b, &v); err != nil || len(v.Encryptions) < 3 {
		t.Fatal(len(v.Encryptions), err)
	}
	return v
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What was published for HPKE opens with our key schedule, with circl's, and with the oracle: RFC 9180 A.2 (X25519),
// and draft-ietf-hpke-pq for the very suite that is ours (X-Wing, HKDF-SHA256, ChaCha20-Poly1305).
func TestHPKEVectors(t *testing.T) {
	for name, c := range map[string]struct {
		kem    circl.KEM
		oracle hpke.KEM
	}{
		"rfc9180-a.2.1.json":            {circl.KEM_X25519_HKDF_SHA256, hpke.DHKEM(ecdh.X25519())},
		"draft-ietf-hpke-pq-xwing.json": {circl.KEM_XWING, hpke.MLKEM768X25519()},
	} {
		t.Run(name, func(t *testing.T) {
			v := readVector(t, name)
			scheme := c.kem.Scheme()
			k, err := scheme.UnmarshalBinaryPrivateKey(unhex(t, v.SkRm))
			if err != nil {
				t.Fatal(err)
			}
			if pk, err := k.Public().MarshalBinary(); err != nil || hex.EncodeToString(pk) != v.PkRm {
				t.Errorf("the public key differs (%v)", err)
			}
			if ss, err := scheme.Decapsulate(k, unhex(t, v.Enc)); err == nil {
				aead, nonce := newSchedule(c.kem, unhex(t, v.Info)).first(ss)
				e := v.Encryptions[0]
				if got, err := aead.Open(nil, nonce, unhex(t, e.CT), unhex(t, e.AAD)); err != nil || hex.EncodeToString(got) != e.PT {
					t.Errorf("with our schedule: %x, %v", got, err)
				}
			}
			if ss, err := scheme.Decapsulate(k, unhex(t, v.Enc)); v.SharedSecret != "" && (err != nil || hex.EncodeToString(ss) != v.SharedSecret) {
				t.Errorf("the shared secret differs (%v)", err)
			}
			r, err := circl.NewSuite(c.kem, circl.KDF_HKDF_SHA256, circl.AEAD_ChaCha20Poly1305).NewReceiver(k, unhex(t, v.Info))
			if err != nil {
				t.Fatal(err)
			}
			opener, err := r.Setup(unhex(t, v.Enc))
			if err != nil {
				t.Fatal(err)
			}
			ok, err := c.oracle.NewPrivateKey(unhex(t, v.SkRm))
			if err != nil {
				t.Fatal(err)
			}
			oracle, err := hpke.NewRecipient(unhex(t, v.Enc), ok, hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), unhex(t, v.Info))
			if err != nil {
				t.Fatal(err)
			}
			for i, e := range v.Encryptions[:3] { // consecutive ones
				if got, err := opener.Open(unhex(t, e.CT), unhex(t, e.AAD)); err != nil || hex.EncodeToString(got) != e.PT {
					t.Errorf("encryption %d: %x, %v", i, got, err)
				}
				if got, err := oracle.Open(unhex(t, e.AAD), unhex(t, e.CT)); err != nil || hex.EncodeToString(got) != e.PT {
					t.Errorf("encryption %d, the oracle: %x, %v", i, got, err)
				}
			}
		})
	}
}

// The vectors of draft-connolly-cfrg-xwing-kem, of which the SHAKE-128 is known: three keys and encapsulations. Our
// keys of the same seeds are the same, and so are the oracle's.
func TestXWingVectors(t *testing.T) {
	const want = "1bcd0057d861d6b866239936cadcaeee1ec0164dedc181c386e9e54fe46156fe" // of spec/test-vectors.txt
	h := sha3.NewSHAKE128()
	var text bytes.Buffer
	for range 3 {
		seed, eseed := make([]byte, xwing.SeedSize), make([]byte, xwing.EncapsulationSeedSize)
		_, _ = h.Read(seed)
		sk, pk := xwing.DeriveKeyPairPacked(seed)
		_, _ = h.Read(eseed)
		ss, ct, err := xwing.Encapsulate(pk, eseed)
		if err != nil || !bytes.Equal(xwing.Decapsulate(ct, sk), ss) {
			t.Fatal("what was encapsulated differs", err)
		}
		for _, line := range []struct {
			name  string
			value []byte
		}{{"seed", seed}, {"sk", sk}, {"pk", pk}, {"eseed", eseed}, {"ct", ct}, {"ss", ss}} {
			writeVector(&text, line.name, line.value)
		}
		text.WriteByte('\n')
		k, err := ParsePrivateKey(bytes.Clone(seed))
		if err != nil || !bytes.Equal(k.Public().Bytes(), pk) {
			t.Errorf("our public key differs (%v)", err)
		}
		ok, err := hpke.MLKEM768X25519().NewPrivateKey(seed)
		if err != nil || !bytes.Equal(ok.PublicKey().Bytes(), pk) {
			t.Errorf("the oracle's public key differs (%v)", err)
		}
	}
	sum := sha3.SumSHAKE128(text.Bytes(), 32)
	if got := hex.EncodeToString(sum); got != want {
		t.Errorf("the vectors have SHAKE-128 %s, want %s", got, want)
	}
}

// writeVector writes a number as the draft's file has it: in one line, or in indented ones of 74 characters.
func writeVector(w *bytes.Buffer, name string, value []byte) {
	const width, indent = 74, "  "
	digits := hex.EncodeToString(value)
	if len(name)+len(digits)+5 < width {
		fmt.Fprintf(w, "%s     %s\n", name, digits)
		return
	}
	fmt.Fprintln(w, name)
	for len(digits) > 0 {
		n := min(len(digits), width-len(indent))
		fmt.Fprintln(w, indent+digits[:n])
		digits = digits[n:]
	}
}
