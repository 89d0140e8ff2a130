package store

import (
	"crypto/rand"
	"encoding/hex"
)

// A box holds a record, encrypted and authenticated (AES-256-GCM, random nonce) under a key derived from
// the broker's. The bucket and the record's name are bound to it, so that records can't be swapped.
//
//	format (1) | id of the broker's key (8) | nonce (12) | ciphertext
const (
	boxFormat = 2
	boxKeyID  = 8
)

func (k *key) seal(bucket []byte, name string, plain []byte) []byte {
	out := make([]byte, 1, 1+boxKeyID+k.box.NonceSize()+len(plain)+k.box.Overhead())
	out[0] = boxFormat
	id, err := hex.DecodeString(k.id)
	if err != nil || len(id) != boxKeyID {
		panic("the id of a key is not 16 hex digits")
	}
	out = append(out, id...)
	nonce := out[len(out) : len(out)+k.box.NonceSize()]
	_, _ = rand.Read(nonce) // never fails
	return k.box.Seal(out[:len(out)+len(nonce)], nonce, plain, additional(bucket, name))
}

// boxKey returns the id of the key that a box was sealed with.
func boxKey(sealed []byte) string {
	if len(sealed) < 1+boxKeyID || sealed[0] != boxFormat {
		return ""
	}
	return hex.EncodeToString(sealed[1 : 1+boxKeyID])
}

// open opens a box. Every failure is a *TamperedError.
func (ks keys) open(bucket []byte, name string, sealed []byte) ([]byte, error) {
	k := ks.byID(boxKey(sealed))
	if k == nil {
		return nil, &TamperedError{Why: "it is encrypted under another key"}
	}
	rest := sealed[1+boxKeyID:]
	n := k.box.NonceSize()
	if len(rest) < n {
		return nil, &TamperedError{Why: "it is too short"}
	}
	plain, err := k.box.Open(nil, rest[:n], rest[n:], additional(bucket, name))
	if err != nil {
		return nil, &TamperedError{Why: "it does not open"}
	}
	return plain, nil
}

func additional(bucket []byte, name string) []byte {
	return append(append(append([]byte{}, bucket...), 0), name...)
}
