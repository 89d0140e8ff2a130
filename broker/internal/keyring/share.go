package keyring

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/cloudflare/circl/group"
	"github.com/cloudflare/circl/secretsharing"

	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

// A share is text: the prefix, then in base32 of lower case, in groups of five with hyphens between,
//
//	format (1) | key id (8) | set (4) | threshold (1) | number (1) | scalar (32) | encrypted seed (48) | checksum (4)
//
// A random scalar of Ristretto255 is shared among them (Shamir's scheme); HKDF-SHA256 makes of it the key
// that the broker's seed is encrypted under (AES-256-GCM, used once, nonce zero), and the result is in every
// share. The set is random, so that shares of different splits are not mixed. The checksum is the beginning
// of the SHA-256 of all before it.
const (
	sharePrefix  = "torno-share-"
	shareFormat  = 1
	shareKeyID   = 8
	shareSet     = 4
	scalarSize   = 32
	wrappedSize  = seedSize + 16
	checksumSize = 4
	shareSize    = 1 + shareKeyID + shareSet + 1 + 1 + scalarSize + wrappedSize + checksumSize
	shareGroup   = 5
)

// MaxShareText bounds the text of a share, in bytes, with what people put around it.
const MaxShareText = 1 << 10

// MaxShares is how many shares there can be.
const MaxShares = 64

var shareText = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// A share is one of a set that the key can be put together from.
type share struct {
	keyID     [shareKeyID]byte
	set       [shareSet]byte
	threshold byte
	number    byte
	scalar    [scalarSize]byte
	wrapped   [wrappedSize]byte
}

// CheckSplit reports what makes a number of shares and of those that are needed unusable.
func CheckSplit(shares, threshold int) error {
	switch {
	case shares < 2 || shares > MaxShares:
		return fmt.Errorf("%d shares; 2 to %d can be made", shares, MaxShares)
	case threshold < 2 || threshold > shares:
		return fmt.Errorf("threshold %d; 2 to %d, the number of shares, are possible", threshold, shares)
	}
	return nil
}

// Split splits a key into shares, any threshold of which are enough to recover it, and fewer say nothing
// about it. Each is a secret.
func Split(k seal.PrivateKey, shares, threshold int) ([]secret.Value, error) {
	if err := CheckSplit(shares, threshold); err != nil {
		return nil, err
	}
	g := group.Ristretto255
	root := g.RandomNonZeroScalar(rand.Reader)
	s := share{threshold: byte(threshold)}
	id, err := hex.DecodeString(k.Public().ID())
	if err != nil {
		return nil, err
	}
	copy(s.keyID[:], id)
	_, _ = rand.Read(s.set[:]) // never fails
	a, err := s.aead(root)
	if err != nil {
		return nil, err
	}
	err = k.Bytes().Use(func(seed []byte) error {
		copy(s.wrapped[:], a.Seal(nil, make([]byte, a.NonceSize()), seed, s.bound()))
		return nil
	})
	if err != nil {
		return nil, err
	}
	texts := make([]secret.Value, 0, shares)
	for i, part := range secretsharing.New(rand.Reader, uint(threshold-1), root).Share(uint(shares)) {
		b, err := part.Value.MarshalBinary()
		if err != nil {
			return nil, err
		}
		s.number = byte(i + 1)
		copy(s.scalar[:], b)
		texts = append(texts, secret.New(s.encode()))
	}
	return texts, nil
}

