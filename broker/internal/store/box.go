package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"fmt"

	"torno.internal/protocol/seal"
)

// A box encrypts records (AES-256-GCM, random nonce) under a key derived from the broker's own. The
// bucket and the record's name are bound to it, so that records can't be swapped.
type box struct{ aead cipher.AEAD }

const boxFormat = 1

func newBox(k seal.PrivateKey) (box, error) {
	var b box
	err := k.Bytes().Use(func(seed []byte) error {
		key, err := hkdf.Key(sha256.New, seed, nil, "torno store records v1", 32)
		if err != nil {
			return err
		}
		defer clear(key)
		block, err := aes.NewCipher(key)
		if err != nil {
			return err
		}
		b.aead, err = cipher.NewGCM(block)
		return err
	})
	return b, err
}

func (b box) seal(bucket []byte, name string, plain []byte) []byte {
	out := make([]byte, 1+b.aead.NonceSize(), 1+b.aead.NonceSize()+len(plain)+b.aead.Overhead())
	out[0] = boxFormat
	_, _ = rand.Read(out[1:]) // never fails
	return b.aead.Seal(out, out[1:], plain, additional(bucket, name))
}

func (b box) open(bucket []byte, name string, sealed []byte) ([]byte, error) {
	n := 1 + b.aead.NonceSize()
	if len(sealed) < n || sealed[0] != boxFormat {
		return nil, fmt.Errorf("%s %q: %w", bucket, name, ErrTampered)
	}
	plain, err := b.aead.Open(nil, sealed[1:n], sealed[n:], additional(bucket, name))
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", bucket, name, ErrTampered)
	}
	return plain, nil
}

func additional(bucket []byte, name string) []byte {
	return append(append(append([]byte{}, bucket...), 0), name...)
}
