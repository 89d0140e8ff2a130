package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// sealed returns a secret sealed to the store's own key.
func sealed(t *testing.T, s *Store, agent, name string, version int, value string) control.SealedSecret {
	t.Helper()
	pk := s.Key().Public()
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
	sec, err := s.Secret(agent, name, version)
	if err != nil {
		return "", err
	}
	v, err := s.Key().Open(sec.Sealed, control.AssociatedData(sec.Meta, sec.KeyID))
	if err != nil {
		return "", err
	}
	var out string
	return out, v.Use(func(b []byte) error { out = string(b); return nil })
}

func set(t *testing.T, s *Store, secrets ...control.SealedSecret) {
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
	metas, err := s.Secrets("a")
	if err != nil || len(metas) != 2 || metas[0].Name != "K" || metas[0].Version != 2 || metas[1].Name != "L" {
		t.Errorf("secrets of a: %+v, %v", metas, err)
	}
	if metas, err := s.Secrets(""); err != nil || len(metas) != 3 {
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
	if n, err := s.LastVersion("a", "K"); n != 2 || err != nil {
		t.Errorf("last version %d, %v", n, err)
	}
}

// edit changes the store's file as somebody with a hex editor would.
func edit(t *testing.T, dir string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(dir, dataFile), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}

// A value swapped between agents or names, an audience that was edited, a flipped bit, a trusted file or
// a session's record put in another's place: each is detected, by name, and the rest is readable.
func TestAttack35EditedStore(t *testing.T) {
	aK, aL, bK := versionKey(nameKey("a", "K"), 1), versionKey(nameKey("a", "L"), 1), versionKey(nameKey("b", "K"), 1)
	swap := func(bucket, x, y []byte) func(*bbolt.Tx) error {
		return func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucket)
			return b.Put(x, bytes.Clone(b.Get(y)))
		}
	}
	for name, c := range map[string]struct {
		edit  func(*bbolt.Tx) error
		check func(*Store) error
	}{
		"swapped between agents": {swap(bucketSecrets, aK, bK), func(s *Store) error { _, err := value(s, "a", "K", 1); return err }},
		"swapped between names":  {swap(bucketSecrets, aK, aL), func(s *Store) error { _, err := value(s, "a", "K", 1); return err }},
		"another audience": {func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketSecrets)
			return b.Put(aK, bytes.Replace(b.Get(aK), []byte("https://x.example"), []byte("https://evil.test"), 1))
		}, func(s *Store) error { _, err := value(s, "a", "K", 1); return err }},
		"exposed": {func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketSecrets)
			return b.Put(aK, bytes.Replace(b.Get(aK), []byte(`"inject"`), []byte(`"expose":"env","inject"`), 1))
		}, func(s *Store) error { _, err := value(s, "a", "K", 1); return err }},
		"truncated": {func(tx *bbolt.Tx) error {
			b := tx.Bucket(bucketSecrets)
			return b.Put(aK, b.Get(aK)[:20])
		}, func(s *Store) error { _, err := value(s, "a", "K", 1); return err }},
		"another's trusted file": {swap(bucketTrusted, []byte("a"), []byte("b")), func(s *Store) error { _, err := s.Trusted("a"); return err }},
		"another's session":      {swap(bucketSessions, []byte("s1"), []byte("s2")), func(s *Store) error { _, err := s.Session("s1"); return err }},
		"a flipped bit": {func(tx *bbolt.Tx) error {
			v := bytes.Clone(tx.Bucket(bucketSessions).Get([]byte("s1")))
			v[len(v)/2] ^= 1
			return tx.Bucket(bucketSessions).Put([]byte("s1"), v)
		}, func(s *Store) error { _, err := s.Session("s1"); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			s := openStore(t, dir)
			set(t, s, sealed(t, s, "a", "K", 1, "ak"), sealed(t, s, "a", "L", 1, "al"), sealed(t, s, "b", "K", 1, "bk"))
			for _, agent := range []string{"a", "b"} {
				if err := s.PutTrusted(control.TrustedFile{Agent: agent, File: []byte(agent)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(s.PutSession("s1", []byte("one")), s.PutSession("s2", []byte("two"))); err != nil {
				t.Fatal(err)
			}
			if err := c.check(s); err != nil {
				t.Fatalf("before the edit: %v", err) // the control
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, dir, c.edit)
			s = openStore(t, dir)
			if err := c.check(s); err == nil {
				t.Error("not detected")
			}
			if got, err := value(s, "b", "K", 1); err != nil || got != "bk" {
				t.Errorf("the rest: %q, %v", got, err)
			}
		})
	}
}

// A state directory that others can reach, a link, a file of somebody else's, an open key file.
func TestAttack39StateDirectory(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"open to others":  func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) },
		"writable by all": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a link":          func(dir string) error { return os.Symlink(os.TempDir(), dir) },
		"a file":          func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"another's": func(dir string) error {
			if os.Getuid() != 0 {
				return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755))
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345))
		},
		"key open to others": func(dir string) error {
			s, err := Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(s.Close(), os.Chmod(filepath.Join(dir, keyFile), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(dir); err == nil {
				s.Close()
				t.Error("opened")
			}
		})
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	openStore(t, dir)
	for _, name := range []string{keyFile, dataFile, lockFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// helperEnv makes the test binary a child that works on a store until it is killed.
const helperEnv = "TORNO_STORE_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child sets one version after another and prints each that was acknowledged.
func child(dir string) {
	s, err := Open(dir)
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	last, _ := s.LastVersion("a", "K")
	for v := last + 1; ; v++ {
		sec := control.SealedSecret{Meta: control.Meta{Agent: "a", Name: "K", Version: v}, Sealed: []byte("x")}
		if err := s.SetSecrets([]control.SealedSecret{sec}); err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(v)
	}
}

func startChild(t *testing.T, dir string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperEnv+"="+dir)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, out
}

// Nothing that was acknowledged is lost when the process is killed, 30 times at odd moments.
func TestAttack36Kill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	acknowledged := 0
	for i := range 30 {
		cmd, out := startChild(t, dir)
		time.Sleep(time.Duration(15+7*i%40) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(out.String(), "error") {
			t.Fatal(out)
		}
		lines := strings.Fields(out.String())
		if len(lines) > 0 {
			_, _ = fmt.Sscan(lines[len(lines)-1], &acknowledged)
		}
		s, err := Open(dir)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		last, err := s.LastVersion("a", "K")
		if err != nil || last < acknowledged {
			t.Fatalf("round %d: version %d is there, %d was acknowledged (%v)", i, last, acknowledged, err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if acknowledged == 0 {
		t.Error("no version was ever acknowledged: nothing was tested")
	}
}

// The second broker on a state directory says which process holds it.
func TestAttack40TwoBrokers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	cmd, _ := startChild(t, dir)
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		if b, err := os.ReadFile(filepath.Join(dir, lockFile)); err == nil && len(b) > 0 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	_, err := Open(dir)
	var busy *BusyError
	if !errors.As(err, &busy) || busy.PID != cmd.Process.Pid {
		t.Errorf("error %v, want a BusyError with process %d", err, cmd.Process.Pid)
	}
}
