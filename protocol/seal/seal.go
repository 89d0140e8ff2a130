// Package seal seals secrets to a broker's public key: HPKE (RFC 9180) in base mode with the X-Wing KEM
// (X25519 and ML-KEM-768), HKDF-SHA256 and ChaCha20-Poly1305. Who seals cannot open again.
package seal

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/hpke"
	"github.com/cloudflare/circl/kem"

	"torno.internal/protocol/secret"
)

// format is the first byte of everything sealed; another suite gets another format.
const format = 1

// MaxValue is the longest value that Seal takes.
const MaxValue = 64 << 10 // bytes

// MaxSealed is the longest that Seal returns: format, encapsulated key, value, tag.
const MaxSealed = 1 + 1120 + MaxValue + 16 // bytes; protocol/control has it too

// info separates this use of a key from any other.
const info = "torno sealed secret v1"

var keys = newSchedule(hpke.KEM_XWING, []byte(info))

func scheme() kem.Scheme { return hpke.KEM_XWING.Scheme() }

// ErrOpen means that sealed bytes are not for this key and associated data, or were changed.
var ErrOpen = errors.New("sealed value does not open")

// A PublicKey is what secrets are sealed to. The zero value is not usable.
type PublicKey struct{ k kem.PublicKey }

// ParsePublicKey reads the X-Wing encoding, 1216 bytes.
func ParsePublicKey(b []byte) (PublicKey, error) {
	k, err := scheme().UnmarshalBinaryPublicKey(b)
	if err != nil {
		return PublicKey{}, fmt.Errorf("public key of %d bytes: %w", len(b), err)
	}
	return PublicKey{k}, nil
}

// Bytes returns the X-Wing encoding.
func (k PublicKey) Bytes() []byte {
	b, err := k.k.MarshalBinary()
	if err != nil {
		panic(err) // a key that was parsed or made has an encoding
	}
	return b
}

// ID returns the first 16 hex digits of the key's SHA-256.
func (k PublicKey) ID() string {
	sum := sha256.Sum256(k.Bytes())
	return hex.EncodeToString(sum[:8])
}

// Seal seals value, at most MaxValue bytes, bound to aad. What it returns holds a format byte, the
// encapsulated key and the ciphertext.
func (k PublicKey) Seal(value, aad []byte) ([]byte, error) {
	if len(value) > MaxValue {
		return nil, fmt.Errorf("value of %d bytes, at most %d can be sealed", len(value), MaxValue)
	}
	enc, shared, err := scheme().Encapsulate(k.k)
	if err != nil {
		return nil, err
	}
	defer clear(shared)
	aead, nonce := keys.first(shared)
	out := make([]byte, 0, 1+len(enc)+len(value)+aead.Overhead())
	return aead.Seal(append(append(out, format), enc...), nonce, value, aad), nil
}

// A PrivateKey opens what was sealed to its public key. It is safe for concurrent use.
type PrivateKey struct {
	k    kem.PrivateKey
	seed secret.Value
}

// GenerateKey makes a new key.
func GenerateKey() (PrivateKey, error) {
	_, k, err := scheme().GenerateKeyPair()
	if err != nil {
		return PrivateKey{}, err
	}
	return fromKEM(k)
}

// ParsePrivateKey reads what Bytes returned.
func ParsePrivateKey(b []byte) (PrivateKey, error) {
	k, err := scheme().UnmarshalBinaryPrivateKey(b)
	if err != nil {
		return PrivateKey{}, errors.New("private key is malformed")
	}
	return fromKEM(k)
}

func fromKEM(k kem.PrivateKey) (PrivateKey, error) {
	clearUpper()
	b, err := k.MarshalBinary()
	if err != nil {
		return PrivateKey{}, err
	}
	return PrivateKey{k, secret.New(b)}, nil
}

// Public returns the key that secrets are sealed to.
func (k PrivateKey) Public() PublicKey { return PublicKey{k.k.Public()} }

// Bytes returns the X-Wing seed, 32 bytes, which is all of the key.
func (k PrivateKey) Bytes() secret.Value { return k.seed }

// Format keeps the key out of whatever prints, for every verb.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[redacted]") }

// Open opens what was sealed to this key and bound to aad. Every failure is ErrOpen.
func (k PrivateKey) Open(sealed, aad []byte) (secret.Value, error) {
	size := scheme().CiphertextSize()
	if len(sealed) < 1+size || sealed[0] != format || len(sealed) > MaxSealed {
		return secret.Value{}, ErrOpen
	}
	shared, err := scheme().Decapsulate(k.k, sealed[1:1+size])
	if err != nil {
		return secret.Value{}, ErrOpen
	}
	defer clear(shared)
	aead, nonce := keys.first(shared)
	value, err := aead.Open(nil, nonce, sealed[1+size:], aad)
	if err != nil {
		return secret.Value{}, ErrOpen
	}
	return secret.New(value), nil
}
