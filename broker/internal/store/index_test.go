package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// listedOf returns what a list of an agent shows, in short.
func listedOf(t *testing.T, s *Store, agent string) string {
	t.Helper()
	latest, broken, err := s.Secrets(agent)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, v := range latest {
		all = append(all, fmt.Sprintf("%s %s %d", v.Agent, v.Name, v.Meta.Version))
		if !v.Revoked.IsZero() {
			all[len(all)-1] += " revoked"
		}
	}
	for _, b := range broken {
		all = append(all, b.Error())
	}
	return strings.Join(all, ", ")
}

// Lists show each change at once: those of us, and those of others.
func TestListsFollow(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	want := func(agent, want string) {
		t.Helper()
		for range 2 { // once read, once kept
			if got := listedOf(t, s, agent); got != want {
				t.Fatalf("the list of %q is %q, want %q", agent, got, want)
			}
		}
	}
	want("", "")
	set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "b", "K", 1, "one"))
	want("", "a K 1, b K 1")
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	want("a", "a K 2")
	if _, err := s.RevokeSecret("a", "K", 2); err != nil {
		t.Fatal(err)
	}
	want("a", "a K 2 revoked")
	if _, err := s.DeleteSecret("a", "K"); err != nil {
		t.Fatal(err)
	}
	want("", "b K 1")
	set(t, s, sealed(t, s, "a", "K", 3, "three"))
	if err := s.Rotate(t.Context(), quiet); err != nil {
		t.Fatal(err)
	}
	want("", "a K 3, b K 1")

	time.Sleep(20 * time.Millisecond) // the file's times tell no less apart
	path := filepath.Join(dir, dataFile)
	b := readFile(t, path)
	raw := rawSecret(t, s, "a", "K", 3)
	at := bytes.Index(b, raw)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil || at < 0 {
		t.Fatal(err, at)
	}
	_, err = f.WriteAt([]byte{^raw[len(raw)-1]}, int64(at+len(raw)-1)) // of the sealed value
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	want("a", `secret "K" of agent "a", version 3: changed outside of torno: it is not what was set`)
	want("b", "b K 1")
	if broken, err := s.Warm(t.Context()); err != nil || len(broken) != 1 {
		t.Errorf("warming: %v, %v", broken, err)
	}
}

// rawSecret returns the stored bytes of one version.
func rawSecret(t *testing.T, s *Store, agent, name string, version int) (raw []byte) {
	t.Helper()
	if err := s.file.read(func(tx *bbolt.Tx) error {
		raw = bytes.Clone(tx.Bucket(bucketSecrets).Get(versionKey(agent, name, version)))
		return nil
	}); err != nil || raw == nil {
		t.Fatal(err)
	}
	return raw
}

// Use counts that were edited, swapped between agents, put back or removed are named, and count anew; secrets are not
// refused for them.
func TestAttack35Usage(t *testing.T) {
	a, b := []byte(prefixUsage+"a"), []byte(prefixUsage+"b")
	var old []byte
	for name, edit := range map[string]func(*bbolt.Tx) error{
		"edited": at(bucketPages, a, func([]byte) []byte { return encodeCounts([]count{{"K", 1, 999, 5}}) }),
		"a bit":  at(bucketPages, a, flip), "removed": at(bucketPages, a, remove), "another's": move(bucketPages, b, a),
		"put back": at(bucketPages, a, func([]byte) []byte { return old }),
	} {
		dir := filepath.Join(t.TempDir(), "state")
		s := openStore(t, dir)
		anchored(t, s, &memory{})
		set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "b", "K", 1, "one"))
		for range 3 {
			s.Counter("a", "K", 1).Used(time.Unix(7, 0))
			s.Counter("b", "K", 1).Used(time.Unix(8, 0))
			if err := s.FlushUsage(); err != nil {
				t.Fatal(err)
			}
			if old == nil {
				old = rawPageOf(t, s, a)
			}
		}
		m := &memory{commits: slices.Clone(s.anchor.(*memory).commits)}
		if uses := usesOf(t, s); uses != "3 3" {
			t.Fatalf("%s: %s before", name, uses) // the control
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		doctor(t, dir, edit)
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) != 1 || !errors.Is(f[0], ErrTampered) || !strings.Contains(f[0].Error(), "the use counts of agent a") {
			t.Errorf("%s: found %v", name, f)
		}
		if broken := verify(t, s); len(broken) != 1 || !strings.Contains(broken[0].Error(), "the use counts of agent a") {
			t.Errorf("%s: verify names %v", name, broken)
		}
		if uses := usesOf(t, s); uses != "0 3" {
			t.Errorf("%s: %s uses", name, uses)
		}
		if got, err := value(s, "a", "K", 0); err != nil || got != "one" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		s.Counter("a", "K", 1).Used(time.Unix(9, 0))
		if err := s.FlushUsage(); err != nil {
			t.Fatal(err)
		}
		if broken := verify(t, s); len(broken) > 0 || usesOf(t, s) != "1 3" {
			t.Errorf("%s: afterwards %v, %s", name, broken, usesOf(t, s))
		}
	}
}

func rawPageOf(t *testing.T, s *Store, key []byte) (raw []byte) {
	t.Helper()
	if err := s.file.read(func(tx *bbolt.Tx) error { raw = bytes.Clone(tx.Bucket(bucketPages).Get(key)); return nil }); err != nil || raw == nil {
		t.Fatal(err)
	}
	return raw
}

// usesOf returns how often each secret was used, by agent.
func usesOf(t *testing.T, s *Store) string {
	t.Helper()
	all, _, err := s.Secrets("")
	if err != nil {
		t.Fatal(err)
	}
	var uses []string
	for _, v := range all {
		uses = append(uses, fmt.Sprint(v.Uses))
	}
	return strings.Join(uses, " ")
}

// Whoever reads, writes, counts and touches the file from outside at once gets what there is, and nobody waits for ever.
func TestListsConcurrently(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	s.file.db.NoSync = true
	set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "b", "K", 1, "one"))
	var all sync.WaitGroup
	end := time.Now().Add(time.Second)
	for name, f := range map[string]func(i int) error{
		"list": func(int) error {
			got, broken, err := s.Secrets("")
			return errors.Join(err, fewer(len(got), len(broken)))
		},
		"open":    func(int) error { _, err := value(s, "a", "K", 0); return err },
		"set":     func(i int) error { return s.SetSecrets([]control.SealedSecret{sealed(t, s, "b", "K", i+2, "more")}) },
		"session": func(i int) error { return s.PutSession(fmt.Sprint("s", i%7), []byte("record")) },
		"count":   func(int) error { s.Counter("a", "K", 1).Used(time.Now()); return s.FlushUsage() },
		"touch":   func(int) error { return os.Chtimes(filepath.Join(dir, dataFile), time.Now(), time.Now()) },
		"verify":  func(int) error { v, err := s.Verify(); return errors.Join(err, fewer(v.Secrets, len(v.Broken))) },
	} {
		all.Go(func() {
			for i := 0; time.Now().Before(end); i++ {
				if err := f(i); err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
			}
		})
	}
	all.Wait()
}

// fewer is an error where there are not two secrets, or something is broken.
func fewer(secrets, broken int) error {
	if secrets != 2 || broken > 0 {
		return fmt.Errorf("%d secrets, %d broken", secrets, broken)
	}
	return nil
}
