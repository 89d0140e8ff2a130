package store

import (
	"crypto/rand"
	"errors"
	"fmt"

	"torno.internal/protocol/secret"
)

// SigningSeedSize is the size of a signing seed in bytes: 32 each for Ed25519 and ML-DSA-65.
const SigningSeedSize = 64

// signingName is the record of the seed that audit checkpoints are signed with.
const signingName = "audit"

// SigningSeed returns the seed of the keys that sign the audit's checkpoints, and makes it the first time. It is a
// record as every other, encrypted under a key derived from the broker's own, so that who has the disk alone can sign
// nothing. The error matches ErrTampered if it was edited.
func (s *Store) SigningSeed() (secret.Value, error) {
	const page = prefixSigning + signingName
	seed, err := s.getBox(&s.signing, page, signingName, bucketSigning, signingName)
	if errors.Is(err, ErrNotFound) {
		seed = make([]byte, SigningSeedSize)
		_, _ = rand.Read(seed) // never fails
		err = s.change(&s.signing, func(e *edit) ([]Change, error) {
			return nil, e.putBox(page, signingName, bucketSigning, signingName, seed)
		})
	}
	if err == nil && len(seed) != SigningSeedSize {
		err = fmt.Errorf("signing seed of %d bytes, want %d", len(seed), SigningSeedSize)
	}
	if err != nil {
		return secret.Value{}, subject(err, "the audit's signing key")
	}
	return secret.New(seed), nil
}
