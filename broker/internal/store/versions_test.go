package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

func TestRevokeSecret(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	for v := 1; v <= 3; v++ {
		set(t, s, sealed(t, s, "a", "K", v, "value"))
	}
	raw := func(version int) (b []byte) {
		_ = s.file.read(func(tx *bbolt.Tx) error {
			b = bytes.Clone(tx.Bucket(bucketSecrets).Get(versionKey("a", "K", version)))
			return nil
		})
		return b
	}
	sec, err := control.DecodeSealed(raw(2))
	if err != nil || !bytes.Contains(raw(2), sec.Sealed) { // the control of what follows
		t.Fatalf("%v", err)
	}
	revoked, err := s.RevokeSecret("a", "K", 2)
	if err != nil || len(revoked) != 1 || revoked[0].Version != 2 || time.Since(revoked[0].Revoked) > time.Minute {
		t.Fatalf("%+v, %v", revoked, err)
	}
	if bytes.Contains(raw(2), sec.Sealed) {
		t.Error("the sealed value is there still")
	}
	if _, err := value(s, "a", "K", 2); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked version: %v", err)
	}
	for _, number := range []int{2, 9, -1} {
		if _, err := s.RevokeSecret("a", "K", number); err == nil {
			t.Errorf("version %d was revoked", number)
		}
	}
	if _, err := s.RevokeSecret("a", "L", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("a name that never was: %v", err)
	}
	if revoked, err := s.RevokeSecret("a", "K", 0); err != nil || len(revoked) != 2 {
		t.Errorf("the others: %+v, %v", revoked, err)
	}
	if _, err := s.RevokeSecret("a", "K", 0); !errors.Is(err, ErrRevoked) {
		t.Errorf("nothing is left: %v", err)
	}
	set(t, s, sealed(t, s, "a", "K", 4, "value"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	all, err := s.History("a", "K")
	if err != nil || len(all) != 4 || all[0].Revoked.IsZero() || all[1].Revoked != revoked[0].Revoked || !all[3].Revoked.IsZero() || all[3].Version != 4 {
		t.Errorf("history: %+v, %v", all, err)
	}
	if v, err := s.Verify(); err != nil || len(v.Broken) > 0 || v.Versions != 4 {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// TestAttack35RevokedReturns puts back what was revoked: the one entry, and the whole file. Both are named, and
// the value is not given out.
func TestAttack35RevokedReturns(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	path := filepath.Join(dir, dataFile)
	s := openStore(t, dir)
	reopen := func(findings int) {
		t.Helper()
		s = openStore(t, dir)
		if found, err := s.SetAnchor(anchorOf(dir)); err != nil || len(found) != findings {
			t.Fatalf("findings %v, %v; want %d", found, err, findings)
		}
	}
	if _, err := s.SetAnchor(anchorOf(dir)); err != nil {
		t.Fatal(err)
	}
	set(t, s, sealed(t, s, "a", "K", 1, "value"), sealed(t, s, "a", "L", 1, "other"))
	key := versionKey("a", "K", 1)
	var entry []byte
	_ = s.file.read(func(tx *bbolt.Tx) error { entry = bytes.Clone(tx.Bucket(bucketSecrets).Get(key)); return nil })
	whole := closed(t, s, path)
	reopen(0)
	if _, err := s.RevokeSecret("a", "K", 0); err != nil {
		t.Fatal(err)
	}
	closed(t, s, path)
	reopen(0)
	if v, err := value(s, "a", "K", 1); !errors.Is(err, ErrRevoked) { // the control
		t.Errorf("before the attack: %q, %v", v, err)
	}
	closed(t, s, path)
	doctor(t, dir, at(bucketSecrets, key, func([]byte) []byte { return entry }))
	reopen(0)
	if v, err := value(s, "a", "K", 1); !errors.Is(err, ErrTampered) {
		t.Errorf("the entry put back: %q, %v", v, err)
	}
	if v, err := value(s, "a", "L", 1); err != nil || v != "other" {
		t.Errorf("its neighbour: %q, %v", v, err)
	}
	closed(t, s, path)
	if err := os.WriteFile(path, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	reopen(2) // the store, and the secret
	if v, err := value(s, "a", "K", 1); !errors.Is(err, ErrTampered) {
		t.Errorf("the file put back: %q, %v", v, err)
	}
}

// closed closes the store and returns the bytes of its file.
func closed(t *testing.T, s *Store, path string) []byte {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A revoked version is passed over by a rotation of the key, and stays what it is.
func TestRotateLeavesRevoked(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "state"))
	set(t, s, sealed(t, s, "a", "K", 1, "one"))
	if _, err := s.RevokeSecret("a", "K", 1); err != nil {
		t.Fatal(err)
	}
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	done, total := 0, 0
	if err := s.Rotate(t.Context(), func(d, n int) { done, total = d, n }); err != nil || done != total {
		t.Errorf("%d of %d, %v", done, total, err)
	}
	all, err := s.History("a", "K")
	if v, verr := value(s, "a", "K", 2); err != nil || verr != nil || v != "two" || all[0].Revoked.IsZero() {
		t.Errorf("%+v, %v; %q, %v", all, err, v, verr)
	}
}

func TestUsage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "a", "KK", 1, "other"))
	now := time.Unix(1000, 5).UTC()
	for range 3 {
		s.Counter("a", "K", 1).Used(now)
	}
	s.Counter("a", "KK", 1).Used(now)
	writes := func() int64 {
		stats := s.file.db.Stats()
		return stats.TxStats.GetWrite()
	}
	before := writes()
	if err := s.FlushUsage(); err != nil || writes() == before {
		t.Errorf("the first flush wrote %d pages, %v", writes()-before, err)
	}
	before = writes()
	for range 100 {
		if err := s.FlushUsage(); err != nil || writes() != before {
			t.Fatalf("nothing was counted, and %d pages were written, %v", writes()-before, err)
		}
	}
	s.Counter("a", "K", 1).Used(now.Add(time.Second)) // for Close to write
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if all, err := s.History("a", "K"); err != nil || all[0].Uses != 4 || !all[0].Last.Equal(now.Add(time.Second)) {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := s.DeleteSecret("a", "K"); err != nil {
		t.Fatal(err)
	}
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	if all, err := s.History("a", "K"); err != nil || len(all) != 1 || all[0].Uses != 0 {
		t.Errorf("after a deletion: %+v, %v", all, err)
	}
	if all, err := s.History("a", "KK"); err != nil || all[0].Uses != 1 {
		t.Errorf("another name that begins alike: %+v, %v", all, err)
	}
}

func FuzzDecodeRevoked(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{revokedFormat, 0, 0, 0, 0, 0, 0, 0, 1, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, at, err := decodeRevoked(b); err == nil && !bytes.Equal(encodeRevoked(at, b[9:]), b) {
			t.Errorf("%x is not what would be written", b)
		}
	})
}
