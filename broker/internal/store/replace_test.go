package store

import (
	"errors"
	"path/filepath"
	"testing"
)

// A value that is replaced keeps its version, and what it is bound to.
func TestReplace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	for v := 1; v <= 2; v++ {
		set(t, s, sealed(t, s, "a", "K", v, "value"))
	}
	before, err := s.Version("a", "K", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Replace("a", "K", 1, []byte("another")); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"no version": s.Replace("a", "K", 3, []byte("x")), "no secret": s.Replace("a", "L", 1, []byte("x")), "no agent": s.Replace("b", "K", 1, []byte("x")),
	} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Replace("a", "K", 1, []byte("a\r\nb")); err == nil {
		t.Error("a value that could not be set was put in place")
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if got, err := value(s, "a", "K", 1); err != nil || got != "another" {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := value(s, "a", "K", 2); err != nil || got != "value" {
		t.Errorf("the other version: %q, %v", got, err)
	}
	if after, err := s.Version("a", "K", 1); err != nil || !after.Created.Equal(before.Created) || after.Audience[0] != before.Audience[0] {
		t.Errorf("%+v, %v; it was %+v", after, err, before)
	}
	if _, err := s.RevokeSecret("a", "K", 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace("a", "K", 1, []byte("another")); !errors.Is(err, ErrRevoked) {
		t.Errorf("a revoked version: %v", err)
	}
	if v, err := s.Verify(); err != nil || len(v.Broken) > 0 {
		t.Errorf("verify: %+v, %v", v, err)
	}
}
