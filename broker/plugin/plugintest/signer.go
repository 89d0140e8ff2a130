package plugintest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"

	"torno.internal/broker/plugin"
)

// A Key is one that the signer under test has.
type Key struct {
	Name      string
	Algorithm string
	Public    crypto.PublicKey // ed25519.PublicKey, *ecdsa.PublicKey or *rsa.PublicKey; of HMAC the key itself, []byte
}

// A SignerCase says what a signer under test is given, and has.
type SignerCase struct {
	Config  plugin.Config
	Keys    []Key  // at least one
	Missing string // the name of a key that is not there
}

// Signer tests a signer in this process.
func Signer(t *testing.T, impl plugin.Signer, c SignerCase) { testSigner(t, Dial(t, impl), &c) }

// SignerProgram tests the signer that the program at path is.
func SignerProgram(t *testing.T, path string, c SignerCase) { testSigner(t, Start(t, path).Client, &c) }

func testSigner(t *testing.T, client *plugin.Client, c *SignerCase) {
	if len(c.Keys) == 0 || c.Missing == "" {
		t.Fatal("a SignerCase needs a key that is there and the name of one that is not")
	}
	s := &signerTest{client, c}
	within(t, "Configure", func(ctx context.Context) {
		if d, err := s.Describe(ctx); err != nil || !d.Signer {
			t.Errorf("Describe: %+v, %v; want a signer", d, err)
		} else if err := s.Configure(ctx, c.Config); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	for _, k := range c.Keys {
		t.Run(k.Name+" "+k.Algorithm, func(t *testing.T) { s.key(t, k) })
	}
	t.Run("Refused", s.refused)
	t.Run("Close", func(t *testing.T) {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	})
}

type signerTest struct {
	*plugin.Client
	c *SignerCase
}

func (s *signerTest) sign(t *testing.T, key, algorithm string, message []byte) (signature []byte, err error) {
	within(t, "Sign", func(ctx context.Context) {
		signature, err = s.Sign(ctx, plugin.SignRequest{Key: key, Algorithm: algorithm, Message: message, Agent: "agent", Authority: "api.example.com:443"})
	})
	return signature, err
}

// key has messages signed, all at once, and verifies each signature for its own message alone.
func (s *signerTest) key(t *testing.T, k Key) {
	messages := [][]byte{
		[]byte("a"), []byte(`"@method": GET` + "\n" + `"@path": /`), {0}, {0xff, 0xfe},
		[]byte(strings.Repeat("long ", 10_000)), make([]byte, plugin.MaxMessage),
	}
	var all sync.WaitGroup
	for range 3 {
		for i, m := range messages {
			all.Go(func() {
				signature, err := s.sign(t, k.Name, k.Algorithm, m)
				switch {
				case err != nil:
					t.Errorf("a message of %d bytes: %v", len(m), err)
				case !Verify(k, m, signature):
					t.Errorf("a message of %d bytes: the signature is wrong", len(m))
				case Verify(k, messages[(i+1)%len(messages)], signature):
					t.Error("the signature fits another message")
				}
			})
		}
	}
	all.Wait()
}

func (s *signerTest) refused(t *testing.T) {
	k := s.c.Keys[0]
	if _, err := s.sign(t, s.c.Missing, k.Algorithm, []byte("m")); !errors.Is(err, plugin.ErrNotFound) && !errors.Is(err, plugin.ErrDenied) {
		t.Errorf("Sign with %q: %v; want ErrNotFound, or ErrDenied where the signer does not tell", s.c.Missing, err)
	}
	for _, algorithm := range []string{"", "none", "no-such-algorithm"} {
		if _, err := s.sign(t, k.Name, algorithm, []byte("m")); !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("Sign by %q: %v, want ErrInvalid", algorithm, err)
		}
	}
	for _, name := range []string{"../key", "/etc/passwd", "-", "*", "'", strings.Repeat("k", plugin.MaxRef)} {
		if _, err := s.sign(t, name, k.Algorithm, []byte("m")); err == nil {
			t.Errorf("there is a key %.20q", name)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Sign(ctx, plugin.SignRequest{Key: k.Name, Algorithm: k.Algorithm, Message: []byte("m")}); err == nil {
		t.Error("Sign succeeds after its context has ended")
	}
	s.key(t, k) // it is still there
}

// Verify reports whether signature is that of message by k.
func Verify(k Key, message, signature []byte) bool {
	switch public := k.Public.(type) {
	case ed25519.PublicKey:
		return k.Algorithm == plugin.Ed25519 && ed25519.Verify(public, message, signature)
	case *ecdsa.PublicKey:
		size := (public.Params().BitSize + 7) / 8
		if len(signature) != 2*size {
			return false
		}
		digest := sha256.Sum256(message)
		sum := digest[:]
		if k.Algorithm == plugin.ECDSAP384 {
			long := sha512.Sum384(message)
			sum = long[:]
		}
		return ecdsa.Verify(public, sum, new(big.Int).SetBytes(signature[:size]), new(big.Int).SetBytes(signature[size:]))
	case *rsa.PublicKey:
		if k.Algorithm == plugin.RSAPSS {
			digest := sha512.Sum512(message)
			return rsa.VerifyPSS(public, crypto.SHA512, digest[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		}
		digest := sha256.Sum256(message)
		return k.Algorithm == plugin.RSAPKCS1 && rsa.VerifyPKCS1v15(public, crypto.SHA256, digest[:], signature) == nil
	case []byte:
		m := hmac.New(sha256.New, public)
		m.Write(message)
		return k.Algorithm == plugin.HMAC && hmac.Equal(m.Sum(nil), signature)
	}
	return false
}
