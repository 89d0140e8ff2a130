package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of algorithms
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"sync"

	"torno.internal/protocol/secret"
)

// An algorithm is a way to sign text with a key.
type algorithm struct {
	hash  crypto.Hash // 0: none, the text is signed as it is
	kind  keyKind
	curve int // bytes of each of the two numbers of ECDSA
}

// A keyKind is what a key must be for an algorithm.
type keyKind uint8

const (
	keyShared keyKind = iota // bytes that both sides know
	keyRSA
	keyPSS // RSA, salted (RFC 8017 §8.1)
	keyECDSA
	keyEd25519
)

// minRSA is how many bits an RSA key must have.
const minRSA = 2048

// A key is a value as an algorithm needs it: bytes, or a private key.
type key struct {
	algorithm
	shared  []byte
	private crypto.Signer
}

// A keyring keeps the private key of a value that it has seen: to read one takes longer than to sign with it. The zero
// keyring is empty. What it keeps goes with the signer, which goes with its session.
type keyring struct {
	mu    sync.Mutex
	value secret.Value
	key   key
}

// use calls f with the key of a value for an algorithm.
func (r *keyring) use(value secret.Value, a algorithm, inBase64 bool, f func(key) error) error {
	if a.kind == keyShared {
		return value.Use(func(b []byte) error {
			k, err := parseKey(b, a, inBase64)
			if err != nil {
				return err
			}
			if inBase64 {
				defer secret.Wipe(k.shared)
			}
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
	err := value.Use(func(b []byte) (err error) { k, err = parseKey(b, a, false); return err })
	if err == nil {
		r.value, r.key = value, k
	}
	return k, err
}

// parseKey reads the value of a secret for an algorithm. Shared keys are the value's bytes, or what they are in base64.
func parseKey(value []byte, a algorithm, inBase64 bool) (key, error) {
	if a.kind == keyShared {
		if !inBase64 {
			return key{a, value, nil}, nil
		}
		b, err := base64.StdEncoding.AppendDecode(nil, value)
		if err != nil {
			return key{}, errors.New("the value is not base64")
		}
		return key{a, b, nil}, nil
	}
	private, err := ParsePrivate(value)
	if err != nil {
		return key{}, err
	}
	fits := false
	switch k := private.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < minRSA {
			return key{}, fmt.Errorf("an RSA key of %d bits; verifiers want %d or more", k.N.BitLen(), minRSA)
		}
		fits = a.kind == keyRSA || a.kind == keyPSS
	case *ecdsa.PrivateKey:
		fits = a.kind == keyECDSA && (k.Curve.Params().BitSize+7)/8 == a.curve
	case ed25519.PrivateKey:
		fits = a.kind == keyEd25519
	}
	if !fits {
		return key{}, errors.New("the private key is of another kind than the algorithm")
	}
	return key{a, nil, private}, nil
}

// ParsePrivate reads a private key in PEM: PKCS #8, or the older forms of RSA and of curves.
func ParsePrivate(value []byte) (crypto.Signer, error) {
	block, _ := pem.Decode(value)
	if block == nil {
		return nil, errors.New("the value is not a private key in PEM")
	}
	defer secret.Wipe(block.Bytes)
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		parsed, err = x509.ParseECPrivateKey(block.Bytes)
	default:
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	}
	private, ok := parsed.(crypto.Signer)
	if err != nil || !ok {
		return nil, errors.New("the private key is damaged, or of a kind that does not sign")
	}
	return private, nil
}

// sign signs text. ECDSA's two numbers stand one behind the other.
func (k key) sign(text []byte) ([]byte, error) {
	switch k.kind {
	case keyShared:
		m := hmac.New(k.hash.New, k.shared)
		m.Write(text)
		return m.Sum(nil), nil
	case keyEd25519:
		return k.private.Sign(rand.Reader, text, crypto.Hash(0))
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
		return append(r.FillBytes(make([]byte, k.curve)), s.FillBytes(make([]byte, k.curve))...), nil
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = k.hash
		if k.kind == keyPSS {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: k.hash}
		}
		return private.Sign(rand.Reader, digest, opts)
	}
	return nil, errors.New("no key to sign with")
}
