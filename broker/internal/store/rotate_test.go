package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol/control"
)

func quiet(int, int) {}

// under counts what is stored under each key.
func under(t *testing.T, s *Store) map[string]int {
	t.Helper()
	count := map[string]int{}
	err := s.file.read(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{bucketSecrets, bucketTrusted, bucketSessions, bucketSigning} {
			if err := tx.Bucket(bucket).ForEach(func(_, raw []byte) error { count[keyOf(bucket, raw)]++; return nil }); err != nil {
				return err
			}
		}
		for _, l := range s.ledgers() {
			id, err := manifestKey(tx.Bucket(bucketMeta).Get([]byte(l.name)))
			if err != nil {
				return err
			}
			count[id]++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return count
}

// checkFurnished holds that everything that furnish made is there.
func checkFurnished(t *testing.T, s *Store) {
	t.Helper()
	checkSecrets(t, s)
	for _, id := range []string{"s1", "s2", "r1"} {
		if b, err := s.Session(id); err != nil || string(b) != id {
			t.Errorf("session %s: %q, %v", id, b, err)
		}
	}
}

// checkSecrets is checkFurnished without the sessions.
func checkSecrets(t *testing.T, s *Store) {
	t.Helper()
	for name, want := range map[string]string{"K": "ak2", "L": "al"} {
		if got, err := value(s, "a", name, 0); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, want)
		}
	}
	if got, err := value(s, "a", "K", 1); err != nil || got != "ak" {
		t.Errorf("K version 1: %q, %v", got, err)
	}
	if _, err := value(s, "a", "M", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("M, which was deleted: %v", err)
	}
	for _, agent := range []string{"a", "b"} {
		if f, err := s.Trusted(agent); err != nil || string(f.File) != agent {
			t.Errorf("trusted file of %s: %q, %v", agent, f.File, err)
		}
	}
}

// After a rotation nothing is under the old key, which the key file has forgotten, and nothing is lost.
func TestRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	furnish(t, s)
	seed := seedOf(t, s)
	old := s.Public().ID()
	stale := sealed(t, s, "a", "N", 1, "sealed before")
	var last, total int
	if err := s.Rotate(t.Context(), func(n, of int) { last, total = n, of }); err != nil {
		t.Fatal(err)
	}
	if want := 4 + 2 + 3 + 1; last != want || total != want {
		t.Errorf("%d of %d entries, want %d", last, total, want)
	}
	if s.Public().ID() == old || s.Rotating() {
		t.Error("the key is still the old one")
	}
	if err := s.SetSecrets([]control.SealedSecret{stale}); !errors.Is(err, ErrOldKey) {
		t.Errorf("sealed to the old key: %v", err)
	}
	for range 2 {
		checkFurnished(t, s)
		if seedOf(t, s) != seed {
			t.Error("the audit's signing key has changed")
		}
		if count := under(t, s); count[old] != 0 || len(count) != 1 {
			t.Errorf("by key: %v; the old one is %s", count, old)
		}
		if broken := verify(t, s); len(broken) > 0 {
			t.Error(broken)
		}
		s.Close()
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) > 0 {
			t.Errorf("found %v", f)
		}
	}
	if c := m.commits[len(m.commits)-1].Changes[0]; c.Event != EventRotated || c.Name != s.Public().ID() {
		t.Errorf("recorded last: %+v", c)
	}
}

// What was changed outside of torno before a rotation is refused after it.
func TestRotateKeepsRefusing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	furnish(t, s)
	s.Close()
	doctor(t, dir, at(bucketSecrets, versionKey("a", "K", 2), flip))
	s = openStore(t, dir)
	if err := s.Rotate(t.Context(), quiet); err != nil {
		t.Fatal(err)
	}
	if _, err := value(s, "a", "K", 2); !errors.Is(err, ErrTampered) {
		t.Errorf("error %v", err)
	}
	if got, err := value(s, "a", "L", 1); err != nil || got != "al" {
		t.Errorf("the rest: %q, %v", got, err)
	}
}

// A rotation that stops anywhere leaves a store that opens and a rotation that goes on; others read and write
// meanwhile.
func TestRotateInterrupted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	furnish(t, s)
	var many []control.SealedSecret
	for i := range 3 * rotationBatch {
		many = append(many, sealed(t, s, "many", fmt.Sprintf("K%d", i), 1, "v"))
	}
	set(t, s, many...)
	old := s.Public().ID()
	stops := 0
	for {
		ctx, cancel := context.WithCancel(t.Context())
		reports := 0
		err := s.Rotate(ctx, func(int, int) {
			if reports++; reports > 2+stops/3 {
				cancel()
			}
		})
		cancel()
		if err == nil {
			break
		}
		if !errors.Is(err, context.Canceled) || !s.Rotating() {
			t.Fatalf("stop %d: %v", stops, err)
		}
		stops++
		checkFurnished(t, s)
		name := fmt.Sprintf("NEW%d", stops)
		set(t, s, sealed(t, s, "a", name, 1, "new"))
		s.Close()
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) > 0 {
			t.Fatalf("stop %d: found %v", stops, f)
		}
		if got, err := value(s, "a", name, 1); err != nil || got != "new" {
			t.Fatalf("stop %d: %q, %v", stops, got, err)
		}
		if stops > 20 {
			t.Fatal("it does not come to an end")
		}
	}
	if stops < 3 {
		t.Errorf("stopped %d times: little was tested", stops)
	}
	checkFurnished(t, s)
	if count := under(t, s); count[old] != 0 || len(count) != 1 {
		t.Errorf("by key: %v", count)
	}
}

// rotateKills is how often TestAttack36KillRotate kills.
const rotateKills = 25

// A process that rotates keys again and again is killed at odd moments: the store opens each time, with
// everything in it, and the next process ends what was begun.
func TestAttack36KillRotate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	anchor := anchorOf(dir)
	if _, err := s.SetAnchor(anchor); err != nil {
		t.Fatal(err)
	}
	furnish(t, s)
	var many []control.SealedSecret
	for i := range 2 * rotationBatch {
		many = append(many, sealed(t, s, "many", fmt.Sprintf("K%d", i), 1, "v"))
	}
	set(t, s, many...)
	s.Close()
	half := 0
	for i := range rotateKills {
		p := startWorker(t, dir, "rotate")
		time.Sleep(time.Duration(rand.IntN(120_000)) * time.Microsecond)
		p.kill()
		for _, line := range p.said {
			if len(line) > 5 && line[:5] == "error" {
				t.Fatalf("round %d: %s", i, line)
			}
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if s.Rotating() {
			half++
		}
		if findings, err := s.SetAnchor(anchor); err != nil || len(findings) > 0 {
			t.Fatalf("round %d: found %v, %v", i, findings, err)
		}
		checkFurnished(t, s)
		if broken := verify(t, s); len(broken) > 0 {
			t.Fatalf("round %d: %v", i, broken)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if half == 0 {
		t.Error("no kill fell into a rotation: nothing was tested")
	}
	t.Logf("%d of %d kills fell into a rotation", half, rotateKills)
	s = openStore(t, dir)
	if findings, err := s.SetAnchor(anchor); err != nil || len(findings) > 0 {
		t.Fatal(findings, err)
	}
	if err := s.Rotate(t.Context(), quiet); err != nil {
		t.Fatal(err)
	}
	checkFurnished(t, s)
	if left, err := filepath.Glob(filepath.Join(dir, keyring.FileName+"*")); err != nil || len(left) > 1 {
		t.Errorf("key files that were left: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(dir, keyring.FileName)); err != nil {
		t.Error(err)
	}
}
