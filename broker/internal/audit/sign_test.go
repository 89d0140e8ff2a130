package audit

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"testing"

	"filippo.io/mldsa"

	"torno.internal/protocol/control"
)

// Checkpoints are what docs/audit.md says: another implementation of ML-DSA-65 verifies them, makes the same keys of
// the same seed, and signs such that ours verifies it.
func TestSignaturesOracle(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	must(t, l.Event(request("/")))
	line, err := l.Checkpoint()
	must(t, err)
	must(t, l.Close())
	r, err := Decode(line)
	must(t, err)
	before, _, _ := bytes.Cut(line, []byte(`,"ed25519":"`))
	message := append([]byte("torno audit checkpoint v1\n"), before...)
	seed := bytes.Repeat([]byte{7}, 32)
	private, err := mldsa.NewPrivateKey(mldsa.MLDSA65(), seed)
	must(t, err)
	public := private.PublicKey()
	if !bytes.Equal(public.Bytes(), testSigner.Public().MLDSA65) {
		t.Error("another key of the same seed")
	}
	ml, err := base64.StdEncoding.DecodeString(r.MLDSA65Sig)
	must(t, err)
	must(t, mldsa.Verify(public, message, ml, nil))
	ed, err := base64.StdEncoding.DecodeString(r.Ed25519Sig)
	must(t, err)
	if !ed25519.Verify(ed25519.NewKeyFromSeed(seed).Public().(ed25519.PublicKey), message, ed) {
		t.Error("Ed25519 does not verify")
	}
	theirs, err := private.Sign(nil, message, nil)
	must(t, err)
	v, err := newVerifier(testSigner.Public())
	must(t, err)
	line = bytes.Replace(line, []byte(r.MLDSA65Sig), []byte(base64.StdEncoding.EncodeToString(theirs)), 1)
	r, err = Decode(line)
	must(t, err)
	must(t, v.verify(line, &r))
}

// Both signatures count: neither alone is enough, and every byte before them is signed.
func TestSignatures(t *testing.T) {
	line := append(appendHead(nil, 2, time0, &[32]byte{1}, control.AuditCheckpoint), `,"open":[1]`...)
	line = append(testSigner.appendSigned(line), '}')
	good, err := Decode(line)
	must(t, err)
	v, err := newVerifier(testSigner.Public())
	must(t, err)
	must(t, v.verify(line, &good))
	other := "A" + good.Ed25519Sig[1:]
	if other == good.Ed25519Sig {
		other = "B" + good.Ed25519Sig[1:]
	}
	for name, change := range map[string][2]string{
		"Ed25519":    {good.Ed25519Sig, other},
		"ML-DSA-65":  {good.MLDSA65Sig[:64], good.MLDSA65Sig[1:65]},
		"number":     {`"seq":2`, `"seq":3`},
		"time":       {`"time":"2`, `"time":"3`},
		"hash":       {`"prev":"01`, `"prev":"02`},
		"open":       {`[1]`, `[2]`},
		"key":        {good.Ed25519Key, "0123456789abcdef"},
		"other key":  {good.MLDSA65Key, "0123456789abcdef"},
		"no Ed25519": {`,"ed25519":"` + good.Ed25519Sig + `"`, ""},
	} {
		changed := bytes.Replace(line, []byte(change[0]), []byte(change[1]), 1)
		r, err := Decode(changed)
		must(t, err)
		if v.verify(changed, &r) == nil {
			t.Errorf("%s: the signatures still hold", name)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %x", testSigner, testSigner, *testSigner, testSigner); bytes.Contains([]byte(s), []byte("0707")) {
		t.Errorf("a signer prints its keys: %.200s", s)
	}
}

func BenchmarkCheckpoint(b *testing.B) {
	for b.Loop() {
		testSigner.appendSigned(make([]byte, 200, 8<<10))
	}
}
