package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// vmProcesses returns how many QEMUs run.
func vmProcesses(t *testing.T) int {
	t.Helper()
	out, _ := exec.Command("pgrep", "-c", "-x", "qemu-system-x86").Output() // exits with 1 where there is none
	var n int
	if _, err := fmt.Sscan(string(out), &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// awaitVMs waits until as many QEMUs run as before.
func awaitVMs(t *testing.T, want int) {
	t.Helper()
	for range 100 {
		if vmProcesses(t) == want {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d VMs run, want %d", vmProcesses(t), want)
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
	for _, name := range []string{".kernels", "base"} {
		if err := os.Symlink("/var/lib/torno/images/"+name, filepath.Join(images, name)); err != nil {
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

// startRun starts torno run and returns once its command has said "ready".
func (h *house) startRun(flags []string, script string) (*exec.Cmd, *lockedBuffer, *lockedBuffer) {
	h.t.Helper()
	args := append([]string{"run", "--agent", "my-agent", "--isolation", h.isolation(), "--trust-config"}, flags...)
	cmd := h.command(append(args, "--", "sh", "-c", script)...)
	stdout, stderr := &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = cmd.Process.Kill() })
	for range 600 {
		if strings.Contains(stdout.String(), "ready") {
			return cmd, stdout, stderr
		}
		time.Sleep(50 * time.Millisecond)
	}
	h.t.Fatalf("no ready: %q, %q", stdout, stderr)
	return nil, nil, nil
}

// Attack 36: the broker is killed under a running VM. The session goes on with the next broker.
func TestVMAttack36BrokerKilled(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	cmd, stdout, stderr := h.startRun(nil, `echo ready; n=0; while [ $n -lt 60 ]; do
curl -sS -m 5 -o /dev/null -w '%{http_code}\n' https://files.example.org/hello; n=$((n+1)); sleep 0.2; done`)
	time.Sleep(2 * time.Second)
	if err := h.serve.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = h.serve.Process.Wait()
	time.Sleep(time.Second)
	h.startBroker()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, stderr)
	}
	codes := strings.Fields(stdout.String())
	if first, last := codes[1], codes[len(codes)-1]; first != "200" || last != "200" || !strings.Contains(stdout.String(), "50") {
		t.Errorf("statuses %v: want 200 at first and at last, and 502 or 503 in between", codes)
	}
	if r := h.torno("audit", "verify"); r.code != 0 {
		t.Errorf("the audit does not verify: %s", r.stderr)
	}
}

// Attack 36: torno run is killed, and so is QEMU: either takes the other along, and the session ends.
func TestVMAttack36Killed(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	before := vmProcesses(t)
	cmd, _, _ := h.startRun(nil, "echo ready; sleep 100")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	awaitVMs(t, before)

	cmd, _, stderr := h.startRun(nil, "echo ready; sleep 100")
	if out, err := exec.Command("pkill", "-KILL", "-P", fmt.Sprint(cmd.Process.Pid), "-x", "qemu-system-x86").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(stderr.String(), "ended without saying how") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	awaitVMs(t, before)
}

// The first ^C is the command's, the second ends everything at once.
func TestVMInterrupts(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	cmd, stdout, stderr := h.startRun(nil, `trap 'echo orderly; exit 3' INT; sleep 100 & echo ready; wait`)
	_ = cmd.Process.Signal(os.Interrupt)
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 3 || !strings.Contains(stdout.String(), "orderly") {
		t.Errorf("one interrupt: exit %d, %q, %q", code, stdout, stderr)
	}
	cmd, _, _ = h.startRun(nil, `trap '' INT TERM; echo ready; sleep 100`)
	_ = cmd.Process.Signal(os.Interrupt)
	time.Sleep(100 * time.Millisecond)
	_ = cmd.Process.Signal(os.Interrupt)
	began := time.Now()
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 130 || time.Since(began) > 3*time.Second {
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
	cmd, stdout, stderr := h.startRun(nil, `echo ready; sleep 4; curl -sS -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models`)
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
	if err := cmd.Wait(); err != nil || !strings.HasSuffix(stdout.String(), "200\n") {
		t.Errorf("the first: %v, %q, %q", err, stdout, stderr)
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
	before, files := vmProcesses(t), brokerFiles(t, h.serve.Process.Pid)
	for i := range n {
		if r := h.run("true"); r.code != 0 {
			t.Fatalf("run %d: exit %d, %s", i, r.code, r.stderr)
		}
	}
	awaitVMs(t, before)
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
