package main_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pane is a terminal in tmux with torno in it, driven by keys.
type pane struct {
	t   *testing.T
	h   *house
	dir string
	raw string // a file with all that was written to the terminal
}

// openPane runs torno tui, with args and more of an environment, in a terminal of columns × rows.
func (h *house) openPane(columns, rows int, env string, args ...string) *pane {
	h.t.Helper()
	return h.openTerminal(columns, rows, env, "tui "+strings.Join(args, " "))
}

// openTerminal runs torno with the shell's words args, and more of an environment, in a terminal of columns × rows. When it
// ends a shell says so, and echoes what is typed.
func (h *house) openTerminal(columns, rows int, env, args string) *pane {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "pane") // short, for the socket's path
	if err != nil {
		h.t.Fatal(err)
	}
	p := &pane{h.t, h, dir, filepath.Join(h.t.TempDir(), "raw")}
	h.t.Cleanup(func() {
		_ = exec.Command("tmux", "-S", filepath.Join(dir, "s"), "kill-server").Run()
		os.RemoveAll(dir)
	})
	c := h.command()
	script := fmt.Sprintf("cd %s; ulimit -c unlimited; %s %s %s; code=$?; stty sane; printf 'ended %%d\\n' $code; exec cat", dir, env, c.Path, args)
	cmd := exec.Command("tmux", "-S", filepath.Join(dir, "s"), "-f", "/dev/null", "new-session", "-d",
		"-x", strconv.Itoa(columns), "-y", strconv.Itoa(rows), script)
	cmd.Env = append(c.Env, "TERM=xterm-256color", "LANG=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		h.t.Fatalf("tmux: %v\n%s", err, out)
	}
	p.tmux("", "pipe-pane", "cat >"+p.raw)
	return p
}

func (p *pane) tmux(stdin string, args ...string) string {
	p.t.Helper()
	cmd := exec.Command("tmux", append([]string{"-S", filepath.Join(p.dir, "s")}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %q: %v\n%s", args, err, out)
	}
	return string(out)
}

func (p *pane) press(keys ...string) { p.tmux("", append([]string{"send-keys"}, keys...)...) }
func (p *pane) write(text string)    { p.tmux("", "send-keys", "-l", text) }

// paste pastes as a terminal does that knows bracketed paste.
func (p *pane) paste(text string) {
	p.tmux(text, "load-buffer", "-")
	p.tmux("", "paste-buffer", "-p", "-d")
}

// screen is what a person sees; everything is that and the scrollback.
func (p *pane) screen() string { return p.tmux("", "capture-pane", "-p") }
func (p *pane) everything() string {
	return p.tmux("", "capture-pane", "-p", "-J", "-S", "-", "-E", "-")
}

// written is all that was written to the terminal so far.
func (p *pane) written() string {
	p.t.Helper()
	raw, err := os.ReadFile(p.raw)
	if err != nil {
		p.t.Fatal(err)
	}
	return string(raw)
}

// until waits until the screen matches.
func (p *pane) until(pattern string) string {
	p.t.Helper()
	re := regexp.MustCompile(pattern)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if s := p.screen(); re.MatchString(s) {
			return s
		}
	}
	p.t.Fatalf("not within %v: %q\n%s", patience, pattern, p.screen())
	return ""
}

// gone waits until the screen holds text no more.
func (p *pane) gone(text string) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); strings.Contains(p.screen(), text); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("still there after %v: %q\n%s", patience, text, p.screen())
		}
	}
}

