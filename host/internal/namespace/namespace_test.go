package namespace

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/awake"
)

// spec returns a Spec whose guest is this test binary with args.
func spec(t *testing.T, args ...string) (Spec, *bytes.Buffer) {
	t.Helper()
	ids, err := FindIDs()
	if err != nil {
		t.Skipf("no ids for namespaces: %v", err)
	}
	dir, err := os.MkdirTemp("", "tn")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	work, sockets := filepath.Join(dir, "work"), filepath.Join(dir, "s")
	for _, d := range []string{dir, work} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(sockets, 0o700); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(sockets, int(ids.Peer()), -1); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	return Spec{Guest: self, Args: args, Broker: sockets, Dir: work, IDs: ids, Log: &out}, &out
}

func start(t *testing.T, s Spec) *Process {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	p, err := Start(ctx, s)
	if err != nil {
		var h *Error
		if errors.As(err, &h) {
			t.Fatalf("%v (hint: %s)", err, h.Hint)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Kill(); <-p.Done() })
	return p
}

// look starts the probe and returns what it saw.
func look(t *testing.T, s Spec, out *bytes.Buffer) sight {
	t.Helper()
	code, err := start(t, s).Wait()
	if err != nil || code != 0 {
		t.Fatalf("the probe ended with %d, %v: %s", code, err, out)
	}
	var seen sight
	if err := json.Unmarshal(out.Bytes(), &seen); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return seen
}

