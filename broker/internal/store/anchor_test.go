package store

import (
	"bytes"
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