// pids are the processes of the pane, the desk's among them.
func (p *pane) pids() []int {
	p.t.Helper()
	all := []int{}
	for _, field := range strings.Fields(p.tmux("", "list-panes", "-F", "#{pane_pid}")) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			p.t.Fatal(err)
		}
		all = append(all, pid)
	}
	for i := 0; i < len(all); i++ {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", all[i], all[i]))
		for _, field := range strings.Fields(string(children)) {
			if pid, err := strconv.Atoi(field); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// deskPID is the process that is torno tui.
func (p *pane) deskPID() int {
	p.t.Helper()
	for _, pid := range p.pids() {
		if b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); bytes.Contains(b, []byte("torno\x00tui")) {
			return pid
		}
	}
	p.t.Fatal("no desk runs")
	return 0
}

// runsOf counts the runs of eight bytes of value that text holds.
func runsOf(value, text string) (n int) {
	for i := range len(value) - 7 {
		if strings.Contains(text, value[i:i+8]) {
			n++
		}
	}
	return n
}

func newValue() string {
	b := make([]byte, 24)
	_, _ = rand.Read(b)
	return "sk-ant-api03-" + hex.EncodeToString(b)
}

// random is the part of a value that is secret.
func random(value string) string { return strings.TrimPrefix(value, "sk-ant-api03-") }

// TestAttack34Desk types and pastes values into the real desk on a real terminal, beside it too, ends it in order and
// by a crash, and searches screen, scrollback, the environment and the arguments of every process, and every file
// that was left, for every run of them.
func TestAttack34Desk(t *testing.T) {
	h := newHouse(t, "")
	p := h.openPane(100, 30, "TEA_TRACE=trace TEA_DEBUG=1 UV_DEBUG=uv GOTRACEBACK=crash", "--theme", "dark")
	typed, pasted, lost := newValue(), newValue(), newValue()
	var seen strings.Builder
	look := func() { seen.WriteString(p.everything()) }

	p.until("No secret is set yet")
	p.paste(typed)
	p.press("a")
	p.until("Add a secret")
	p.write("my-agent")
	p.press("Tab")
	p.write("anthropic_api_key")
	p.press("Enter", "Enter")
	p.write(typed)
	p.until(fmt.Sprintf("%d bytes", len(typed)))
	look()
	p.press("Enter")
	p.until("set, version 1")
	look()
	p.press("r")
	p.until("New version of")
	p.paste(pasted + "\n")
	p.until(fmt.Sprintf("%d bytes", len(pasted)+1))
	look()
	p.press("Enter")
	p.until("set, version 2")
	for _, page := range []string{"2", "3", "4", "5", "1"} {
		p.press(page)
		p.paste(typed)
	}
	p.press("/")
	p.write(random(typed))
	p.until("nothing holds that")
	p.paste(typed)
	look()
	p.press("Escape")
	p.gone("nothing holds that") // else Escape and the next key are one to the terminal
	for _, pid := range append(p.pids(), h.serve.Process.Pid) {
		for _, what := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, what))
			if err != nil {
				t.Error(err)
			}
			seen.Write(b)
		}
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.deskPID())); err != nil || !regexp.MustCompile(`Max core file size +0 +0`).Match(b) {
		t.Errorf("the desk may leave a core: %v\n%s", err, b)
	}
	p.press("1", "a")
	p.until("Add a secret")
	p.paste(lost)
	p.until(fmt.Sprintf("%d bytes", len(lost)))
	if err := syscall.Kill(p.deskPID(), syscall.SIGQUIT); err != nil { // the runtime prints every stack
		t.Fatal(err)
	}
	p.until(`ended \d`)
	look()
	raw, err := os.ReadFile(p.raw)
	if err != nil {
		t.Fatal(err)
	}
	seen.Write(raw)
	if !strings.Contains(string(raw), "SIGQUIT: quit") || !strings.Contains(string(raw), "goroutine ") {
		t.Error("no stack was printed: the crash was none")
	}
	left := filesBelow(t, p.dir, filepath.Join(h.dir, "state"), h.work)
	for name, value := range map[string]string{"typed": typed, "pasted": pasted, "lost": lost} {
		for where, text := range map[string]string{"terminal and processes": seen.String(), "the broker's log": h.log.String(), "files": left} {
			if n := runsOf(random(value), text); n > 0 {
				t.Errorf("%s: %d runs of the value that was %s", where, n, name)
			}
		}
	}
	// The positive control: what a terminal echoes, and what a file holds, is found.
	p.write(lost)
	p.until(random(lost))
	if err := os.WriteFile(filepath.Join(p.dir, "core"), []byte(lost), 0o600); err != nil {
		t.Fatal(err)
	}
	if want := len(random(lost)) - 7; runsOf(random(lost), p.everything()) != want || runsOf(random(lost), filesBelow(t, p.dir)) != want {
		t.Error("the search finds nothing")
	}
	t.Logf("%d bytes of terminal and processes, %d of files", seen.Len(), len(left))
}

