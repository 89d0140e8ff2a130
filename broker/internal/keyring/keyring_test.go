package keyring

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/protocol/secret"
)

// cheap makes Argon2id cost next to nothing while a test runs.
func cheap(t testing.TB) {
	old := defaultCost
	defaultCost = leastCost
	t.Cleanup(func() { defaultCost = old })
}

func passphrase(s string) Passphrase {
	return func() (secret.Value, error) { return secret.New([]byte(s)), nil }
}

func newRing(t testing.TB) (string, *Ring) {
	t.Helper()
	path := filepath.Join(t.TempDir(), FileName)
	r, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return path, r
}

func seedOf(r *Ring, i int) string { return string(r.private[i].Bytes().AppendTo(nil)) }

// credential puts a file where systemd would, and returns its holder.
func credential(t *testing.T, content string) Credential {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "torno-key"), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	return Credential{Name: "torno-key"}
}

// printing returns a Command that prints content.
func printing(t *testing.T, content string) Command {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return Command{Argv: []string{"/bin/cat", path}}
}

const random = "5f2c9e8d7b6a41039f8e7d6c5b4a3928\n"

// Every holder opens what it protects, and nothing else does.
func TestHolders(t *testing.T) {
	cheap(t)
	right := map[Kind]Holder{
		KindPassphrase: passphrase("correct horse battery"),
		KindCredential: credential(t, random),
		KindCommand:    printing(t, random),
	}
	for kind, h := range right {
		path, r := newRing(t)
		want := seedOf(r, 0)
		if err := r.Protect(h); err != nil {
			t.Fatalf("%v: %v", kind, err)
		}
		if b, err := os.ReadFile(path); err != nil || bytes.Contains(b, []byte(want)) {
			t.Errorf("%v: the seed is in the file (%v)", kind, err)
		}
		if got, err := KindOf(path); err != nil || got != kind {
			t.Errorf("kind %v, %v; want %v", got, err, kind)
		}
		again, err := Open(path, right[KindCommand], right[KindPassphrase], right[KindCredential])
		if err != nil || seedOf(again, 0) != want || again.Kind() != kind {
			t.Fatalf("%v: %v", kind, err)
		}
		if _, err := Open(path); err == nil || kind == KindPassphrase && !errors.Is(err, ErrLocked) {
			t.Errorf("%v without a holder: %v", kind, err)
		}
		if err := again.Protect(nil); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(path); err != nil || seedOf(r, 0) != want {
			t.Errorf("%v: no longer protected: %v", kind, err)
		}
	}
}

func TestWrongSecret(t *testing.T) {
	cheap(t)
	path, r := newRing(t)
	for _, c := range []struct{ right, wrong Holder }{
		{passphrase("correct horse battery"), passphrase("correct horse battery ")},
		{printing(t, random), printing(t, strings.ToUpper(random))},
	} {
		if err := r.Protect(c.right); err != nil {
			t.Fatal(err)
		}
		if r, err := Open(path, c.wrong); !errors.Is(err, ErrWrong) || r != nil {
			t.Errorf("%v: %v", c.right.Kind(), err)
		}
	}
}

// What a holder can't give is said, and is no key.
func TestHolderFails(t *testing.T) {
	cheap(t)
	_, r := newRing(t)
	for name, h := range map[string]Holder{
		"no such command":      Command{Argv: []string{"/nonexistent/torno"}},
		"a relative command":   Command{Argv: []string{"cat"}},
		"a command that fails": Command{Argv: []string{"/bin/sh", "-c", "cat; exit 3"}},
		"a flood":              Command{Argv: []string{"/bin/sh", "-c", "head -c 1000000 /dev/zero"}},
		"too little":           printing(t, "short"),
		"nothing":              printing(t, "\n"),
		"no such credential":   Credential{Name: "other"},
		"a path":               Credential{Name: "../passwd"},
		"not answered":         Passphrase(func() (secret.Value, error) { return secret.Value{}, os.ErrDeadlineExceeded }),
	} {
		if h.Kind() == KindCredential {
			credential(t, random)
		}
		if err := r.Protect(h); err == nil {
			t.Errorf("%s: protected", name)
		}
		if r.Kind() != KindNone {
			t.Fatalf("%s: the ring says that it is", name)
		}
	}
}

