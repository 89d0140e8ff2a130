package store

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// doctor changes the store's file as somebody with a hex editor would.
func doctor(t *testing.T, dir string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, dataFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// furnish makes what the attacks are about: secrets of two agents, one in two versions and one deleted,
// trusted files and sessions.
func furnish(t *testing.T, s *Store) {
	t.Helper()
	set(t, s, sealed(t, s, "a", "K", 1, "ak"), sealed(t, s, "a", "L", 1, "al"), sealed(t, s, "b", "K", 1, "bk"))
	set(t, s, sealed(t, s, "a", "K", 2, "ak2"), sealed(t, s, "a", "M", 1, "am"))
	if _, err := s.DeleteSecret("a", "M"); err != nil {
		t.Fatal(err)
	}
	for _, agent := range []string{"a", "b"} {
		if err := s.PutTrusted(control.TrustedFile{Agent: agent, File: []byte(agent)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"s1", "s2", "r1"} {
		if err := s.PutSession(id, []byte(id)); err != nil {
			t.Fatal(err)
		}
	}
}

// at replaces what stands at key; a nil result removes it.
func at(bucket, key []byte, f func(old []byte) []byte) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if v := f(bytes.Clone(b.Get(key))); v != nil {
			return b.Put(key, v)
		}
		return b.Delete(key)
	}
}

func move(bucket, from, to []byte) func(*bbolt.Tx) error {
	return func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		return b.Put(to, bytes.Clone(b.Get(from)))
	}
}

func remove([]byte) []byte { return nil }

func flip(old []byte) []byte { old[len(old)/2] ^= 1; return old }

// Every edit, swap, single-entry rollback and deletion is detected and named, and the rest is readable.
func TestAttack35EditedStore(t *testing.T) {
	aK1, aK2, aL, bK := versionKey("a", "K", 1), versionKey("a", "K", 2), versionKey("a", "L", 1), versionKey("b", "K", 1)
	readK2 := func(s *Store) error { _, err := value(s, "a", "K", 2); return err }
	readTrusted := func(s *Store) error { _, err := s.Trusted("a"); return err }
	readSession := func(s *Store) error { _, err := s.Session("s1"); return err }
	for name, c := range map[string]struct {
		edit  func(*bbolt.Tx) error
		check func(*Store) error
		names []string // in the error
	}{
		"swapped between agents": {move(bucketSecrets, bK, aK2), readK2, []string{`"K" of agent "a", version 2`}},
		"swapped between names":  {move(bucketSecrets, aL, aK2), readK2, []string{`"K" of agent "a", version 2`}},
		"rolled back":            {move(bucketSecrets, aK1, aK2), readK2, []string{`"K" of agent "a", version 2`}},
		"removed":                {at(bucketSecrets, aK2, remove), readK2, []string{`"K" of agent "a", version 2`, "removed"}},
		"another audience": {at(bucketSecrets, aK2, func(b []byte) []byte {
			return bytes.Replace(b, []byte("https://x.example"), []byte("https://e.example"), 1)
		}), readK2, []string{`"K" of agent "a", version 2`}},
		"truncated":         {at(bucketSecrets, aK2, func(b []byte) []byte { return b[:20] }), readK2, []string{`"K" of agent "a"`}},
		"a flipped bit":     {at(bucketSecrets, aK2, flip), readK2, []string{`"K" of agent "a", version 2`}},
		"the list edited":   {at(bucketPages, []byte("a/a"), flip), readK2, []string{"agent a"}},
		"the list removed":  {at(bucketPages, []byte("a/a"), remove), readK2, []string{"agent a", "removed"}},
		"another's list":    {move(bucketPages, []byte("a/b"), []byte("a/a")), readK2, []string{"agent a"}},
		"an agent added":    {move(bucketPages, []byte("a/b"), []byte("a/c")), func(s *Store) error { _, err := value(s, "c", "K", 1); return err }, []string{"agent c"}},
		"trusted: another":  {move(bucketTrusted, []byte("b"), []byte("a")), readTrusted, []string{"trusted file of agent a"}},
		"trusted: removed":  {at(bucketTrusted, []byte("a"), remove), readTrusted, []string{"trusted file of agent a"}},
		"session: another":  {move(bucketSessions, []byte("s2"), []byte("s1")), readSession, []string{"session s1"}},
		"session: a bit":    {at(bucketSessions, []byte("s1"), flip), readSession, []string{"session s1"}},
		"session: removed":  {at(bucketSessions, []byte("s1"), remove), readSession, []string{"session s1"}},
		"sessions: removed": {at(bucketPages, []byte("s/1"), remove), readSession, []string{"list of 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := openStore(t, dir)
			furnish(t, s)
			if err := c.check(s); err != nil && !strings.HasPrefix(name, "an agent added") {
				t.Fatalf("before the edit: %v", err) // the control
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			doctor(t, dir, c.edit)
			s = openStore(t, dir)
			err := c.check(s)
			if !errors.Is(err, ErrTampered) {
				t.Fatalf("not detected: %v", err)
			}
			for _, want := range c.names {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v: does not name %q", err, want)
				}
			}
			if got, err := value(s, "b", "K", 1); err != nil || got != "bk" {
				t.Errorf("the rest: %q, %v", got, err)
			}
			if _, err := s.Trusted("b"); err != nil {
				t.Errorf("the rest: %v", err)
			}
			if strings.HasPrefix(name, "session") {
				return
			}
			if broken := verify(t, s); len(broken) != 1 || broken[0].Error() != err.Error() {
				t.Errorf("verify names %v, want %v", broken, err)
			}
		})
	}
}

