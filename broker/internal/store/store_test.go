package store

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"torno.internal/protocol/control"
)

func openStore(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// sealed returns a secret sealed to the store's own key.
func sealed(t testing.TB, s *Store, agent, name string, version int, value string) control.SealedSecret {
	t.Helper()
	pk := s.Public()
	m := control.Meta{Agent: agent, Name: name, Version: version, Audience: []string{"https://x.example"},
		Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Unix(1, 0).UTC()}
	b, err := pk.Seal([]byte(value), control.AssociatedData(m, pk.ID()))
	if err != nil {
		t.Fatal(err)
	}
	return control.SealedSecret{Meta: m, KeyID: pk.ID(), Sealed: b}
}

// value opens one stored version.
func value(s *Store, agent, name string, version int) (string, error) {
	v, err := s.Unseal(agent, name, version)
	if err != nil {
		return "", err
	}
	var out string
	return out, v.Use(func(b []byte) error { out = string(b); return nil })
}

func set(t testing.TB, s *Store, secrets ...control.SealedSecret) {
	t.Helper()
	if err := s.SetSecrets(secrets); err != nil {
		t.Fatal(err)
	}
}

func TestVersions(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	set(t, s, sealed(t, s, "a", "K", 1, "one"), sealed(t, s, "a", "L", 1, "l"), sealed(t, s, "ab", "K", 1, "other"))
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	for version, want := range map[int]string{0: "two", 1: "one", 2: "two"} {
		if got, err := value(s, "a", "K", version); err != nil || got != want {
			t.Errorf("version %d: %q, %v; want %q", version, got, err, want)
		}
	}
	metas, _, err := s.Secrets("a")
	if err != nil || len(metas) != 2 || metas[0].Name != "K" || metas[0].Version != 2 || metas[1].Name != "L" {
		t.Errorf("secrets of a: %+v, %v", metas, err)
	}
	if metas, _, err := s.Secrets(""); err != nil || len(metas) != 3 {
		t.Errorf("all secrets: %+v, %v", metas, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir)
	if got, err := value(s, "a", "K", 0); err != nil || got != "two" {
		t.Errorf("after a restart: %q, %v", got, err)
	}
}

// All or none: one that conflicts leaves the others unset.
func TestSetAllOrNone(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "state"))
	err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 1, "k"), sealed(t, s, "a", "L", 7, "l")})
	if !errors.Is(err, ErrConflict) {
		t.Errorf("error %v, want ErrConflict", err)
	}
	if _, err := s.Secret("a", "K", 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("K: %v, want ErrNotFound", err)
	}
}

// A version number is used once, also across a deletion.
func TestDeleteKeepsTheNumber(t *testing.T) {
	s := openStore(t, filepath.Join(t.TempDir(), "state"))
	set(t, s, sealed(t, s, "a", "K", 1, "one"))
	m, err := s.DeleteSecret("a", "K")
	if err != nil || m.Version != 1 {
		t.Fatalf("deleted %+v, %v", m, err)
	}
	for _, version := range []int{0, 1} {
		if _, err := s.Secret("a", "K", version); !errors.Is(err, ErrNotFound) {
			t.Errorf("version %d: %v, want ErrNotFound", version, err)
		}
	}
	if _, err := s.DeleteSecret("a", "K"); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: %v", err)
	}
	if err := s.SetSecrets([]control.SealedSecret{sealed(t, s, "a", "K", 1, "one")}); !errors.Is(err, ErrConflict) {
		t.Errorf("version 1 again: %v, want ErrConflict", err)
	}
	set(t, s, sealed(t, s, "a", "K", 2, "two"))
	if n, _, err := s.Last("a", "K"); n != 2 || err != nil {
		t.Errorf("last version %d, %v", n, err)
	}
}