// filesBelow is all that the files below dirs hold, and their names.
func filesBelow(t *testing.T, dirs ...string) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			all.WriteString(path + "\n")
			all.Write(b)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"/trace\n", "/uv\n", "bubbletea-panic"} {
		if strings.Contains(all.String(), name) {
			t.Errorf("a library's trace was left: %q", name)
		}
	}
	return all.String()
}

// A person at the desk sees requests as they come and why they were decided so, through a resize, a broker that goes
// and comes back, and revokes a session; a hostile path does nothing to the terminal.
func TestDesk(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	p := h.openPane(80, 24, "", "--theme", "light")
	p.until("ANTHROPIC_API_KEY")
	p.press("3")
	p.until("Nothing was asked for yet")
	h.sh(`curl -s https://api.anthropic.com/v1/messages; curl -s "https://denied.example/%1b%5d0;pwned%07"; curl -s https://denied.example/second`)
	p.until(`denied\.example/second +denied`)
	p.press("Enter")
	p.until(`meaning +No rule allows this request`)
	p.press("Escape")
	p.gone("meaning")
	p.tmux("", "resize-window", "-x", "140", "-y", "40")
	p.until(`dev, \d session`)
	p.until(`denied\.example/second .*│`)
	p.press("G")
	p.until(`credential +ANTHROPIC_API_KEY version 1`)

	asleep := h.command("run", "--agent", "my-agent", "--isolation", h.isolation(), "--trust-config", "--", "sleep", "120")
	if err := asleep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = asleep.Process.Signal(syscall.SIGTERM)
		_ = asleep.Wait()
	})
	p.press("2")
	p.until(`live +\d+s`)
	p.press("v")
	p.until("Revoke session")
	p.write("revoke")
	p.press("Enter")
	p.until(": revoked")
	p.until("No session is live")
	h.serve.Process.Signal(os.Interrupt)
	p.until("no broker")
	p.until("does not answer")
	h.startBroker()
	p.until(`● dev, 0 sessions`)
	p.press("3")
	p.until(`denied\.example/second`)
	p.press("q")
	s := p.until(`ended 0`)
	if strings.Contains(s, "denied.example") {
		t.Errorf("the desk leaves its screen behind:\n%s", s)
	}
}

// The first start leads to a broker; without colours there are none; what is accessible is plain.
func TestDeskFirstStart(t *testing.T) {
	h := newHouse(t, "")
	_ = h.serve.Process.Signal(os.Interrupt)
	control := filepath.Join(h.dir, "rt", "torno", "control")
	for range 1200 {
		if _, err := os.Stat(control); err != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	p := h.openPane(80, 24, "NO_COLOR=1", "--accessible")
	p.until("No broker answers yet")
	p.press("Enter")
	t.Cleanup(func() { stopBroker(t, control) })
	p.until("No secret is set yet")
	coloured := p.tmux("", "capture-pane", "-p", "-e")
	if regexp.MustCompile("\x1b\\[[0-9;]*(3[0-8]|4[0-8])[;m]").MatchString(coloured) {
		t.Errorf("colours in spite of NO_COLOR:\n%q", coloured)
	}
	if i := strings.IndexFunc(coloured, func(r rune) bool { return 0x2500 <= r && r <= 0x25ff }); i >= 0 {
		t.Errorf("box drawing or pictures:\n%s", coloured)
	}
	p.press("q")
	p.until("ended 0")
}
