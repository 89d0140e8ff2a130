package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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
	if err := s.db.View(func(tx *bbolt.Tx) error {
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

// A memory is an Anchor for tests: what the audit would have recorded.
type memory struct {
	commits []Commit
	fail    error
}

func (m *memory) Record(c Commit) error {
	if m.fail == nil {
		m.commits = append(m.commits, c)
	}
	return m.fail
}

func (m *memory) Last() (Commit, error) {
	if len(m.commits) == 0 {
		return Commit{}, nil
	}
	return m.commits[len(m.commits)-1], nil
}

func (m *memory) Since(number uint64, f func(Change)) error {
	for _, c := range m.commits {
		for _, ch := range c.Changes {
			if c.Number > number {
				f(ch)
			}
		}
	}
	return nil
}

func anchored(t *testing.T, s *Store, m *memory) []error {
	t.Helper()
	findings, err := s.SetAnchor(m)
	if err != nil {
		t.Fatal(err)
	}
	return findings
}

// copyFile keeps a copy of the store's file, or puts one back.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// An older store that is put back is found by the audit, which names what was changed since: it is refused
// until it is set anew, and stays so after a restart; the rest is readable.
func TestAttack35OlderStore(t *testing.T) {
	dir, keep := filepath.Join(t.TempDir(), "state"), filepath.Join(t.TempDir(), "older.db")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "a", "L", 1, "l"), sealed(t, s, "a", "D", 1, "d"))
	if err := s.PutTrusted(control.TrustedFile{Agent: "a", File: []byte("wide")}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	copyFile(t, filepath.Join(dir, dataFile), keep)
	s = openStore(t, dir)
	if f := anchored(t, s, m); len(f) > 0 {
		t.Fatalf("the control: %v", f)
	}
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	if _, err := s.DeleteSecret("a", "D"); err != nil {
		t.Fatal(err)
	}
	if err := s.PutTrusted(control.TrustedFile{Agent: "a", File: []byte("narrow")}); err != nil {
		t.Fatal(err)
	}
	s.Close()
	copyFile(t, keep, filepath.Join(dir, dataFile))

	s = openStore(t, dir)
	findings := fmt.Sprint(anchored(t, s, m))
	for _, want := range []string{"older one was put back", `"K" of agent "a", version 2`, `"D" of agent "a", version 1`, "trusted file of agent a"} {
		if !strings.Contains(findings, want) {
			t.Errorf("%s: does not name %s", findings, want)
		}
	}
	for range 2 {
		if _, err := value(s, "a", "K", 0); !errors.Is(err, ErrTampered) {
			t.Errorf("K: %v", err)
		}
		if _, err := value(s, "a", "K", 1); !errors.Is(err, ErrTampered) {
			t.Errorf("K version 1: %v", err)
		}
		if _, err := value(s, "a", "D", 0); !errors.Is(err, ErrNotFound) {
			t.Errorf("D: %v", err)
		}
		if _, err := s.Trusted("a"); !errors.Is(err, ErrTampered) {
			t.Errorf("the trusted file: %v", err)
		}
		if got, err := value(s, "a", "L", 0); err != nil || got != "l" {
			t.Errorf("the rest: %q, %v", got, err)
		}
		s.Close()
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) > 0 {
			t.Errorf("found again: %v", f)
		}
	}
	set(t, s, sealed(t, s, "a", "K", 3, "three"))
	if got, err := value(s, "a", "K", 0); err != nil || got != "three" {
		t.Errorf("set anew: %q, %v", got, err)
	}
}

