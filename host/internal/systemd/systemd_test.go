package systemd

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// manager is a service manager's side of NOTIFY_SOCKET.
func manager(t *testing.T, name string) *net.UnixConn {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	return c
}

func TestNotify(t *testing.T) {
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), "@torno-test-" + strconv.Itoa(os.Getpid())} {
		theirs := manager(t, name)
		t.Setenv("NOTIFY_SOCKET", name)
		t.Setenv("WATCHDOG_USEC", "30000000")
		t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
		m, err := Connect()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if m.Watchdog() != 30*time.Second || os.Getenv("NOTIFY_SOCKET")+os.Getenv("WATCHDOG_USEC") != "" {
			t.Errorf("watchdog %v; the environment has %q", m.Watchdog(), os.Getenv("NOTIFY_SOCKET"))
		}
		for _, tt := range []struct {
			say  func() error
			want string
		}{
			{m.Ready, "READY=1"}, {m.Stopping, "STOPPING=1"}, {m.Alive, "WATCHDOG=1"}, {m.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
			{func() error { return m.Status("3 sessions\nREADY=0") }, "STATUS=3 sessions READY=0"},
		} {
			if err := tt.say(); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 1000)
			n, err := theirs.Read(b)
			if err != nil || !strings.HasPrefix(string(b[:n]), tt.want) {
				t.Errorf("%q, %v, want %q", b[:n], err, tt.want)
			}
		}
	}
}

// Without a manager nothing is said and nothing fails; a watchdog of another process is not ours.
func TestNoManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	t.Setenv("WATCHDOG_USEC", "1000")
	t.Setenv("WATCHDOG_PID", "1")
	m, err := Connect()
	if err != nil || m.Watchdog() != 0 || m.Ready() != nil || m.Close() != nil {
		t.Errorf("%+v, %v", m, err)
	}
	t.Setenv("NOTIFY_SOCKET", "vsock:2:9999")
	if _, err := Connect(); err == nil {
		t.Error("another kind of address passes")
	}
	t.Setenv("LISTEN_PID", "1")
	t.Setenv("LISTEN_FDS", "1")
	if all, err := Listeners(); err != nil || len(all) > 0 || os.Getenv("LISTEN_FDS") != "" {
		t.Errorf("sockets of another process: %v, %v", all, err)
	}
}

// TestMain is also the process that sockets are passed to: it answers one connection on each, and says what it was
// given.
func TestMain(m *testing.M) {
	if os.Getenv("TORNO_TEST_LISTEN") == "" {
		os.Exit(m.Run())
	}
	all, err := Listeners()
	if err != nil {
		io.WriteString(os.Stdout, "error: "+err.Error())
		os.Exit(1)
	}
	for _, name := range []string{"control", "metrics"} {
		c, err := all[name].Accept()
		if err != nil {
			panic(err)
		}
		io.WriteString(c, name)
		c.Close()
	}
	os.Exit(0)
}

func TestListeners(t *testing.T) {
	dir := t.TempDir()
	var files []*os.File
	for _, name := range []string{"control", "metrics"} {
		ln, err := net.Listen("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		f, err := ln.(*net.UnixListener).File()
		if err != nil {
			t.Fatal(err)
		}
		ln.(*net.UnixListener).SetUnlinkOnClose(false)
		ln.Close()
		defer f.Close()
		files = append(files, f)
	}
	run := func(env ...string) (*exec.Cmd, *bytes.Buffer) {
		cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0"`, os.Args[0])
		cmd.Env, cmd.ExtraFiles = append(append(os.Environ(), "TORNO_TEST_LISTEN=1"), env...), files
		var out bytes.Buffer
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, &out
	}
	cmd, out := run("LISTEN_FDS=2", "LISTEN_FDNAMES=control:metrics")
	for _, name := range []string{"control", "metrics"} {
		c, err := net.Dial("unix", filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(c); err != nil || string(b) != name {
			t.Errorf("%s answers %q, %v", name, b, err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
	for env, want := range map[string]string{
		"LISTEN_FDNAMES=control:control": "two sockets", "LISTEN_FDS=x": "LISTEN_FDS", "LISTEN_FDS=65": "LISTEN_FDS", "LISTEN_FDS=3": "unknown",
	} {
		cmd, out := run("LISTEN_FDS=2", env)
		if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), want) {
			t.Errorf("%s: %v, %q", env, err, out)
		}
	}
}
