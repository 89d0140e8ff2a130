package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"torno.internal/images/rootfs"
)

// vmProcesses returns how many QEMUs run below this test, which adopts those whose torno has ended
// (testMain): others on this machine have VMs of their own.
func vmProcesses(t *testing.T) int {
	t.Helper()
	n := 0
	for _, pid := range descendants(t, os.Getpid()) {
		if isVM(pid) {
			n++
		}
	}
	return n
}

// isVM reports whether a process is a QEMU that runs.
func isVM(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && strings.Contains(string(stat), " (qemu-system-x86) ") && !strings.Contains(string(stat), ") Z ")
}

// awaitVMs waits until as many QEMUs run as before.
func awaitVMs(t *testing.T, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); vmProcesses(t) != want; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d VMs run, want %d", vmProcesses(t), want)
		}
	}
}

// What is wrong before a VM can run is said, with what to do about it.
func TestVMBadBeginnings(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	images := filepath.Join(h.dir, "images")
	garbage := filepath.Join(h.dir, "garbage")
	if err := os.WriteFile(garbage, bytes.Repeat([]byte("no kernel "), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	image := func(name string, change func(m map[string]any)) {
		m := map[string]any{"name": name, "arch": "amd64", "filesystem": "ext4", "size": 4096}
		change(m)
		b, err := json.Marshal(m)
		if err == nil {
			err = os.MkdirAll(filepath.Join(images, name), 0o755)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(images, name, "image.json"), b, 0o644)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(images, name, "rootfs.img"), make([]byte, 4096), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	image("other", func(m map[string]any) { m["arch"] = "riscv64" })
	image("short", func(m map[string]any) { m["size"] = 8192 })
	image("zeros", func(map[string]any) {})
	place, err := rootfs.Place()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".kernels", "base"} {
		if err := os.Symlink(filepath.Join(place, name), filepath.Join(images, name)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		flags []string
		want  []string
	}{
		{"no image", []string{"--image", "nothing"}, []string{`image "nothing"`, "torno image build"}},
		{"bad name", []string{"--image", "../x"}, []string{"not an image's name"}},
		{"other machine's image", []string{"--image", "other"}, []string{"riscv64", "hint:"}},
		{"image cut short", []string{"--image", "short"}, []string{"damaged", "hint:"}},
		{"image without a file system", []string{"--image", "zeros"}, []string{"root: mounting the disk torno-root", "ext4"}},
		{"kernel that is none", []string{"--kernel", garbage}, []string{"not an x86 Linux kernel"}},
		{"kernel that is not there", []string{"--kernel", "/nowhere"}, []string{"no such file"}},
		{"memory", []string{"--memory", "lots"}, []string{"--memory", "hint:"}},
		{"little memory", []string{"--memory", "1M"}, []string{"hint: --memory"}},
		{"processors", []string{"--cpus", "1000"}, []string{"hint: --cpus"}},
		{"machine", []string{"--machine", "vax"}, []string{"hint: --machine"}},
	} {
		cmd := h.command(append(append([]string{"run", "--agent", "my-agent", "--trust-config"}, c.flags...), "--", "true")...)
		cmd.Env = append(cmd.Env, "TORNO_IMAGES="+images)
		out, err := cmd.CombinedOutput()
		if err == nil {
			t.Errorf("%s: no error", c.name)
		}
		for _, want := range c.want {
			if !strings.Contains(string(out), want) {
				t.Errorf("%s: no %q in %q", c.name, want, out)
			}
		}
	}
	noQEMU := h.command("run", "--agent", "my-agent", "--trust-config", "--", "true")
	noQEMU.Env = append(noQEMU.Env, "PATH=/nowhere")
	if out, err := noQEMU.CombinedOutput(); err == nil || !strings.Contains(string(out), "hint: apt-get install qemu-system-x86") {
		t.Errorf("without QEMU: %v, %q", err, out)
	}
	if out := h.must("sessions", "list"); strings.Contains(out, "waiting") {
		t.Errorf("sessions are left:\n%s", out)
	}
}

// A running is a torno run whose command has said "ready". Its standard input stays open until the test closes it.
type running struct {
	*exec.Cmd
	stdin          io.WriteCloser
	stdout, stderr *lockedBuffer
}

// startRun starts torno run and returns once its command has said "ready".
func (h *house) startRun(flags []string, script string) *running {
	h.t.Helper()
	args := append([]string{"run", "--agent", "my-agent", "--isolation", h.isolation(), "--trust-config"}, flags...)
	r := &running{Cmd: h.command(append(args, "--", "sh", "-c", script)...), stdout: &lockedBuffer{}, stderr: &lockedBuffer{}}
	r.Stdout, r.Stderr = r.stdout, r.stderr
	stdin, err := r.StdinPipe()
	if err == nil {
		err = r.Start()
	}
	if err != nil {
		h.t.Fatal(err)
	}
	r.stdin = stdin
	h.t.Cleanup(func() { _ = r.Process.Kill() })
	r.await(h.t, "ready", func(out string) bool { return strings.Contains(out, "ready") })
	return r
}

// await waits until what the command has written so far is as it should be.
func (r *running) await(t *testing.T, what string, ok func(stdout string) bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(r.stdout.String()); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("no %s: stdout %q, stderr %q", what, r.stdout, r.stderr)
		}
	}
}

// interrupt interrupts the run until it has ended. Two interrupts that come too soon after each other are one.
func (r *running) interrupt() {
	_ = r.Process.Signal(os.Interrupt)
	time.Sleep(200 * time.Millisecond)
	ended := make(chan struct{})
	go func() { _ = r.Wait(); close(ended) }()
	for {
		_ = r.Process.Signal(os.Interrupt)
		select {
		case <-ended:
			return
		case <-time.After(5 * time.Second):
		}
	}
}

// Attack 36: the broker is killed under a running VM. The session goes on with the next broker.
func TestVMAttack36BrokerKilled(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.startRun(nil, `echo ready; while :; do
curl -sS -m 20 -o /dev/null -w '%{http_code}\n' https://files.example.org/hello; sleep 0.2; done & cat; kill $!`)
	r.await(t, "answer", func(out string) bool { return strings.HasSuffix(out, "\n200\n") })
	if err := h.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = h.serve.Process.Wait()
	r.await(t, "refusal", func(out string) bool { return strings.Contains(out, "\n502\n") || strings.Contains(out, "\n503\n") })
	h.startBroker()
	r.await(t, "answer after a refusal", func(out string) bool { return strings.HasSuffix(out, "\n200\n") })
	_ = r.stdin.Close()
	if err := r.Wait(); err != nil {
		t.Errorf("%v: %s", err, r.stderr)
	}
	if r := h.torno("audit", "verify"); r.code != 0 {
		t.Errorf("the audit does not verify: %s", r.stderr)
	}
}

// Attack 36: torno run is killed, and so is QEMU: either takes the other along, and the session ends.
func TestVMAttack36Killed(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.startRun(nil, "echo ready; sleep 1000")
	if n := vmProcesses(t); n != 1 {
		t.Fatalf("%d VMs run beside one run: this test sees nothing", n)
	}
	if err := r.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = r.Wait()
	awaitVMs(t, 0)

	r = h.startRun(nil, "echo ready; sleep 1000")
	checkConfined(t, r.vm(t), r.Process.Pid)
	if err := syscall.Kill(r.vm(t), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = r.Wait()
	if code := r.ProcessState.ExitCode(); code != 125 || !strings.Contains(r.stderr.String(), "ended without saying how") {
		t.Errorf("exit %d, stderr %q", code, r.stderr)
	}
	awaitVMs(t, 0)
}

// checkConfined checks what a QEMU that torno started may still do: it has a user of its own, no capability, a
// seccomp filter and namespaces of its own.
func checkConfined(t *testing.T, qemu, torno int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", qemu))
	if err != nil {
		t.Fatal(err)
	}
	var user, namespaces string
	if os.Geteuid() == 0 {
		id := strconv.Itoa(0x70000000 + torno)
		user = strings.TrimSuffix(strings.Repeat(id+" ", 4), " ")
	} else {
		namespaces = "user"
	}
	for name, want := range map[string]string{
		"Uid": user, "Gid": user, "CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000", "CapAmb": "0000000000000000",
		"NoNewPrivs": "1", "Seccomp": "2",
	} {
		got, ok := cutLine(string(status), name+":")
		if got = strings.Join(strings.Fields(got), " "); !ok || want != "" && got != want {
			t.Errorf("QEMU's %s: %q, want %q", name, got, want)
		}
	}
	for _, name := range strings.Fields("net ipc uts pid mnt " + namespaces) {
		ours, err := os.Readlink("/proc/self/ns/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", qemu, name)); err != nil || theirs == ours {
			t.Errorf("QEMU's %s namespace: %s, %v; ours is %s", name, theirs, err, ours)
		}
	}
}

// The first ^C is the command's, the second ends everything at once.
func TestVMInterrupts(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.startRun(nil, `trap 'echo orderly; exit 3' INT; sleep 1000 & echo ready; wait`)
	_ = r.Process.Signal(os.Interrupt)
	_ = r.Wait()
	if code := r.ProcessState.ExitCode(); code != 3 || !strings.Contains(r.stdout.String(), "orderly") {
		t.Errorf("one interrupt: exit %d, %q, %q", code, r.stdout, r.stderr)
	}
	r = h.startRun(nil, `trap '' INT TERM; echo ready; sleep 1000`)
	began := time.Now()
	r.interrupt()
	if code := r.ProcessState.ExitCode(); code != 130 || time.Since(began) > patience {
		t.Errorf("two interrupts: exit %d after %v", code, time.Since(began))
	}
	awaitVMs(t, 0)
}

// A kernel that panics ends the run with what it said last. Root in the VM is real root, and still has no
// AF_VSOCK, no modules and no secret.
func TestVMAttack7Root(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	h.write("torno.toml", agentFile+"\n[workload]\nuser = \"root\"\n")
	file := filepath.Join(h.dir, "proof.json")
	r := h.runWith([]string{"--proof-file", file}, "/bin/sh", "-c", `id -u; echo x >/usr/x && cat /usr/x; chown 1000 /usr/x && su -s /bin/sh nobody -c 'id -un'
mount -t tmpfs none /mnt && echo mounted; unshare -U true && echo user namespace
python3 -c '
import socket, ctypes
for family in (40, 17):
    try: socket.socket(family, socket.SOCK_STREAM); print(family, "opened")
    except OSError: print(family, "refused")
libc = ctypes.CDLL(None)
for name, nr in (("finit_module", 313), ("kexec_load", 246), ("bpf", 321), ("io_uring_setup", 425)): print(name, "allowed" if libc.syscall(nr, 0, 0, 0) >= 0 else "refused")
'
curl -sS -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models
cat /proc/1/environ /proc/1/maps >/dev/null 2>&1 && echo looked into the guest; true`)
	want := "0\nx\nnobody\nmounted\nuser namespace\n40 refused\n17 refused\nfinit_module refused\nkexec_load refused\nbpf refused\nio_uring_setup refused\n200\n"
	if got := strings.TrimSuffix(r.stdout, "looked into the guest\n"); got != want {
		t.Errorf("exit %d, stdout %q, want %q (stderr %q)", r.code, r.stdout, want, r.stderr)
	}
	if proofs := readProofs(t, file); len(proofs) == 0 || proofs[len(proofs)-1].Outcome != "clean" {
		t.Errorf("proofs %+v", proofs)
	}
	r = h.run("/bin/sh", "-c", "echo c >/proc/sysrq-trigger; sleep 10")
	if r.code != 125 || !strings.Contains(r.stderr, "panic") {
		t.Errorf("a panic: exit %d, stderr %q", r.code, r.stderr)
	}
}

// Two VMs at once belong to two agents and do not see each other's secrets.
func TestVMTwoAtOnce(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	h.must("secrets", "set", "other-agent", "OPENAI_API_KEY="+openaiKey)
	first := h.startRun(nil, `echo ready; cat; curl -sS -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models`)
	elsewhere := filepath.Join(h.dir, "elsewhere")
	if err := os.Mkdir(elsewhere, 0o755); err != nil {
		t.Fatal(err)
	}
	other := h.command("run", "--agent", "other-agent", "--", "sh", "-c", `curl -sS -o /dev/null -w '%{http_code}\n' -d '{}' https://api.openai.com/v1/chat/completions
curl -sS -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models`)
	other.Dir = elsewhere
	out, err := other.Output()
	if err != nil || string(out) != "200\n403\n" {
		t.Errorf("the second: %v, %q", err, out)
	}
	_ = first.stdin.Close()
	if err := first.Wait(); err != nil || !strings.HasSuffix(first.stdout.String(), "200\n") {
		t.Errorf("the first: %v, %q, %q", err, first.stdout, first.stderr)
	}
}

// VMs in a loop leave nothing behind. TORNO_SOAK=1 makes it a hundred.
func TestVMLoop(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	n := 5
	if os.Getenv("TORNO_SOAK") != "" {
		n = 100
	}
	files := brokerFiles(t, h.serve.Process.Pid)
	for i := range n {
		if r := h.run("true"); r.code != 0 {
			t.Fatalf("run %d: exit %d, %s", i, r.code, r.stderr)
		}
	}
	awaitVMs(t, 0)
	if after := brokerFiles(t, h.serve.Process.Pid); after > files+4 {
		t.Errorf("the broker has %d descriptors, had %d", after, files)
	}
	if out := h.must("sessions", "list"); strings.Contains(out, "live") || strings.Contains(out, "waiting") {
		t.Errorf("sessions are left:\n%s", out)
	}
	left, err := filepath.Glob(filepath.Join(h.dir, "rt", "torno", "*"))
	if err != nil || len(left) != 1 {
		t.Errorf("in the runtime directory: %v, %v; want the control socket alone", left, err)
	}
}

func brokerFiles(t *testing.T, pid int) int {
	t.Helper()
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A lockedBuffer is a buffer that is read while a process writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