// A store that was removed, and one whose audit lost its end, are found too.
func TestAttack35StoreOrAuditGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	for v := 1; v <= 3; v++ {
		set(t, s, sealed(t, s, "a", "K", v, "k"))
	}
	s.Close()
	cut := &memory{commits: slices.Clone(m.commits[:1])}
	s = openStore(t, dir)
	if f := anchored(t, s, cut); len(f) != 1 || !strings.Contains(f[0].Error(), "cut off") {
		t.Errorf("a cut audit: %v", f)
	}
	s.Close()
	if err := os.Remove(filepath.Join(dir, dataFile)); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if f := anchored(t, s, m); len(f) < 2 || !strings.Contains(fmt.Sprint(f), `"K" of agent "a", version 3`) {
		t.Errorf("a store that is gone: %v", f)
	}
	if err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 1, "k")}); !errors.Is(err, ErrConflict) {
		t.Errorf("version 1 again: %v", err)
	}
}

// What can't be recorded is said, and nothing else happens until it is.
func TestUnrecorded(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "state"))
	m := &memory{}
	anchored(t, s, m)
	m.fail = errors.New("disk full")
	for range 2 {
		if err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 1, "k")}); !errors.Is(err, m.fail) {
			t.Errorf("error %v", err)
		}
	}
	if err := s.PutSession("s1", nil); err != nil {
		t.Errorf("sessions are not in the audit: %v", err)
	}
	m.fail = nil
	set(t, s, sealed(t, s, "a", "K", 2, "k"))
	if len(m.commits) != 2 || m.commits[0].Changes[0].Version != 1 || m.commits[1].Changes[0].Version != 2 {
		t.Errorf("recorded: %+v", m.commits)
	}
}

// The store's format is what the comments say: what a hex editor finds.
func TestVersionKey(t *testing.T) {
	want := append([]byte("a\x00K\x00"), binary.BigEndian.AppendUint64(nil, 7)...)
	if got := versionKey("a", "K", 7); !bytes.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// Older records of sessions with the list and the manifest that they stand in: a session that was revoked since
// does not return, and neither does any other.
func TestAttack35OlderSessions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	furnish(t, s)
	s.Close()
	keep := map[string]map[string][]byte{}
	sessions := func(tx *bbolt.Tx, f func(bucket *bbolt.Bucket, name string, key []byte) error) error {
		for _, c := range []struct {
			bucket []byte
			prefix string
		}{{bucketMeta, "sessions"}, {bucketPages, prefixSessions}, {bucketSessions, ""}} {
			if err := tx.Bucket(c.bucket).ForEach(func(k, _ []byte) error {
				if strings.HasPrefix(string(k), c.prefix) {
					return f(tx.Bucket(c.bucket), string(c.bucket), bytes.Clone(k))
				}
				return nil
			}); err != nil {
				return err
			}
		}
		return nil
	}
	doctor(t, dir, func(tx *bbolt.Tx) error {
		return sessions(tx, func(b *bbolt.Bucket, name string, k []byte) error {
			if keep[name] == nil {
				keep[name] = map[string][]byte{}
			}
			keep[name][string(k)] = bytes.Clone(b.Get(k))
			return nil
		})
	})
	for _, revoked := range []bool{false, true} {
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) > 0 {
			t.Fatal(f)
		}
		if err := s.PutSession("s1", []byte("later")); err != nil {
			t.Fatal(err)
		}
		if revoked {
			if err := s.KeepSessions(); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		doctor(t, dir, func(tx *bbolt.Tx) error {
			for name, entries := range keep {
				for k, v := range entries {
					if err := tx.Bucket([]byte(name)).Put([]byte(k), v); err != nil {
						return err
					}
				}
			}
			return nil
		})
		s = openStore(t, dir)
		findings := anchored(t, s, m)
		b, err := s.Session("s1")
		if !revoked { // what is said not to be found, or this would test something else
			if len(findings) > 0 || string(b) != "s1" {
				t.Errorf("without KeepSessions: %v, %q", findings, b)
			}
		} else if len(findings) != 1 || !strings.Contains(findings[0].Error(), "s1") || !errors.Is(err, ErrNotFound) {
			t.Errorf("found %v; the session: %q, %v", findings, b, err)
		}
		if broken := verify(t, s); len(broken) > 0 {
			t.Error(broken)
		}
		s.Close()
	}
}
