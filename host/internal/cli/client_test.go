package cli

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"torno.internal/host/internal/namespace"
	"torno.internal/protocol/control"
)

// TestMain makes the test binary a listener of another user and the stages of namespaces too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case namespace.InitCommand:
			os.Exit(namespace.Init())
		case namespace.EnterCommand:
			os.Exit(namespace.Enter())
		case namespace.ProbeCommand:
			os.Exit(namespace.Probe())
		}
	}
	if len(os.Args) == 3 && os.Args[1] == "squat" {
		ln, err := net.Listen("unix", os.Args[2])
		if err != nil {
			os.Exit(1)
		}
		os.Stdout.WriteString("listening\n")
		_, _ = ln.Accept()
		time.Sleep(time.Minute)
	}
	os.Exit(m.Run())
}

func TestNoBroker(t *testing.T) {
	places(t)
	for _, args := range [][]string{{"sessions", "list"}, {"sessions", "show", "x"}, {"sessions", "revoke", "x"}} {
		r := torno(t, "", args...)
		if r.code != 1 || !strings.Contains(r.errOut, "no broker answers on ") || !strings.Contains(r.errOut, "hint: start one: torno serve") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

// A broker of other state is not ours, though it answers on our socket.
func TestOtherState(t *testing.T) {
	b := newBroker(t)
	t.Setenv("TORNO_STATE", filepath.Join(t.TempDir(), "elsewhere"))
	r := torno(t, "", "secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+goodKey)
	if r.code != 1 || !strings.Contains(r.errOut, "keeps its state in "+b.state) || len(b.values) != 0 {
		t.Errorf("%+v", r)
	}
}

// Another user listens where our broker should: no secret goes there.
func TestAttack39Squatter(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to be two users")
	}
	dir := places(t)
	for _, d := range []string{dir, filepath.Join(dir, "torno")} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	socket := filepath.Join(dir, "torno", control.SocketName)
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(dir, "squatter")
	if err := os.WriteFile(copied, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(copied, "squat", socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	r := torno(t, "", "secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+goodKey)
	if r.code != 1 || !strings.Contains(r.errOut, "user 65534, not you, listens") {
		t.Errorf("%+v", r)
	}
}

// What answers on the socket and is no broker.
func TestNotABroker(t *testing.T) {
	dir := places(t)
	ln, err := net.Listen("unix", filepath.Join(dir, "torno", control.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = c.Write([]byte("HTTP/1.1 500 Oops\r\nConnection: close\r\n\r\nnot JSON"))
			c.Close()
		}
	}()
	r := torno(t, "", "sessions", "list")
	if r.code != 1 || !strings.Contains(r.errOut, "the broker answers 500 Oops") {
		t.Errorf("%+v", r)
	}
}

func TestLongRuntimeDir(t *testing.T) {
	t.Setenv("XDG_RUNTIME_DIR", "/tmp/"+strings.Repeat("x", 90))
	if _, err := runtimeDir(); err == nil || hintOf(err) == "" {
		t.Errorf("a socket's path of more than 107 bytes: %v", err)
	}
	t.Setenv("XDG_RUNTIME_DIR", "/tmp/"+strings.Repeat("x", maxSocketDir-len("/tmp//torno")))
	if _, err := runtimeDir(); err != nil {
		t.Error(err)
	}
}

func TestPlaces(t *testing.T) {
	t.Setenv("TORNO_STATE", "")
	t.Setenv("XDG_STATE_HOME", "/state")
	if dir, err := stateDir(); err != nil || dir != "/state/torno" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("XDG_STATE_HOME", "relative")
	t.Setenv("HOME", "/home/ada")
	if dir, err := stateDir(); err != nil || dir != "/home/ada/.local/state/torno" {
		t.Errorf("%q, %v", dir, err)
	}
	t.Setenv("HOME", "")
	if _, err := stateDir(); err == nil || hintOf(err) != "set TORNO_STATE" {
		t.Errorf("%v", err)
	}
}

// A canceled context is an error of its own, not a broker that is not there: none is started then.
func TestCanceled(t *testing.T) {
	places(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := ensure(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