// A key takes another's place in two steps, each of which the file has whole.
func TestAddRetire(t *testing.T) {
	cheap(t)
	path, r := newRing(t)
	h := passphrase("correct horse battery")
	if err := r.Protect(h); err != nil {
		t.Fatal(err)
	}
	old := seedOf(r, 0)
	if err := r.Add(); err != nil {
		t.Fatal(err)
	}
	r, err := Open(path, h)
	if err != nil || len(r.Keys()) != 2 || seedOf(r, 1) != old || seedOf(r, 0) == old {
		t.Fatalf("after Add: %d keys, %v", len(r.Keys()), err)
	}
	next := seedOf(r, 0)
	if err := r.Retire(); err != nil {
		t.Fatal(err)
	}
	r, err = Open(path, h)
	if err != nil || len(r.Keys()) != 1 || seedOf(r, 0) != next {
		t.Fatalf("after Retire: %d keys, %v", len(r.Keys()), err)
	}
}

// No byte of a key file can be changed without being noticed, encrypted or not.
func TestDamagedFile(t *testing.T) {
	for _, h := range []Holder{nil, credential(t, random)} {
		path, r := newRing(t)
		if err := r.Protect(h); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := range b {
			damaged := bytes.Clone(b)
			damaged[i] ^= 1
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(path, h); err == nil {
				t.Fatalf("byte %d of %d changed, and it opens", i, len(b))
			}
		}
		for n := range b {
			if _, err := decodeFile(b[:n]); err == nil {
				t.Fatalf("cut to %d of %d bytes, and it reads", n, len(b))
			}
		}
	}
}

// What a file asks of Argon2id is bounded both ways before anything is computed.
func TestCostBounds(t *testing.T) {
	for name, c := range map[string]cost{
		"no passes": {0, 64 << 10, 1}, "all memory": {1, 1 << 31, 1}, "a day": {1 << 31, 64 << 10, 1},
		"no threads": {1, 64 << 10, 0}, "cheap to guess": {1, 8, 1}, "threads": {1, 64 << 10, 255},
	} {
		b, err := encodeFile(nil, &wrapping{kind: KindPassphrase, cost: c, key: secret.New(make([]byte, 32))})
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, make([]byte, seedSize)...)
		if _, err := decodeFile(b); !errors.Is(err, errFile) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !defaultCost.valid() || !leastCost.valid() || !mostCost.valid() {
		t.Error("what is written is not what is read")
	}
}

// A key file that others can reach, or that is a link, is not used.
func TestAttack39KeyFile(t *testing.T) {
	path, _ := newRing(t)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open to a group: %v", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), FileName)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(link); err == nil {
		t.Error("a link is followed")
	}
	if _, err := Open(path); err != nil {
		t.Errorf("the control: %v", err)
	}
	if _, err := Open(path + "x"); !errors.Is(err, ErrNoKey) {
		t.Errorf("no file: %v", err)
	}
}

func FuzzDecodeFile(f *testing.F) {
	cheap(f)
	path, r := newRing(f)
	for _, h := range []Holder{nil, passphrase("correct horse battery")} {
		if err := r.Protect(h); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		k, err := decodeFile(b)
		if err != nil {
			if k != nil {
				t.Error("a file beside an error")
			}
			return
		}
		if k.kind == KindPassphrase && !k.cost.valid() {
			t.Errorf("cost %+v", k.cost)
		}
		if again := append(bytes.Clone(k.head), k.seeds...); !bytes.Equal(again, b) {
			t.Errorf("%x reads as %x", b, again)
		}
		if k.kind == KindNone {
			if _, err := k.open(&k.wrapping); err != nil && !errors.Is(err, errFile) {
				t.Error(err)
			}
		}
	})
}