func TestSight(t *testing.T) {
	s, out := spec(t, "probe")
	dir := filepath.Dir(s.Dir)
	state := filepath.Join(dir, "state")
	if err := os.Mkdir(state, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "file"), []byte("content"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(s.Dir, "file"), 0o666); err != nil { // whatever the umask is
		t.Fatal(err)
	}
	extra := t.TempDir()
	s.Mounts = []string{extra}
	ln, err := net.Listen("unix", filepath.Join(s.Broker, "b"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if os.Geteuid() == 0 {
		if err := os.Chown(filepath.Join(s.Broker, "b"), int(s.IDs.Peer()), -1); err != nil {
			t.Fatal(err)
		}
	}
	leak, err := unix.Dup(int(os.Stdin.Fd())) // a descriptor that some shell forgot to close
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	file := filepath.Join(s.Dir, "file")
	s.Args = append(s.Args, "/usr", "/usr/bin", "/etc", "/etc/passwd", "/etc/shadow", "/etc/ssl/private", "/tmp", "/var/tmp",
		"/run", "/dev/shm", "/sys", "/root/.ssh", state, dir, s.Dir, file, extra, "/run/torno/b", "/dev/ptmx", "/boot", "/lost+found")
	seen := look(t, s, out)

	if seen.PID != 1 || seen.UID != 0 || seen.GID != 0 || seen.SID != 1 {
		t.Errorf("process %d of session %d, user %d, group %d; want 1, 1, 0, 0", seen.PID, seen.SID, seen.UID, seen.GID)
	}
	if len(seen.Groups) > 0 {
		t.Errorf("groups %v", seen.Groups)
	}
	if !slices.Equal(seen.Ifaces, []string{"lo"}) {
		t.Errorf("network devices %q, want lo alone", seen.Ifaces)
	}
	if !slices.Equal(seen.Procs, []int{1}) {
		t.Errorf("/proc shows processes %v, want 1 alone", seen.Procs)
	}
	if len(seen.FDs) > 4 { // 0, 1, 2 and the directory being read
		t.Errorf("inherited descriptors %q", seen.FDs)
	}
	if len(seen.Home) > 0 {
		t.Errorf("/root holds %q", seen.Home)
	}
	if len(seen.Env) != 2 || seen.Env[0] != awake.Variable || !strings.HasPrefix(seen.Env[1], "PATH=") {
		t.Errorf("environment %q, want what is for Go's runtime and PATH alone", seen.Env)
	}
	for _, p := range []string{"/etc/shadow", "/etc/ssl/private", "/sys", "/root/.ssh", state, "/boot", "/lost+found"} {
		if seen.Exists[p] {
			t.Errorf("%s is in sight", p)
		}
	}
	for _, p := range []string{"/usr", "/usr/bin", "/etc/passwd", s.Dir, file, extra, "/dev/ptmx"} {
		if !seen.Exists[p] {
			t.Errorf("%s is not in sight", p)
		}
	}
	for _, p := range []string{"/usr", "/usr/bin", s.Dir, file, extra} {
		if !strings.Contains(seen.Writes[p], "read-only") {
			t.Errorf("writing %s: %q, want a read-only file system", p, seen.Writes[p])
		}
	}
	for _, p := range []string{"/etc", "/tmp", "/var/tmp", "/run", "/dev/shm"} {
		if seen.Writes[p] != "" {
			t.Errorf("writing %s: %s", p, seen.Writes[p])
		}
	}
	if seen.Reads[file] != "content" {
		t.Errorf("reading %s: %q", file, seen.Reads[file])
	}
	if e := seen.Connects["/run/torno/b"]; e != "" {
		t.Errorf("connecting to the broker's socket: %s", e)
	}
	t.Logf("root %q, dev %q, uid map %q", seen.Root, seen.Dev, seen.UIDMap)
}

// Namespaces share the kernel: nothing of the host's may change, even by who is root inside.
func TestAttack46Kernel(t *testing.T) {
	before := hostKernel(t)
	s, out := spec(t, "probe")
	seen := look(t, s, out)
	for act, err := range seen.Acts {
		if err == "" {
			t.Errorf("%s: succeeded", act)
		}
	}
	if len(seen.Acts) < 12 {
		t.Errorf("only %d acts were tried", len(seen.Acts))
	}
	if after := hostKernel(t); after != before {
		t.Errorf("the host's kernel changed:\n%s\nwas:\n%s", after, before)
	}
	if d := time.Since(started); d < 0 || d > time.Hour/2 {
		t.Errorf("the clock jumped by %v", d)
	}
}

var started = time.Now().Round(0) // wall clock

// hostKernel is what attack 46 is after.
func hostKernel(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, p := range []string{"sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/kernel/modules_disabled", "sys/kernel/kptr_restrict",
		"sys/kernel/sysrq", "sys/fs/file-max", "sys/kernel/hostname", "modules", "swaps"} {
		content, err := os.ReadFile("/proc/" + p)
		if p == "modules" || p == "swaps" { // what is in use of them changes by itself
			content = firstColumn(content)
		}
		fmt.Fprintf(&b, "%s: %q %v\n", p, content, err != nil)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(&b, "%d mounts\n", bytes.Count(mounts, []byte("\n")))
	return b.String()
}

func firstColumn(table []byte) []byte {
	var b []byte
	for line := range bytes.Lines(table) {
		name, _, _ := bytes.Cut(line, []byte(" "))
		b = append(append(b, name...), '\n')
	}
	return b
}

func TestExitCode(t *testing.T) {
	for _, want := range []int{0, 7, 255} {
		s, out := spec(t, "exit", strconv.Itoa(want))
		if code, err := start(t, s).Wait(); err != nil || code != want {
			t.Errorf("exit %d: got %d, %v: %s", want, code, err, out)
		}
	}
}

func TestKill(t *testing.T) {
	s, _ := spec(t, "wait")
	s.Log = io.Discard
	p := start(t, s)
	p.Kill()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("the guest outlives Kill")
	}
	if code, err := p.Wait(); err != nil || code == 0 {
		t.Errorf("killed: %d, %v", code, err)
	}
}

func TestContextEnds(t *testing.T) {
	s, _ := spec(t, "wait")
	ctx, cancel := context.WithCancel(t.Context())
	p, err := Start(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	select {
	case <-p.Done():
	case <-time.After(time.Minute):
		t.Fatal("the guest outlives its context")
	}
}

// TestParentDies kills the process that called Start: the guest must go with it.
func TestParentDies(t *testing.T) {
	if _, err := FindIDs(); err != nil {
		t.Skip(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "parent")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("stage 1 is not there: %v", err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for range 500 {
		if err := unix.Kill(pid, 0); err == unix.ESRCH || zombie(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the guest outlives the process that started it")
}

// zombie reports whether pid only waits to be reaped by whoever got it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(stat), ") Z ")
}

// parent starts a guest, says its stage's id and waits to be killed.
func parent() int {
	ids, err := FindIDs()
	if err != nil {
		return 1
	}
	self, _ := os.Executable()
	p, err := Start(context.Background(), Spec{Guest: self, Args: []string{"wait"}, IDs: ids})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(p.stage.Pid)
	time.Sleep(time.Minute)
	return 0
}

func TestRefusedDirectories(t *testing.T) {
	s, _ := spec(t, "exit", "0")
	hidden := filepath.Join(s.Dir, "a", "state")
	if err := os.MkdirAll(hidden, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(hidden, "audit"), 0o700); err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	s.Hidden, s.Home = []string{hidden, "/not/there"}, home
	file := filepath.Join(filepath.Dir(s.Dir), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		s.Dir: "would show", filepath.Dir(hidden): "would show", filepath.Join(hidden, "audit"): "would show", "/": "would show",
		"/tmp": "", "/var/tmp": "another one", home: "would show", "/not/there": "no such file",
		file: "not a directory",
	} {
		bad := s
		bad.Dir = dir
		p, err := Start(t.Context(), bad)
		if err == nil {
			p.Kill()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("directory %q: %v, want %q", dir, err, want)
		}
	}
}

func TestNoGuest(t *testing.T) {
	s, _ := spec(t)
	s.Guest = "/nowhere/torno-guest"
	_, err := Start(t.Context(), s)
	var h *Error
	if !errors.As(err, &h) || h.Hint == "" {
		t.Errorf("without torno-guest: %v, want a hint", err)
	}
	s.Guest = filepath.Join(s.Dir, "guest")
	if err := os.WriteFile(s.Guest, []byte("not a program"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err = Start(t.Context(), s); !errors.As(err, &h) || !strings.Contains(err.Error(), "exec format error") {
		t.Errorf("a guest that is no program: %v", err)
	}
}

// As a normal user, by newuidmap: the same sight, and root inside is the user outside.
func TestNormalUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("the other tests run as a normal user already")
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		t.Skip("needs newuidmap (try: apt install uidmap) and a user with subordinate ids")
	}
	uid, gid, ok := subordinateUser()
	if !ok {
		t.Skip("needs a user with a line in /etc/subuid and /etc/subgid")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(t.TempDir(), "test")
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(copied, b, 0o755); err != nil {
		t.Fatal(err)
	}
	for d := filepath.Dir(copied); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(copied, "-test.run=TestSight|TestAttack46|TestExitCode|TestKill|TestParentDies", "-test.v")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestSight")) {
		t.Errorf("as user %d: %v\n%s", uid, err, out)
	}
}
