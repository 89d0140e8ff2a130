package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of algorithms
	_ "crypto/sha512"
	"errors"
	"fmt"
	"sync"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// An algorithm is a way to sign text with a key.
type algorithm struct {
	hash crypto.Hash // 0: none, the text is signed as it is
	kind control.KeyKind
	pss  bool // RSA, salted (RFC 8017 §8.1)
}

// A key is a value as an algorithm needs it: bytes, or a private key.
type key struct {
	algorithm
	shared  []byte
	private crypto.Signer

	elsewhere Away // it is kept there; nil: here
}

// A keyring keeps the private key of a value that it has seen: to read one takes longer than to sign with it. The zero
// keyring is empty. What it keeps goes with the signer, which goes with its session.
type keyring struct {
	away Away // keeps the key, for all values; nil: the values are keys

	mu    sync.Mutex
	value secret.Value
	key   key
}

// use calls f with the key of a value for an algorithm. Shared keys are written in a coding.
func (r *keyring) use(value secret.Value, a algorithm, coding string, f func(key) error) error {
	if r.away != nil {
		return f(key{algorithm: a, elsewhere: r.away})
	}
	if a.kind == control.KeyShared {
		return value.Use(func(b []byte) error {
			k, err := parseKey(b, a, coding)
			if err != nil {
				return err
			}
			defer secret.Wipe(k.shared)
			return f(k)
		})
	}
	k, err := r.private(value, a)
	if err != nil {
		return err
	}
	return f(k)
}

// private returns the key of a value, which it reads once.
func (r *keyring) private(value secret.Value, a algorithm) (key, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.key.private != nil && r.value == value {
		return r.key, nil
	}
	var k key
	err := value.Use(func(b []byte) (err error) { k, err = parseKey(b, a, ""); return err })
	if err == nil {
		r.value, r.key = value, k
	}
	return k, err
}

// parseKey reads the value of a secret for an algorithm: a private key in PEM, or a shared key that is written in a coding,
// for the caller to wipe.
func parseKey(value []byte, a algorithm, coding string) (key, error) {
	if a.kind == control.KeyShared {
		b, err := control.DecodeKey(value, coding)
		return key{algorithm: a, shared: b}, err
	}
	private, kind, err := control.ParsePrivateKey(value)
	if err == nil && kind != a.kind {
		err = fmt.Errorf("the private key is %s, the algorithm signs with %s", kind, a.kind)
	}
	if err != nil {
		return key{}, err
	}
	return key{algorithm: a, private: private}, nil
}

// sign signs text. ECDSA's two numbers stand one behind the other.
func (k key) sign(text []byte) ([]byte, error) {
	if k.elsewhere != nil {
		return k.signAway(text)
	}
	switch k.kind {
	case control.KeyShared:
		m := hmac.New(k.hash.New, k.shared)
		m.Write(text)
		return m.Sum(nil), nil
	case control.KeyEd25519:
		return k.private.Sign(nil, text, crypto.Hash(0))
	}
	h := k.hash.New()
	h.Write(text)
	digest := h.Sum(nil)
	switch private := k.private.(type) {
	case *ecdsa.PrivateKey:
		r, s, err := ecdsa.Sign(rand.Reader, private, digest)
		if err != nil {
			return nil, errors.New("the private key can't sign")
		}
		half := (private.Curve.Params().BitSize + 7) / 8
		return append(r.FillBytes(make([]byte, half)), s.FillBytes(make([]byte, half))...), nil
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = k.hash
		if k.pss {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}
		}
		signature, err := private.Sign(rand.Reader, digest, opts)
		if err != nil {
			return nil, errors.New("the private key can't sign")
		}
		return signature, nil
	}
	return nil, errors.New("no key to sign with")
}
