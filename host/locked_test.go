package main_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const lockPassphrase = "correct horse battery staple"

// tornoIn runs a command against the service, with standard input.
func (s *supervisor) tornoIn(stdin string, args ...string) string {
	s.t.Helper()
	cmd := exec.Command(filepath.Join(bin, "torno"), args...)
	cmd.Env, cmd.Stdin = s.env(), strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.t.Fatalf("torno %q: %v: %s", args, err, out)
	}
	return string(out)
}

// A service whose key a passphrase protects comes up locked: systemd is told that it is ready and that it is locked, its
// watchdog is served, and once it is unlocked it is a broker as any.
func TestSystemdLocked(t *testing.T) {
	s := newSupervisor(t)
	service := s.start()
	s.wait("READY=1")
	s.tornoIn(customKey, "secrets", "set", "my-agent", "ACME_TOKEN=-", "--host", "acme.example")
	s.tornoIn(lockPassphrase+"\n", "key", "protect", "--with", "passphrase")
	s.must(service.Process.Signal(syscall.SIGTERM))
	s.must(service.Wait())

	service = s.start()
	s.wait("STATUS=locked: torno key unlock")
	s.wait("READY=1")
	s.wait("WATCHDOG=1")
	if out, err := s.torno("secrets", "list"); err == nil || !strings.Contains(out, "hint: torno key unlock") {
		t.Errorf("%q, %v", out, err)
	}
	s.must(service.Process.Signal(syscall.SIGHUP))
	if got := s.wait("STATUS=not reloaded", "STATUS=reloaded"); !strings.Contains(got, "locked") {
		t.Errorf("%q", got)
	}
	if out := s.tornoIn(lockPassphrase+"\n", "key", "unlock"); out != "unlocked\n" {
		t.Errorf("%q", out)
	}
	s.wait("STATUS=unlocked")
	s.wait("READY=1")
	if out, err := s.torno("secrets", "list"); err != nil || !strings.Contains(out, "ACME_TOKEN") {
		t.Errorf("%q, %v", out, err)
	}
	s.must(service.Process.Signal(syscall.SIGTERM))
	s.must(service.Wait())

	service = s.start() // and one that is ended while it is locked leaves the socket to the next one
	s.wait("READY=1")
	s.must(service.Process.Signal(syscall.SIGTERM))
	s.must(service.Wait())
	service = s.start()
	s.wait("READY=1")
	s.tornoIn(lockPassphrase+"\n", "key", "unlock", "--passphrase-file", "-")
	s.must(service.Process.Signal(syscall.SIGTERM))
	s.must(service.Wait())
}

// On a terminal the passphrase is asked for and not shown, and it is nowhere afterwards: on the screen, in the log, among the
// arguments or variables of a process, in the state directory.
func TestAttack34Unlock(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	if r := h.tornoIn(lockPassphrase+"\n", "key", "protect", "--with", "passphrase"); r.code != 0 {
		t.Fatal(r.stderr)
	}
	h.stop()
	h.serve = h.command("serve", "--config", "broker.toml")
	h.serve.Stdout, h.serve.Stderr = h.log, h.log
	if err := h.serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = h.serve.Process.Signal(os.Interrupt)
		_ = h.serve.Wait()
		if findIn(h.log.String(), lockPassphrase) != "" {
			t.Error("it is in the log")
		}
	}()
	for deadline := time.Now().Add(patience); h.torno("key", "show").stdout != "locked, protected by: passphrase\n"; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it does not come up locked")
		}
	}
	p := h.openTerminal(80, 24, "", "key unlock")
	p.until("Passphrase of torno's key")
	p.write(lockPassphrase)
	for _, pid := range p.pids() {
		for _, file := range []string{"cmdline", "environ"} {
			if b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file)); strings.Contains(string(b), lockPassphrase) {
				t.Errorf("it is in %s", file)
			}
		}
	}
	p.press("Enter")
	p.until("unlocked")
	p.until("ended 0")
	for where, text := range map[string]string{"the screen": p.everything(), "what was written to the terminal": p.written()} {
		if strings.Contains(text, "horse") {
			t.Errorf("it is in %s:\n%s", where, text)
		}
	}
	if out := h.must("secrets", "list", "my-agent"); !strings.Contains(out, "ANTHROPIC_API_KEY") {
		t.Error(out)
	}
	for path, content := range below(t, filepath.Join(h.dir, "state")) {
		if findIn(content, lockPassphrase) != "" {
			t.Errorf("it is in %s", path)
		}
	}
}
