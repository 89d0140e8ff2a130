package rootfs

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/images/apt"
)

func pkg(name, version string) apt.Package {
	return apt.Package{Name: name, Version: version, Arch: "all", Size: 10, SHA256: strings.Repeat("0a", 32)}
}

func lockOf(packages ...apt.Package) *Lock {
	return &Lock{Suite: "bookworm", Arch: runtime.GOARCH, Time: time.Unix(1e9, 0).UTC(), Include: []string{"a"}, Packages: packages}
}

func TestLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sub", "image.lock")
	if _, err := ReadLock(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no lock: %v", err)
	}
	want := lockOf(pkg("a", "1"), pkg("b", "2:1"))
	if err := want.Write(path); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(path)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	changes := want.Changes(lockOf(pkg("a", "1"), pkg("b", "2:2"), pkg("c", "3")))
	if diff := cmp.Diff([]string{"b 2:1 -> 2:2", "c new: 3"}, changes); diff != "" {
		t.Error(diff)
	}
	if changes := want.Changes(lockOf(pkg("a", "1"))); !slices.Equal(changes, []string{"b 2:1 is gone"}) {
		t.Errorf("%q", changes)
	}
}

func TestLockRefuses(t *testing.T) {
	for name, change := range map[string]func(l *Lock){
		"other machine":   func(l *Lock) { l.Arch = "vax" },
		"suite":           func(l *Lock) { l.Suite = "../x" },
		"nothing":         func(l *Lock) { l.Packages = nil },
		"path in a name":  func(l *Lock) { l.Packages[0].Name = "../a" },
		"option as name":  func(l *Lock) { l.Packages[0].Name = "-oDir=x" },
		"path in version": func(l *Lock) { l.Packages[0].Version = "1/../../x" },
		"pattern":         func(l *Lock) { l.Include = []string{"?essential"} },
		"no digest":       func(l *Lock) { l.Packages[0].SHA256 = "" },
		"twice":           func(l *Lock) { l.Packages = append(l.Packages, l.Packages[0]) },
		"huge":            func(l *Lock) { l.Packages[0].Size = 1 << 50 },
	} {
		l := lockOf(pkg("a", "1"))
		change(l)
		b, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeLock(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzLock(f *testing.F) {
	b, err := json.Marshal(lockOf(pkg("a", "1"), pkg("b", "2:1")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := decodeLock(b)
		if err != nil {
			return
		}
		for _, p := range l.Packages {
			if filepath.Base(p.File()) != p.File() || strings.HasPrefix(p.Name, "-") || strings.ContainsAny(p.Name+p.Version, " ,\n") {
				t.Errorf("%+v", p)
			}
		}
	})
}

// The same lock makes the same file system, byte for byte, also where the packages have to be got anew. What the lock
// says and is no longer to be had is named.
func TestReproducible(t *testing.T) {
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		t.Fatal("needs mmdebstrap: make deps")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var output bytes.Buffer
	b := Build{
		Name: "packages", Include: []string{"tzdata"}, bare: os.Getenv("TORNO_REPRODUCE") == "",
		Report: func(string, int64, int64) {}, Output: &output,
	}
	if !b.bare { // all of the base image, twice: minutes
		b.Include = nil
	}
	var digests []string
	var last *Image
	for range 2 {
		s := Store{Dir: t.TempDir()}
		if last != nil {
			b.Lock = last.dir + "/../packages.lock.json"
		}
		image, err := s.Build(ctx, b)
		if err != nil {
			t.Fatalf("%v: %s", err, &output)
		}
		digests, last = append(digests, image.SHA256), image
		if len(image.Packages) == 0 || image.Size < 1<<20 {
			t.Errorf("%+v", image)
		}
		time.Sleep(1100 * time.Millisecond) // a time that is taken from the clock is another one
	}
	if digests[0] != digests[1] {
		t.Errorf("one lock, two images: %q", digests)
	}
	if got := debugfs(t, last.Path(), "cat /etc/apt/sources.list"); !strings.Contains(got, "deb ") || strings.Contains(got, "copy:") {
		t.Errorf("sources.list has %q", got)
	}

	lock, err := ReadLock(b.Lock)
	if err != nil {
		t.Fatal(err)
	}
	lock.Packages[0].Version = "0.1-1"
	s := Store{Dir: t.TempDir()}
	b.Lock = filepath.Join(s.Dir, "old.lock")
	if err := lock.Write(b.Lock); err != nil {
		t.Fatal(err)
	}
	_, err = s.Build(ctx, b)
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Hint, "torno image lock --update") || !strings.Contains(err.Error(), lock.Packages[0].Name+" 0.1-1") {
		t.Errorf("a version that has left: %v", err)
	}
	b.Include = []string{"bash"}
	if _, err := s.Build(ctx, b); err == nil || !strings.Contains(err.Error(), "other packages") {
		t.Errorf("a lock for others: %v", err)
	}
}
