package main_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUnitExposure bounds what systemd-analyze finds open in the unit, of 10. docs/systemd.md says how much that is.
func TestUnitExposure(t *testing.T) {
	const bound = 15 // tenths
	exposure := func(path string) string {
		out, err := exec.Command("systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold="+strconv.Itoa(bound), path).CombinedOutput()
		text := string(out[max(0, bytes.LastIndex(out, []byte("→"))):])
		if err != nil {
			return "too much: " + err.Error() + ": " + text // try: apt-get install systemd
		}
		return text
	}
	if got := exposure("systemd/torno.service"); strings.HasPrefix(got, "too much") {
		t.Error(got)
	} else {
		t.Log(got)
	}
	page, err := os.ReadFile("../docs/systemd.md")
	if err != nil || !strings.Contains(string(page), "a test fails above 1.5") {
		t.Errorf("docs/systemd.md says another bound: %v", err)
	}
	bare := filepath.Join(t.TempDir(), "bare.service")
	if err := os.WriteFile(bare, []byte("[Service]\nExecStart=/bin/true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := exposure(bare); !strings.HasPrefix(got, "too much") {
		t.Errorf("a unit without any sandboxing passes: %s", got)
	}
}

// TestUnitVerify has systemd read both units.
func TestUnitVerify(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"torno.service", "torno.socket"} {
		b, err := os.ReadFile(filepath.Join("systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		b = bytes.ReplaceAll(b, []byte("/usr/local/bin/torno"), []byte(filepath.Join(bin, "torno")))
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("systemd-analyze", "verify", "--man=no", filepath.Join(dir, "torno.service"), filepath.Join(dir, "torno.socket"))
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "torno") {
		t.Errorf("%v\n%s", err, out)
	}
}

// A supervisor is what systemd is to a service: it listens on the control socket, and is told.
type supervisor struct {
	t      *testing.T
	dir    string
	socket *os.File
	notify *net.UnixConn
}

func newSupervisor(t *testing.T) *supervisor {
	dir, err := os.MkdirTemp("", "tu") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &supervisor{t: t, dir: dir}
	for _, d := range []string{"torno", "state"} {
		s.must(os.Mkdir(filepath.Join(dir, d), 0o700))
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "torno", "control"))
	s.must(err)
	ln.(*net.UnixListener).SetUnlinkOnClose(false)
	s.socket, err = ln.(*net.UnixListener).File()
	s.must(err)
	ln.Close()
	s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	s.must(err)
	t.Cleanup(func() { s.socket.Close(); s.notify.Close() })
	s.write("")
	return s
}

func (s *supervisor) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// write writes the operator's file.
func (s *supervisor) write(text string) {
	s.must(os.WriteFile(filepath.Join(s.dir, "broker.toml"), []byte(text), 0o600))
}

func (s *supervisor) env() []string {
	return append(os.Environ(), "XDG_RUNTIME_DIR="+s.dir, "TORNO_STATE="+filepath.Join(s.dir, "state"))
}

// start starts the service as the unit does, but for the sandbox.
func (s *supervisor) start() *exec.Cmd {
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ exec "$0" serve --config "$1"`, filepath.Join(bin, "torno"), filepath.Join(s.dir, "broker.toml"))
	cmd.Env = append(s.env(), "LISTEN_FDS=1", "LISTEN_FDNAMES=control", "NOTIFY_SOCKET="+filepath.Join(s.dir, "notify"), "WATCHDOG_USEC=1500000")
	cmd.ExtraFiles = []*os.File{s.socket}
	cmd.Stderr = os.Stderr
	s.must(cmd.Start())
	s.t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// wait waits until the service says something that begins with one of wanted, and returns what it was.
func (s *supervisor) wait(wanted ...string) string {
	s.t.Helper()
	_ = s.notify.SetReadDeadline(time.Now().Add(30 * time.Second))
	for b := make([]byte, 4096); ; {
		n, err := s.notify.Read(b)
		if err != nil {
			s.t.Fatalf("waiting for %q: %v", wanted, err)
		}
		for _, w := range wanted {
			if strings.HasPrefix(string(b[:n]), w) {
				return string(b[:n])
			}
		}
	}
}

// torno runs a command against the service.
func (s *supervisor) torno(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "torno"), args...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestSystemdService starts the broker as systemd does: it takes over the socket, says when it is ready, what it does and that it
// is alive, reloads, stops, and leaves the socket to the next one.
func TestSystemdService(t *testing.T) {
	s := newSupervisor(t)
	early := make(chan string, 1)
	go func() { // before anybody serves: the request waits in the socket
		out, err := s.torno("sessions", "list")
		if err != nil {
			out += err.Error()
		}
		early <- out
	}()
	service := s.start()
	s.wait("READY=1")
	if out := <-early; out != "no sessions\n" {
		t.Errorf("who asked early: %q", out)
	}
	s.wait("WATCHDOG=1")
	if got := s.wait("STATUS="); got != "STATUS=0 sessions, 0 requests wait for a person" {
		t.Errorf("%q", got)
	}
	s.write("[agents.a.egress]\nallow = [\"example.com\"]\n")
	s.must(service.Process.Signal(syscall.SIGHUP))
	s.wait("RELOADING=1\nMONOTONIC_USEC=")
	if got := s.wait("STATUS=reloaded", "STATUS=not"); got != "STATUS=reloaded" {
		t.Errorf("%q", got)
	}
	s.wait("READY=1")
	if out, err := s.torno("policy", "check", "a", "GET", "https://example.org/"); err == nil || !strings.Contains(out, "list default") {
		t.Errorf("the file's ceiling: %s, %v", out, err)
	}
	s.write("[agents.a.egress]\nallow = [\"*\"]\n")
	s.must(service.Process.Signal(syscall.SIGHUP))
	if got := s.wait("STATUS=reloaded", "STATUS=not"); !strings.Contains(got, "host * would match every host") {
		t.Errorf("%q", got)
	}
	s.wait("READY=1")
	if out, err := s.torno("reload"); err == nil || !strings.Contains(out, "hint: nothing has changed") {
		t.Errorf("torno reload of a wrong file: %q, %v", out, err)
	}
	s.write("[limits]\nasks = 7\n")
	if out, err := s.torno("reload"); err != nil || out != "reloaded; 0 live sessions are held to it\nchanged: agents.a, limits.asks\n" {
		t.Errorf("torno reload: %q, %v", out, err)
	}
	s.write("[limits]\nasks = 7\n[audit]\nkeep_days = 3\n[metrics]\nlisten = \"127.0.0.1:0\"\n")
	if out, err := s.torno("reload"); err != nil || out != "reloaded; 0 live sessions are held to it\nignored until a restart: metrics.listen, audit.keep_days\n" {
		t.Errorf("torno reload: %q, %v", out, err)
	}
	s.must(service.Process.Signal(syscall.SIGTERM))
	s.wait("STOPPING=1")
	s.must(service.Wait())
	again := s.start()
	s.wait("READY=1")
	if out, err := s.torno("sessions", "list"); err != nil {
		t.Errorf("after a restart: %q, %v", out, err)
	}
	s.must(again.Process.Signal(syscall.SIGTERM))
	s.must(again.Wait())
}
