package store

import (
	"errors"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

func seedOf(t *testing.T, s *Store) (seed string) {
	t.Helper()
	v, err := s.SigningSeed()
	if err != nil {
		t.Fatal(err)
	}
	_ = v.Use(func(b []byte) error { seed = string(b); return nil })
	return seed
}

// The seed is made once, is another in another store, and does not survive an edit.
func TestSigningSeed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s := openStore(t, dir)
	seed := seedOf(t, s)
	if len(seed) != SigningSeedSize || seed != seedOf(t, s) {
		t.Fatal("the seed changes from call to call")
	}
	if seed == seedOf(t, openStore(t, filepath.Join(t.TempDir(), "s"))) {
		t.Error("two stores have the same seed")
	}
	s.Close()
	s = openStore(t, dir)
	if seed != seedOf(t, s) {
		t.Error("another seed after the store was opened again")
	}
	err := s.file.write(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketSigning).Get([]byte(signingName))
		b = append([]byte{}, b...)
		b[len(b)-1] ^= 1
		return tx.Bucket(bucketSigning).Put([]byte(signingName), b)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.SigningSeed(); !errors.Is(err, ErrTampered) {
		t.Errorf("an edited seed: %v", err)
	}
}