// aead returns what the seed is encrypted with.
func (s *share) aead(root group.Scalar) (cipher.AEAD, error) {
	b, err := root.MarshalBinary()
	if err != nil {
		return nil, err
	}
	defer clear(b)
	key, err := hkdf.Key(sha256.New, b, s.set[:], "torno key share v1", 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// bound is what the encrypted seed is bound to: all that the shares of a set have in common.
func (s *share) bound() []byte {
	b := append([]byte{shareFormat}, s.keyID[:]...)
	return append(append(b, s.set[:]...), s.threshold)
}

// Recover puts a key together from shares, in any order. More than are needed are no harm, all must be of
// one set.
func Recover(texts []secret.Value) (seal.PrivateKey, error) {
	var all []share
	for i, t := range texts {
		var s share
		err := t.Use(func(b []byte) (err error) { s, err = decodeShare(b); return err })
		if err != nil {
			return seal.PrivateKey{}, fmt.Errorf("share %d: %w", i+1, err)
		}
		all = append(all, s)
	}
	parts, err := compatible(all)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	first := &all[0]
	root, err := secretsharing.Recover(uint(first.threshold)-1, parts)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	a, err := first.aead(root)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	seed, err := a.Open(nil, make([]byte, a.NonceSize()), first.wrapped[:], first.bound())
	if err != nil {
		return seal.PrivateKey{}, errors.New("these shares do not make a key: one of them was changed")
	}
	defer clear(seed)
	k, err := seal.ParsePrivateKey(seed)
	if err == nil && k.Public().ID() != hex.EncodeToString(first.keyID[:]) {
		err = errors.New("these shares make another key than they say")
	}
	if err != nil {
		return seal.PrivateKey{}, err
	}
	return k, nil
}

// compatible checks that shares belong together and are enough.
func compatible(all []share) ([]secretsharing.Share, error) {
	if len(all) == 0 {
		return nil, errors.New("no shares")
	}
	seen := map[byte]bool{}
	var parts []secretsharing.Share
	for i := range all {
		s := &all[i]
		if !bytes.Equal(s.bound(), all[0].bound()) || s.wrapped != all[0].wrapped {
			return nil, fmt.Errorf("share %d is of another set than the first", i+1)
		}
		if seen[s.number] {
			continue // the same share twice
		}
		seen[s.number] = true
		g := group.Ristretto255
		value := g.NewScalar()
		if err := value.UnmarshalBinary(s.scalar[:]); err != nil {
			return nil, fmt.Errorf("share %d: %w", i+1, errShare)
		}
		parts = append(parts, secretsharing.Share{ID: g.NewScalar().SetUint64(uint64(s.number)), Value: value})
	}
	if len(parts) < int(all[0].threshold) {
		return nil, fmt.Errorf("%d different shares, %d are needed", len(parts), all[0].threshold)
	}
	return parts, nil
}

// encode returns the share's text.
func (s *share) encode() []byte {
	b := append(append(s.bound(), s.number), s.scalar[:]...)
	b = append(b, s.wrapped[:]...)
	sum := sha256.Sum256(b)
	b = append(b, sum[:checksumSize]...)
	defer clear(b)
	plain := shareText.AppendEncode(nil, b)
	defer clear(plain)
	out := []byte(sharePrefix)
	for i, c := range plain {
		if i > 0 && i%shareGroup == 0 {
			out = append(out, '-')
		}
		out = append(out, c)
	}
	return out
}

var errShare = errors.New("that is no share, or a letter of it is wrong")

// decodeShare reads a share's text. Case, and white space and hyphens within it, do not matter: people copy
// shares by hand.
func decodeShare(text []byte) (share, error) {
	var s share
	if len(text) > MaxShareText {
		return s, errShare
	}
	lower := bytes.ToLower(bytes.Join(bytes.Fields(text), nil))
	defer clear(lower)
	rest, ok := bytes.CutPrefix(lower, []byte(sharePrefix))
	if !ok {
		return s, errShare
	}
	plain := bytes.ReplaceAll(rest, []byte("-"), nil)
	defer clear(plain)
	b := make([]byte, shareText.DecodedLen(len(plain)))
	defer clear(b)
	n, err := shareText.Decode(b, plain)
	if err != nil || n != shareSize || !bytes.Equal(shareText.AppendEncode(nil, b[:n]), plain) { // one spelling of each
		return s, errShare
	}
	sum := sha256.Sum256(b[:shareSize-checksumSize])
	if !bytes.Equal(sum[:checksumSize], b[shareSize-checksumSize:]) || b[0] != shareFormat {
		return s, errShare
	}
	rest = b[1:]
	rest = rest[copy(s.keyID[:], rest):]
	rest = rest[copy(s.set[:], rest):]
	s.threshold, s.number = rest[0], rest[1]
	rest = rest[2:]
	rest = rest[copy(s.scalar[:], rest):]
	copy(s.wrapped[:], rest)
	if CheckSplit(MaxShares, int(s.threshold)) != nil || s.number < 1 || s.number > MaxShares {
		return share{}, errShare
	}
	return s, nil
}
