package confine

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is the user that tests of a broker without privilege run as.
const nobody = 65534

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == Command {
		os.Exit(Exec())
	}
	os.Exit(m.Run())
}

// found is what testdata/probe finds out.
type found struct {
	UID, PPID        int
	Env              []string
	Descriptors      []int
	Terminal         bool
	Root             []string
	Read, Write, Run []string
	Unix, TCP        string
	Datagram, Listen string
	Caps             uint32
	NoNewPrivs       bool
	Dumpable         int
	Calls            []string
	Hostname         string
}

// buildProbe builds the probe where every user can reach it.
func buildProbe(t *testing.T) string {
	t.Helper()
	path := filepath.Join(shortDir(t), "probe")
	cmd := exec.Command("go", "build", "-o", path, "./testdata/probe")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// shortDir returns a directory that every user can reach, and whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "torno-confine")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, _, err := OpenProgram(path, sha256.Sum256(text))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A host is what a program must not reach.
type host struct {
	dir, own, secret string
	env              []string
}

// newHost makes sockets and files that the broker's user can reach.
func newHost(t *testing.T) host {
	h := host{dir: shortDir(t)}
	h.own, h.secret = filepath.Join(h.dir, "own"), filepath.Join(h.dir, "secret")
	for _, d := range []string{h.own, h.secret} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(h.secret, "key"), []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	control, err := net.Listen("unix", filepath.Join(h.dir, "control"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { control.Close() })
	datagram, err := net.ListenPacket("unixgram", filepath.Join(h.dir, "control.dgram"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { datagram.Close() })
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tcp.Close() })
	h.env = []string{
		"PROBE_UNIX=" + filepath.Join(h.dir, "control"), "PROBE_TCP=" + tcp.Addr().String(),
		"PROBE_PATHS=" + h.dir + ":" + h.secret + ":" + h.secret + "/key",
	}
	return h
}

// probe runs the probe under s and returns what it found.
func probe(t *testing.T, s *Spec, namespaces bool) (found, *Process) {
	t.Helper()
	p, err := start(s, namespaces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done(); p.Stdout.Close(); p.Stderr.Close() })
	var f found
	line, err := bufio.NewReader(p.Stdout).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &f)
	}
	if err != nil {
		said, _ := io.ReadAll(io.LimitReader(p.Stderr, 4096))
		t.Fatalf("%v: %s, %s", err, p.Status(), said)
	}
	return f, p
}

// check reports what no confined program may.
func (f *found) check(t *testing.T, h host, inside string) {
	t.Helper()
	t.Logf("%+v", *f)
	switch {
	case f.UID == 0:
		t.Error("it is root")
	case f.Caps != 0 || !f.NoNewPrivs:
		t.Errorf("capabilities %x, no_new_privs %v", f.Caps, f.NoNewPrivs)
	case f.Dumpable != 0:
		t.Error("others of its user can look into it")
	case len(f.Descriptors) > 0:
		t.Errorf("it inherits %v", f.Descriptors)
	case f.Terminal:
		t.Error("it has a terminal")
	case len(f.Calls) > 0:
		t.Errorf("it may %v", f.Calls)
	case f.Unix == "" || f.Datagram == "":
		t.Error("it reaches the sockets of the broker's user")
	case f.Listen != "":
		t.Errorf("it can't listen in its own directory: %s", f.Listen)
	case len(f.Run) > 0:
		t.Errorf("it runs %v", f.Run)
	}
	for _, path := range slices.Concat(f.Read, f.Write) {
		if path != inside && path != "/tmp" {
			t.Errorf("it reads or writes %q", path)
		}
	}
	for _, kv := range f.Env {
		if !strings.HasPrefix(kv, "PROBE") {
			t.Errorf("its environment has %q", kv)
		}
	}
}

