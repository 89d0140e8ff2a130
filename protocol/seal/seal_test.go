package seal

import (
	"bytes"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	circl "github.com/cloudflare/circl/hpke"
)

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// opened returns what sealed opens to.
func opened(k PrivateKey, sealed, aad []byte) (string, error) {
	v, err := k.Open(sealed, aad)
	if err != nil {
		return "", err
	}
	var s string
	return s, v.Use(func(b []byte) error { s = string(b); return nil })
}

func TestSealOpen(t *testing.T) {
	k := newKey(t)
	for _, value := range []string{"", "x", "sk-ant-0123456789", strings.Repeat("v", MaxValue)} {
		sealed, err := k.Public().Seal([]byte(value), []byte("aad"))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := opened(k, sealed, []byte("aad")); err != nil || got != value {
			t.Errorf("%d bytes: opened %d bytes, %v", len(value), len(got), err)
		}
		if len(value) > 8 && bytes.Contains(sealed, []byte(value)) {
			t.Errorf("%d bytes: the value is in what was sealed", len(value))
		}
	}
	if _, err := k.Public().Seal(make([]byte, MaxValue+1), nil); err == nil {
		t.Error("a value over MaxValue was sealed")
	}
}

// Nothing but the key, the value and the data that it was bound to opens.
func TestOpenRefuses(t *testing.T) {
	k := newKey(t)
	sealed, err := k.Public().Seal([]byte("value"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := opened(newKey(t), sealed, []byte("aad")); !errors.Is(err, ErrOpen) {
		t.Errorf("another key: %v", err)
	}
	if _, err := opened(k, sealed, []byte("aae")); !errors.Is(err, ErrOpen) {
		t.Errorf("other associated data: %v", err)
	}
	for i := range sealed {
		flipped := bytes.Clone(sealed)
		flipped[i] ^= 1
		if _, err := opened(k, flipped, []byte("aad")); !errors.Is(err, ErrOpen) {
			t.Fatalf("byte %d of %d flipped: %v", i, len(sealed), err)
		}
	}
	for n := range sealed {
		if _, err := opened(k, sealed[:n], []byte("aad")); !errors.Is(err, ErrOpen) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

// The standard library's HPKE is the oracle: each opens what the other sealed.
func TestOracle(t *testing.T) {
	k := newKey(t)
	var seed []byte
	_ = k.Bytes().Use(func(b []byte) error { seed = bytes.Clone(b); return nil })
	kem := hpke.MLKEM768X25519()
	priv, err := kem.NewPrivateKey(seed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(priv.PublicKey().Bytes(), k.Public().Bytes()) {
		t.Fatal("the public keys differ")
	}
	kdf, aead := hpke.HKDFSHA256(), hpke.ChaCha20Poly1305()
	sealed, err := k.Public().Seal([]byte("ours"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	enc, ct := sealed[1:1+scheme().CiphertextSize()], sealed[1+scheme().CiphertextSize():]
	r, err := hpke.NewRecipient(enc, priv, kdf, aead, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.Open([]byte("aad"), ct); err != nil || string(got) != "ours" {
		t.Errorf("the oracle opens %q, %v", got, err)
	}
	enc, s, err := hpke.NewSender(priv.PublicKey(), kdf, aead, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	ct, err = s.Seal([]byte("aad"), []byte("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opened(k, append(append([]byte{format}, enc...), ct...), []byte("aad")); err != nil || got != "theirs" {
		t.Errorf("we open %q, %v", got, err)
	}
}

// circl's HPKE is another: each opens what the other sealed.
func TestOracleCircl(t *testing.T) {
	k := newKey(t)
	suite := circl.NewSuite(circl.KEM_XWING, circl.KDF_HKDF_SHA256, circl.AEAD_ChaCha20Poly1305)
	r, err := suite.NewReceiver(k.k, []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := k.Public().Seal([]byte("ours"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	opener, err := r.Setup(sealed[1 : 1+scheme().CiphertextSize()])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opener.Open(sealed[1+scheme().CiphertextSize():], []byte("aad")); err != nil || string(got) != "ours" {
		t.Errorf("circl opens %q, %v", got, err)
	}
	sender, err := suite.NewSender(k.k.Public(), []byte(info))
	if err != nil {
		t.Fatal(err)
	}
	enc, sealer, err := sender.Setup(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := sealer.Seal([]byte("theirs"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := opened(k, append(append([]byte{format}, enc...), ct...), []byte("aad")); err != nil || got != "theirs" {
		t.Errorf("we open %q, %v", got, err)
	}
}

// What comes after the KEM does not take many times what it takes by itself; see clearUpper.
func TestClearUpper(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	k := newKey(t)
	ct, shared, err := scheme().Encapsulate(k.k.Public())
	if err != nil {
		t.Fatal(err)
	}
	best := func(before func()) time.Duration {
		least := time.Hour
		for range 200 {
			before()
			began := time.Now()
			keys.first(shared)
			least = min(least, time.Since(began))
		}
		return least
	}
	var x, y [256]byte
	alone := best(func() { x[255] |= y[0]; _ = bytes.Equal(x[:], y[:]) }) // as clearUpper does
	after := best(func() { _, _ = scheme().Decapsulate(k.k, ct) })
	if t.Logf("%v alone, %v after the KEM", alone, after); after > 4*alone {
		t.Errorf("the key schedule takes %v, and %v after the KEM", alone, after)
	}
}

func BenchmarkOpen(b *testing.B) {
	k := newKey(b)
	sealed, err := k.Public().Seal([]byte("0123456789abcdef0123456789abcdef"), nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := opened(k, sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func TestKeys(t *testing.T) {
	k := newKey(t)
	var again PrivateKey
	if err := k.Bytes().Use(func(b []byte) (err error) { again, err = ParsePrivateKey(b); return err }); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(again.Public().Bytes(), k.Public().Bytes()) {
		t.Error("the key changed on its way")
	}
	p, err := ParsePublicKey(k.Public().Bytes())
	if err != nil || p.ID() != k.Public().ID() || len(p.ID()) != 16 {
		t.Errorf("public key: %v, id %q", err, p.ID())
	}
	for _, n := range []int{0, 1, 31, 33} {
		if _, err := ParsePrivateKey(make([]byte, n)); err == nil {
			t.Errorf("a private key of %d bytes was read", n)
		}
		if _, err := ParsePublicKey(make([]byte, n)); err == nil {
			t.Errorf("a public key of %d bytes was read", n)
		}
	}
	var hex, decimal string
	_ = k.Bytes().Use(func(b []byte) error {
		hex, decimal = fmt.Sprintf("%x", b), strings.Trim(fmt.Sprint(b), "[]")
		return nil
	})
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d"} {
		for _, v := range []any{k, &k, struct{ K PrivateKey }{k}} {
			if out := fmt.Sprintf(verb, v); strings.Contains(out, hex) || strings.Contains(out, decimal) {
				t.Errorf("%s prints the key", verb)
			}
		}
	}
}

func FuzzOpen(f *testing.F) {
	k := newKey(f)
	sealed, err := k.Public().Seal([]byte("value"), nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed, []byte{})
	f.Add([]byte{}, []byte("aad"))
	f.Fuzz(func(t *testing.T, b, aad []byte) {
		if v, err := k.Open(b, aad); err != nil && v.Len() != 0 {
			t.Error("a value beside an error")
		} else if err == nil && (!bytes.Equal(b, sealed) || len(aad) != 0) {
			t.Error("opened what was not sealed")
		}
	})
}
