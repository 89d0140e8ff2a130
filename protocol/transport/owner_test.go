package transport

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stranger is a user that is neither root nor us.
const stranger = 54321

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("acts for another user; try: run the tests as root")
	}
}

// vmmDir makes a directory that belongs to stranger, as a jailer's does.
func vmmDir(t *testing.T) string {
	t.Helper()
	top, err := os.MkdirTemp("", "own")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	dir := filepath.Join(top, "jail")
	if err := errors.Join(os.Chmod(top, 0o755), os.Mkdir(dir, 0o700), os.Chown(dir, stranger, stranger)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func ownerOf(t *testing.T, path string) (uid uint32, mode os.FileMode) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid, info.Mode()
}

// A socket for another user's VMM is that user's from the start, is replaced when stale, and goes.
func TestListenFor(t *testing.T) {
	needRoot(t)
	a := Addr{Network: Hybrid, Path: filepath.Join(vmmDir(t), "v")}
	p := a.Path + "_618"
	stale, err := ListenFor(a, 618, stranger)
	if err != nil {
		t.Fatal(err)
	}
	if uid, mode := ownerOf(t, p); uid != stranger || mode != os.ModeSocket|0o600 {
		t.Errorf("the socket is of %d, %v; want %d, 0600", uid, mode, stranger)
	}
	if _, err := ListenFor(a, 618, stranger); !errors.Is(err, ErrInUse) {
		t.Errorf("a second listener: %v, want ErrInUse", err)
	}
	if err := stale.(*ownedListener).UnixListener.Close(); err != nil { // as when the broker is killed
		t.Fatal(err)
	}
	l, err := ListenFor(a, 618, stranger)
	if err != nil {
		t.Fatalf("over a stale socket: %v", err)
	}
	if c, err := net.Dial("unix", p); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a closed listener's socket: %v", err)
	}
	if euid, err := unix.SetfsuidRetUid(-1); euid != 0 || err != nil {
		t.Errorf("this thread acts for %d, %v", euid, err)
	}
}

// Attack 39: whoever owns the directory leads us to files that are not theirs, by links and by files in the
// place of the socket. Nothing there changes, neither owner nor mode nor existence.
func TestAttack39SocketPlace(t *testing.T) {
	needRoot(t)
	dir := vmmDir(t)
	roots := filepath.Join(filepath.Dir(dir), "root") // where only root may write
	if err := os.Mkdir(roots, 0o755); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(roots, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	squatter, err := net.Listen("unix", filepath.Join(roots, "v_618"))
	if err != nil {
		t.Fatal(err)
	}
	defer squatter.Close()
	before, modeBefore := ownerOf(t, victim)
	for name, c := range map[string]struct {
		prepare func(p string) error // p: where the socket belongs
		want    string
	}{
		"link to a file":         {func(p string) error { return os.Symlink(victim, p) }, "not a socket"},
		"link to a socket":       {func(p string) error { return os.Symlink(filepath.Join(roots, "v_618"), p) }, "not a socket"},
		"link into nowhere":      {func(p string) error { return os.Symlink(filepath.Join(roots, "new"), p) }, "not a socket"},
		"another name of a file": {func(p string) error { return os.Link(victim, p) }, "not a socket"},
		"directory":              {func(p string) error { return os.Mkdir(p, 0o700) }, "not a socket"},
	} {
		p := filepath.Join(dir, "v_618")
		if err := c.prepare(p); err != nil {
			t.Fatal(err)
		}
		if l, err := ListenFor(Addr{Network: Hybrid, Path: filepath.Join(dir, "v")}, 618, stranger); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want %q", name, l, err, c.want)
		}
		if err := os.RemoveAll(p); err != nil {
			t.Fatal(err)
		}
	}
	// The directory itself leads to where stranger may not write: root could, and for it we must not.
	link := filepath.Join(dir, "elsewhere")
	if err := os.Symlink(roots, link); err != nil {
		t.Fatal(err)
	}
	if l, err := ListenFor(Addr{Network: Hybrid, Path: filepath.Join(link, "w")}, 618, stranger); !errors.Is(err, os.ErrPermission) {
		t.Errorf("a socket where its user may not write: %v, %v", l, err)
	}
	if uid, mode := ownerOf(t, victim); uid != before || mode != modeBefore {
		t.Errorf("the victim is of %d, %v; was %d, %v", uid, mode, before, modeBefore)
	}
	if _, err := os.Lstat(filepath.Join(roots, "new")); err == nil {
		t.Error("a link into nowhere was followed")
	}
}

// Where others can write, they could swap the socket: refused, whoever they are. Sticky directories above are
// as good as any.
func TestAttack39WritablePlace(t *testing.T) {
	needRoot(t)
	for name, change := range map[string]func(dir string) error{
		"everybody's":     func(dir string) error { return os.Chmod(dir, 0o777) },
		"the group's":     func(dir string) error { return os.Chmod(dir, 0o770) },
		"sticky":          func(dir string) error { return os.Chmod(dir, 0o777|os.ModeSticky) },
		"another user's":  func(dir string) error { return os.Chown(dir, stranger+1, 0) },
		"above everybody": func(dir string) error { return os.Chmod(filepath.Dir(dir), 0o777) },
		"above another":   func(dir string) error { return os.Chown(filepath.Dir(dir), stranger+1, 0) },
	} {
		dir := vmmDir(t)
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if l, err := ListenFor(Addr{Network: Hybrid, Path: filepath.Join(dir, "v")}, 618, stranger); err == nil || !strings.Contains(err.Error(), "another socket") {
			t.Errorf("%s: %v, %v; want a refusal", name, l, err)
		}
	}
	above := vmmDir(t)
	if err := os.Chmod(filepath.Dir(above), 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	l, err := ListenFor(Addr{Network: Hybrid, Path: filepath.Join(above, "v")}, 618, stranger)
	if err != nil {
		t.Fatalf("below a sticky directory: %v", err)
	}
	l.Close()
}

func TestListenForRefuses(t *testing.T) {
	if l, err := ListenFor(Addr{Network: VSOCK, CID: 2, Port: 618}, 618, 0); err == nil {
		t.Errorf("a user on vsock: %v", l)
	}
	if l, err := ListenFor(Addr{Network: Unix, Path: "/nowhere/at/all"}, 618, 0); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v, %v", l, err)
	}
}

func FuzzReadAnswer(f *testing.F) {
	for _, s := range []string{"OK 1073741824\n", "OK 1073741824\nmore", "OK 0\n", "OK 01\n", "ok 1\n", "OK \n", "\n", "OK 4294967296\n", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r := strings.NewReader(s)
		err := readAnswer(r)
		line, rest, _ := strings.Cut(s, "\n")
		digits, isOK := strings.CutPrefix(line, "OK ")
		_, isNumber := parseNumber(digits)
		if want := isOK && isNumber && len(line) < len(s); (err == nil) != want {
			t.Errorf("%q: %v", s, err)
		}
		if err == nil && r.Len() != len(rest) {
			t.Errorf("%q: %d bytes are left, want %d", s, r.Len(), len(rest))
		}
		if read := len(s) - r.Len(); read > maxAnswer {
			t.Errorf("%q: %d bytes were read", s, read)
		}
	})
}
