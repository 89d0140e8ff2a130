package main_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/host/internal/workspace"
)

// project is a directory that is worked in, apart from the house's own.
func (h *house) project(files map[string]string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, "project")
	if err := os.RemoveAll(dir); err != nil {
		h.t.Fatal(err)
	}
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			h.t.Fatal(err)
		}
	}
	return dir
}

// holds checks what files hold; "" stands for one that is not there.
func holds(t *testing.T, dir string, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	for name := range want {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
		got[name] = string(b)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// keptID returns the workspace that is kept, or "".
func (h *house) keptID() string {
	h.t.Helper()
	return regexp.MustCompile(`[0-9]{8}-[0-9]{6}-[0-9a-f]{6}`).FindString(h.must("workspace", "list"))
}

// In and back: the command works in its own copy at the same path, and its changes come back however it ends.
func TestWorkspace(t *testing.T) {
	h := newAgentHouse(t)
	dir := h.project(map[string]string{"main.py": "print(1)\n", "old": "old", "sub/data": "data", "torno.toml": agentFile})
	r := h.runWith([]string{"--workspace", dir}, "sh", "-c", `pwd; id -un; cat sub/data; echo 'print(2)' >main.py; rm old; mkdir new; echo x >new/file; chmod +x new/file
ln -s main.py link; ln -s /etc/passwd out; mkfifo pipe; echo evil >.envrc; mkdir -p .git/hooks; echo evil >.git/hooks/post-checkout; exit 7`)
	if r.code != 7 || r.stdout != dir+"\nagent\ndata" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	holds(t, dir, map[string]string{"main.py": "print(2)\n", "old": "", "new/file": "x\n", "link": "print(2)\n", "out": "", "pipe": "", ".envrc": "", ".git/hooks/post-checkout": "",
		".torno-review/.envrc": "evil\n", ".torno-review/.git/hooks/post-checkout": "evil\n"})
	for _, want := range []string{"held for review in .torno-review: .envrc (direnv runs it", ".git/hooks/post-checkout (git runs it", "not copied back: out (it is a link to /etc/passwd",
		"not copied back: pipe", "hint: this machine would run these"} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("no %q in %q", want, r.stderr)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "new/file")); err != nil || info.Mode().Perm() != 0o755 {
		t.Errorf("%v, %v", info, err)
	}
	r = h.runWith([]string{"--workspace", dir, "--accept-host-code"}, "sh", "-c", `[ -e .torno-review ] && echo leak; echo mine >.envrc; kill -KILL $$`)
	if r.code != 137 || r.stdout != "" {
		t.Errorf("a command that is killed: exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	holds(t, dir, map[string]string{".envrc": "mine\n"})
	if id := h.keptID(); id != "" {
		t.Errorf("%s is kept though all came back", id)
	}
}

// What has changed here meanwhile stays; interrupts lose nothing.
func TestWorkspaceMeanwhile(t *testing.T) {
	h := newAgentHouse(t)
	for name, c := range map[string]struct {
		script     string
		interrupts int
		code       int
	}{
		"ends":          {`echo theirs >a; echo theirs >b; echo ready; exec sleep 100`, 1, 130},
		"one interrupt": {`trap 'echo late >c; exit 4' INT; echo theirs >a; echo theirs >b; sleep 100 & echo ready; wait`, 1, 4},
		"two":           {`trap '' INT TERM; echo theirs >a; echo theirs >b; echo late >c; echo ready; while :; do sleep 100; done`, 2, 137},
	} {
		dir := h.project(map[string]string{"a": "1", "b": "2", "torno.toml": agentFile})
		cmd := h.startRun([]string{"--workspace", dir}, c.script)
		if err := os.WriteFile(filepath.Join(dir, "a"), []byte("mine"), 0o644); err != nil {
			t.Fatal(err)
		}
		for range c.interrupts {
			_ = cmd.Process.Signal(os.Interrupt)
			time.Sleep(300 * time.Millisecond)
		}
		_ = cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != c.code || !strings.Contains(cmd.stderr.String(), "changed on both sides: a ") {
			t.Errorf("%s: exit %d, stderr %q", name, code, cmd.stderr)
		}
		late := "late\n"
		if name == "ends" {
			late = ""
		}
		holds(t, dir, map[string]string{"a": "mine", "a.torno-conflict": "theirs\n", "b": "theirs\n", "c": late})
	}
}

// Attack 43, end to end: the workload writes every file that the table of host code is about, in every kind of
// directory. None arrives where it would be executed; what is beside them does.
func TestAttack43CopyBack(t *testing.T) {
	h := newAgentHouse(t)
	dir := h.project(map[string]string{"torno.toml": agentFile, "kept": "1", ".git/config": "[core]\n\thooksPath = tools/hooks\n", "tools/hooks/pre-commit": "mine"})
	names := []string{".git/hooks/post-checkout", ".git/config", ".git/modules/m/config", "tools/hooks/pre-commit", "torno.toml", "sub/.GIT/hooks/x", "sub/.git\u200c/config"}
	example := strings.NewReplacer("/**/", "/some/where/", "**", "some/thing", "*", "x")
	for _, row := range workspace.HostCode {
		names = append(names, "deep/"+example.Replace(row.Pattern))
	}
	var script strings.Builder
	for i, name := range names {
		fmt.Fprintf(&script, "mkdir -p \"$(dirname '%[1]s')\" && echo evil >'%[1]s' && chmod +x '%[1]s' && echo new >\"$(dirname '%[1]s')/harmless%[2]d\" || echo cannot '%[1]s'\n", name, i)
	}
	script.WriteString("ln -s .git via; echo evil >via/hooks/through; printf new >\"$(printf 'esc\\033[2Jape\\nline')\"; ln -s ../../../etc/passwd climb; rm kept")
	h.write("script.sh", script.String())
	cmd := h.command("run", "--agent", "my-agent", "--isolation", h.isolation(), "--trust-config", "--workspace", dir, "--mount-ro", h.work, "--", "sh", filepath.Join(h.work, "script.sh"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Contains(string(out), "cannot") {
		t.Fatalf("%v: %s", err, out)
	}
	for _, name := range append(names, ".git/hooks/through") {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil && string(b) == "evil\n" {
			t.Errorf("%q is in place", name)
		}
		held, err := os.Stat(filepath.Join(dir, workspace.ReviewDir, name))
		if err != nil || held.Mode().Perm() != 0o600 {
			t.Errorf("%q is not held as it should be: %v, %v", name, held, err)
		}
	}
	arrived := 0
	err = filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if strings.Contains(path, "/harmless") && !strings.Contains(path, workspace.ReviewDir) {
			arrived++
		}
		return err
	})
	if err != nil || arrived < 60 {
		t.Errorf("%d of the files beside arrived, %v", arrived, err)
	}
	if strings.Contains(string(out), "\x1b[2J") {
		t.Error("an escape code is printed")
	}
	if b, err := os.ReadFile(filepath.Join(dir, "esc\x1b[2Jape\nline")); err != nil || string(b) != "new" {
		t.Errorf("the odd name: %q, %v", b, err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "climb")); err == nil {
		t.Error("a link that leads outside is in place")
	}
	holds(t, dir, map[string]string{"kept": "", "torno.toml": agentFile, "tools/hooks/pre-commit": "mine"})
}

// A published port leads to a server inside, and nowhere but from the loopback address; one that is taken is an error.
func TestPublish(t *testing.T) {
	h := newAgentHouse(t)
	testPublish(t, h, nil)
	for flag, want := range map[string]string{"0": "--publish 8080", "x": "--publish 8080", "70000": "--publish 8080", "1:0": "--publish 8080", "1:2:3": "--publish 8080"} {
		if r := h.runWith([]string{"--publish", flag}, "true"); r.code != 2 || !strings.Contains(r.stderr, "hint: "+want) {
			t.Errorf("--publish %s: exit %d, %q", flag, r.code, r.stderr)
		}
	}
}

// testPublish runs a server and asks it, and for more with flags.
func testPublish(t *testing.T, h *house, flags []string) {
	t.Helper()
	cmd := h.startRun(append(flags, "--publish", "0:8080", "--publish", "0:8081"), `python3 -c '
import http.server, threading
class H(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        b = self.rfile.read(int(self.headers["content-length"])); self.send_response(200); self.end_headers(); self.wfile.write(b.upper())
    def log_message(self, *a): pass
s = http.server.ThreadingHTTPServer(("127.0.0.1", 8080), H); print("ready", flush=True); s.serve_forever()'`)
	ports := regexp.MustCompile(`http://127\.0\.0\.1:([0-9]+) leads to port (808[01]) inside`).FindAllStringSubmatch(cmd.stderr.String(), -1)
	if len(ports) != 2 {
		t.Fatalf("%q", cmd.stderr)
	}
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	big := strings.Repeat("a", 1<<20)
	for range 3 {
		resp, err := client.Post("http://127.0.0.1:"+ports[0][1]+"/", "text/plain", strings.NewReader(big))
		if err != nil {
			t.Fatalf("%v; %q, %q", err, cmd.stdout, cmd.stderr)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(b) != strings.ToUpper(big) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
	if _, err := client.Get("http://127.0.0.1:" + ports[1][1] + "/"); err == nil {
		t.Error("where nobody listens inside there is an answer")
	}
	listening, err := exec.Command("sh", "-c", "cat /proc/net/tcp | awk '$4==\"0A\"{print $2}'").Output()
	var port int
	_, _ = fmt.Sscan(ports[0][1], &port)
	if hex := fmt.Sprintf(":%04X", port); err != nil || !strings.Contains(string(listening), "0100007F"+hex) || strings.Contains(string(listening), "00000000"+hex) {
		t.Errorf("listens elsewhere: %s", listening)
	}
	if r := h.runWith([]string{"--publish", ports[0][1]}, "true"); r.code != 125 || !strings.Contains(r.stderr, "is taken") || !strings.Contains(r.stderr, "hint: --publish 0:") {
		t.Errorf("a taken port: exit %d, %q", r.code, r.stderr)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
}