func TestConfined(t *testing.T) {
	program := buildProbe(t)
	for _, namespaces := range []bool{true, false} {
		t.Run(fmt.Sprintf("namespaces=%v", namespaces), func(t *testing.T) {
			h := newHost(t)
			inside := h.own
			if namespaces {
				inside = InsideDir
			}
			s := &Spec{Name: "probe", Program: open(t, program), Dir: h.own, Env: append(h.env, "PROBE_DIR="+inside), Number: 7}
			f, p := probe(t, s, namespaces)
			f.check(t, h, inside)
			if f.TCP == "" {
				t.Error("it reaches the network")
			}
			if namespaces && (f.PPID != 0 || !slices.Equal(f.Root, []string{"dev", "run", "tmp"}) || f.Hostname != "plugin") {
				t.Errorf("it sees %v, its parent is %d, its host %q", f.Root, f.PPID, f.Hostname)
			}
			if os.Geteuid() == 0 && f.UID != int(freeUsers[0])+7 && f.UID != int(freeUsers[1])+7 {
				t.Errorf("it is user %d", f.UID)
			}
			if uint32(f.UID) != p.UID {
				t.Errorf("it is user %d, the process says %d", f.UID, p.UID)
			}
		})
	}
}

// TestPromised gives a program a path, a network and a user.
func TestPromised(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root (try: as root)")
	}
	h := newHost(t)
	given := filepath.Join(h.dir, "given")
	for _, d := range []string{given, given + "-written"} {
		if err := os.Mkdir(d, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	program := buildProbe(t)
	for _, namespaces := range []bool{true, false} {
		inside := h.own
		if namespaces {
			inside = InsideDir
		}
		s := &Spec{
			Name: "probe", Program: open(t, program), Dir: h.own, Network: true, User: &User{nobody, nobody},
			Read: []string{given, "/usr", "/bin", "/lib", "/lib64"}, Write: []string{given + "-written"},
			Env: append([]string{"PROBE_DIR=" + inside, "PROBE_PATHS=" + given + ":" + given + "-written:" + h.secret + "/key"}, h.env[:2]...),
		}
		f, _ := probe(t, s, namespaces)
		t.Logf("%+v", f)
		if f.UID != nobody || f.TCP != "" || len(f.Run) == 0 {
			t.Errorf("user %d, TCP %q, runs %v", f.UID, f.TCP, f.Run)
		}
		if !slices.Contains(f.Read, given) || slices.Contains(f.Write, given) || !slices.Contains(f.Write, given+"-written") {
			t.Errorf("reads %v, writes %v", f.Read, f.Write)
		}
		if slices.Contains(f.Read, h.secret+"/key") || f.Unix == "" && namespaces || len(f.Calls) > 0 {
			t.Errorf("reads %v, Unix %q, may %v", f.Read, f.Unix, f.Calls)
		}
	}
}

// TestAsUser does it all again as a broker that is not root.
func TestAsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root already")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(shortDir(t), "confine.test") // where that user can reach it
	text, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(copied, text, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	program := buildProbe(t)
	cmd := exec.Command(copied, "-test.run=^TestUnprivileged$", "-test.v", "-test.count=1")
	cmd.Env = append(os.Environ(), "TORNO_CONFINE_PROBE="+program, "HOME=/nonexistent")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestUnprivileged")) {
		t.Fatal(err)
	}
}