func verify(t *testing.T, s *Store) []*TamperedError {
	t.Helper()
	v, err := s.Verify()
	if err != nil {
		t.Fatal(err)
	}
	return v.Broken
}

// A deleted secret whose record is put back stays deleted, and its version is not taken again.
func TestAttack35DeletedPutBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	set(t, s, sealed(t, s, "a", "K", 1, "one"))
	var old []byte
	if err := s.file.read(func(tx *bbolt.Tx) error {
		old = bytes.Clone(tx.Bucket(bucketSecrets).Get(versionKey("a", "K", 1)))
		return nil
	}); err != nil || old == nil {
		t.Fatal(err, len(old))
	}
	if _, err := s.DeleteSecret("a", "K"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	doctor(t, dir, at(bucketSecrets, versionKey("a", "K", 1), func([]byte) []byte { return old }))
	s = openStore(t, dir)
	if _, err := value(s, "a", "K", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("the deleted secret: %v", err)
	}
	if err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 1, "again")}); !errors.Is(err, ErrConflict) {
		t.Errorf("its version again: %v", err)
	}
	if broken := verify(t, s); len(broken) != 1 || broken[0].Name != "K" {
		t.Errorf("verify names %v", broken)
	}
}

// A secret that somebody without the key seals and writes into the file is not taken for one of ours.
func TestAttack35SecretOfTheWriters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	set(t, s, sealed(t, s, "a", "K", 1, "one"))
	forged := sealed(t, s, "a", "K", 2, "the attacker's account") // anybody can seal to the public key
	raw, err := control.EncodeSealed(forged)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	doctor(t, dir, func(tx *bbolt.Tx) error {
		p, err := decodePage(tx.Bucket(bucketPages).Get([]byte("a/a")))
		if err != nil {
			return err
		}
		en := p.entry("K")
		en.digests = append(en.digests, sha256.Sum256(raw))
		return errors.Join(tx.Bucket(bucketSecrets).Put(versionKey("a", "K", 2), raw), tx.Bucket(bucketPages).Put([]byte("a/a"), p.encode()))
	})
	s = openStore(t, dir)
	if got, err := value(s, "a", "K", 0); !errors.Is(err, ErrTampered) {
		t.Errorf("%q, %v", got, err)
	}
}

// A manifest that was edited, removed, or taken from another ledger or another store opens nothing.
func TestAttack35Manifest(t *testing.T) {
	other := filepath.Join(t.TempDir(), "other")
	o := openStore(t, other)
	set(t, o, sealed(t, o, "a", "K", 1, "other"))
	o.Close()
	var foreign []byte
	doctor(t, other, func(tx *bbolt.Tx) error {
		foreign = bytes.Clone(tx.Bucket(bucketMeta).Get([]byte("agents")))
		return nil
	})
	agents := []byte("agents")
	for name, edit := range map[string]func(*bbolt.Tx) error{
		"edited":           at(bucketMeta, agents, flip),
		"removed":          at(bucketMeta, agents, remove),
		"the other ledger": move(bucketMeta, []byte("sessions"), agents),
		"another store's":  at(bucketMeta, agents, func([]byte) []byte { return foreign }),
		"cut":              at(bucketMeta, agents, func(b []byte) []byte { return b[:9] }),
	} {
		dir := filepath.Join(t.TempDir(), "state")
		s := openStore(t, dir)
		furnish(t, s)
		s.Close()
		doctor(t, dir, edit)
		if s, err := Open(dir); !errors.Is(err, ErrTampered) || !strings.Contains(err.Error(), "manifest of agents") {
			t.Errorf("%s: %v", name, err)
			if err == nil {
				s.Close()
			}
		}
	}
}