func TestUnprivileged(t *testing.T) {
	program := os.Getenv("TORNO_CONFINE_PROBE")
	if program == "" {
		t.Skip("run by TestAsUser")
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil { // as the broker is
		t.Fatal(err)
	}
	for _, namespaces := range []bool{true, false} {
		h := newHost(t)
		inside := h.own
		if namespaces {
			inside = InsideDir
		}
		s := &Spec{Name: "probe", Program: open(t, program), Dir: h.own, Env: append(h.env, "PROBE_DIR="+inside)}
		f, _ := probe(t, s, namespaces)
		f.check(t, h, inside)
		if f.TCP == "" {
			t.Error("it reaches the network")
		}
		s.Network = true
		if namespaces {
			if f, _ := probe(t, s, true); f.TCP != "" || f.Unix == "" {
				t.Errorf("TCP %q, Unix %q", f.TCP, f.Unix)
			}
		} else if _, err := start(s, false); err == nil {
			t.Error("a program with the network, as the broker's own user, starts")
		}
		s.User = &User{1, 1}
		if _, err := start(s, namespaces); err == nil {
			t.Error("it starts as somebody else")
		}
	}
}

// TestEnds has programs end with what they have started, and with their limits.
func TestEnds(t *testing.T) {
	h := newHost(t)
	program := buildProbe(t)
	t.Run("killed", func(t *testing.T) {
		s := &Spec{Name: "probe", Program: open(t, program), Dir: h.own, Env: []string{"PROBE=child"}, Read: []string{"/usr", "/bin", "/lib", "/lib64"}}
		p, err := start(s, true)
		if err != nil {
			t.Fatal(err)
		}
		out := bufio.NewReader(p.Stdout)
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		p.Kill()
		ended := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, out); ended <- err }() // ends with the last who has the pipe
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("what it has started lives on")
		}
		<-p.Done()
		if p.Status() != "killed by signal 9" {
			t.Error(p.Status())
		}
	})
	t.Run("without namespaces", func(t *testing.T) { // what it has started lives on, and keeps nobody waiting
		s := &Spec{Name: "probe", Program: open(t, program), Dir: h.own, Env: []string{"PROBE=child"}, Read: []string{"/usr", "/bin", "/lib", "/lib64"}}
		p, err := start(s, false)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Kill(-p.PID(), unix.SIGKILL) // its group, which has the child
		out := bufio.NewReader(p.Stdout)
		if line, err := out.ReadString('\n'); line != "ready\n" {
			t.Fatalf("%q, %v", line, err)
		}
		p.Kill()
		ended := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, out); ended <- err }()
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("who reads what it wrote waits for ever")
		}
	})
	t.Run("memory", func(t *testing.T) {
		s := &Spec{Name: "probe", Program: open(t, program), Dir: h.own, Env: []string{"PROBE=memory"}, Memory: 256 << 20}
		p, err := start(s, true)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := io.ReadAll(io.LimitReader(p.Stdout, 16))
		said, _ := io.ReadAll(io.LimitReader(p.Stderr, 4096))
		<-p.Done()
		if len(out) > 0 || !strings.Contains(string(said), "out of memory") && !strings.Contains(string(said), "cannot allocate memory") {
			t.Errorf("%q, %s: %.300s", out, p.Status(), said)
		}
	})
}

func TestOpenProgram(t *testing.T) {
	dir := shortDir(t)
	program := buildProbe(t)
	text, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	for _, tt := range []struct {
		name string
		make func(path string) error
		want error
	}{
		{"missing", func(string) error { return nil }, os.ErrNotExist},
		{"a directory", func(p string) error { return os.Mkdir(p, 0o755) }, nil},
		{"a FIFO", func(p string) error { return unix.Mkfifo(p, 0o666) }, nil},
		{"changed", func(p string) error { return os.WriteFile(p, append(text[:len(text):len(text)], 'x'), 0o755) }, ErrChanged},
		{"empty", func(p string) error { return os.WriteFile(p, nil, 0o755) }, ErrChanged},
	} {
		path := filepath.Join(dir, strings.ReplaceAll(tt.name, " ", "-"))
		if err := tt.make(path); err != nil {
			t.Fatal(err)
		}
		f, _, err := OpenProgram(path, sum)
		if err == nil || tt.want != nil && !errors.Is(err, tt.want) || f != nil {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	script := filepath.Join(dir, "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	var hinted *Error
	if _, _, err := OpenProgram(script, sha256.Sum256([]byte("#!/bin/sh\n"))); !errors.As(err, &hinted) {
		t.Errorf("a script: %v", err)
	}
	f := open(t, program)
	if _, err := unix.Pwrite(int(f.Fd()), []byte("x"), 0); !errors.Is(err, unix.EPERM) {
		t.Errorf("writing what was checked: %v", err)
	}
}

// TestFilterSize holds the filter to what the kernel takes.
func TestFilterSize(t *testing.T) {
	for _, network := range []bool{true, false} {
		for _, namespaces := range []bool{true, false} {
			if n := len(compile(network, namespaces)); n > 4096 {
				t.Errorf("%d instructions", n)
			}
		}
	}
}

func TestCleanPath(t *testing.T) {
	for path, want := range map[string]bool{
		"/usr": true, "/etc/torno/vault": true, "/proc": true,
		"": false, "usr": false, "/": false, "/dev": false, "/tmp": false, "/usr/": false, "/usr/../etc": false, "/a\x00b": false, InsideDir: false,
	} {
		if CleanPath(path) != want {
			t.Errorf("CleanPath(%q) is %v", path, !want)
		}
	}
}
