package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"torno.internal/images/rootfs"
)

// vmmUser is whom the VMM runs as: neither root nor the broker's user.
const vmmUser = 54321

// newPlatform is newAgentHouse with a place for images of its own, beside this machine's: each build of the guest
// makes another initrd.
func newPlatform(t *testing.T) *house {
	t.Helper()
	place, err := rootfs.Place()
	if err != nil {
		t.Fatal(err)
	}
	h := newAgentHouse(t)
	dir := filepath.Join(h.dir, "images")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".kernels", rootfs.Base, systemdImage} { // of the last there may be none
		if err := os.Symlink(filepath.Join(place, name), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("TORNO_IMAGES", dir)
	return h
}

// vmmDir makes a directory for one VM, which belongs to the VMM's user.
func (h *house) vmmDir(name string) string {
	h.t.Helper()
	dir := filepath.Join(h.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Chown(dir, vmmUser, vmmUser); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// A vmPlanned is what torno vm config prints as JSON.
type vmPlanned struct {
	Session   string          `json:"session"`
	Socket    string          `json:"socket"`
	Config    json.RawMessage `json:"config"`
	Arguments []string        `json:"arguments"`
}

// vmConfig asks for a VM of the VMM's user at dir/v, and a session for it.
func (h *house) vmConfig(kind, dir string, more ...string) vmPlanned {
	h.t.Helper()
	p := h.vmConfigFor(kind, dir, more...)
	if p.Session == "" || p.Socket != "hybrid://"+filepath.Join(dir, "v") {
		h.t.Fatalf("session %q at %q", p.Session, p.Socket)
	}
	return p
}

// vmConfigFor asks for a VM of the VMM's user at dir/v.
func (h *house) vmConfigFor(kind, dir string, more ...string) vmPlanned {
	h.t.Helper()
	args := slices.Concat([]string{"vm", "config", kind, "--agent", "my-agent", "--trust-config", "--json", "--memory", "512M",
		"--socket", filepath.Join(dir, "v"), "--uid", fmt.Sprint(vmmUser)}, more)
	var p vmPlanned
	if err := json.Unmarshal([]byte(h.must(args...)), &p); err != nil {
		h.t.Fatal(err)
	}
	return p
}

// A standInVM is a running stand-in.
type standInVM struct {
	cmd     *exec.Cmd
	console *lockedBuffer
	ended   chan error
}

// startVM starts the VM in the stand-in for its VMM, as the VMM's user.
func (h *house) startVM(kind, dir string, p vmPlanned) *standInVM {
	h.t.Helper()
	args := append([]string{standIn, kind}, p.Arguments...)
	if kind == "firecracker" {
		file := filepath.Join(dir, "vm.json")
		if err := os.WriteFile(file, p.Config, 0o644); err != nil {
			h.t.Fatal(err)
		}
		args = append(args, "--no-api", "--config-file", file)
	}
	self := filepath.Join(h.dir, "vmm")
	if _, err := os.Stat(self); err != nil {
		if err := copySelf(self); err != nil {
			h.t.Fatal(err)
		}
	}
	vm := &standInVM{cmd: exec.Command(self, args...), console: &lockedBuffer{}, ended: make(chan error, 1)}
	vm.cmd.Stdout, vm.cmd.Stderr, vm.cmd.Dir = vm.console, vm.console, "/"
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: vmmUser, Gid: vmmUser, Groups: []uint32{}}, Pdeathsig: syscall.SIGKILL}
	if err := vm.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() { vm.ended <- vm.cmd.Wait() }()
	h.t.Cleanup(func() { _ = vm.cmd.Process.Kill() })
	return vm
}

// await waits until the console says what, or the VM ends.
func (vm *standInVM) await(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(90 * time.Second); !strings.Contains(vm.console.String(), what); time.Sleep(50 * time.Millisecond) {
		if len(vm.ended) > 0 && !strings.Contains(vm.console.String(), what) || time.Now().After(deadline) {
			t.Fatalf("the console never says %q:\n%s", what, vm.console)
		}
	}
}

// lines returns what the workload said: the lines of the console that begin with "> ".
func (vm *standInVM) lines() (lines []string) {
	for l := range strings.Lines(vm.console.String()) {
		if said, ok := strings.CutPrefix(strings.TrimRight(l, "\r\n"), "> "); ok {
			lines = append(lines, said)
		}
	}
	return lines
}

// pretender is what a workload tries that wants to be taken for the host, or for the guest (attack 4). Its last
// line is an exchange, which must still be the broker's.
const pretender = `import ctypes, os, socket, subprocess
def say(*words): print(">", *words, flush=True)
def tries(what, f):
    try:
        f(); say(what, "allowed")
    except OSError as e:
        say(what, "refused")
say("uid", os.getuid())
tries("AF_VSOCK", lambda: socket.socket(40, socket.SOCK_STREAM))
tries("AF_VSOCK datagrams", lambda: socket.socket(40, socket.SOCK_DGRAM))
def module():
    if ctypes.CDLL(None, use_errno=True).syscall(313, os.open("/bin/true", os.O_RDONLY), b"", 0) < 0: raise OSError
tries("a module, such as vsock_loopback", module)
tries("/dev/vsock", lambda: os.open("/dev/vsock", os.O_RDONLY))
def listen(port):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); s.bind(("0.0.0.0", port)); s.listen()
    listeners.append(s)
listeners = []
tries("port 618", lambda: listen(618))
r = subprocess.run(["curl", "-sS", "-w", " %{http_code}", "https://api.anthropic.com/v1/models"], capture_output=True, text=True)
say("exchange", r.stdout.split()[-1:], r.stderr.strip())
say("done")
`

// A VM of Firecracker's that the configuration describes is served, over a socket that belongs to its VMM's
// user, and so is one of Cloud Hypervisor's. Attack 4: neither its workload nor, in the other, root takes the
// host's place.
func TestVMOtherVMMs(t *testing.T) {
	needVM(t)
	h := newPlatform(t)
	for kind, c := range map[string]struct{ user, want string }{
		"firecracker":      {"agent", "uid 1000;AF_VSOCK refused;AF_VSOCK datagrams refused;a module, such as vsock_loopback refused;/dev/vsock refused;port 618 refused;exchange ['200'];done"},
		"cloud-hypervisor": {"root", "uid 0;AF_VSOCK refused;AF_VSOCK datagrams refused;a module, such as vsock_loopback refused;/dev/vsock refused;port 618 allowed;exchange ['200'];done"},
	} {
		dir := h.vmmDir(kind)
		h.write("torno.toml", agentFile+"\n[workload]\nuser = \""+c.user+"\"\n")
		p := h.vmConfig(kind, dir, "--", "python3", "-c", pretender)
		vm := h.startVM(kind, dir, p)
		vm.await(t, "> done")
		var said []string
		for _, l := range vm.lines() {
			said = append(said, strings.TrimSpace(l))
		}
		if got := strings.Join(said, ";"); got != c.want {
			t.Errorf("%s: the workload says\n%s, want\n%s", kind, got, c.want)
		}
		show := h.must("sessions", "show", p.Session)
		for _, want := range []string{
			fmt.Sprintf("identity   the VMM's socket %s/v, peer uid %d\n", dir, vmmUser), "contained  no network but torno\n", "requests   2, 1 refused\n",
		} {
			if !strings.Contains(show, want) {
				t.Errorf("%s: no %q in\n%s", kind, want, show)
			}
		}
		select {
		case <-vm.ended: // the guest ended the machine with its workload
		case <-time.After(30 * time.Second):
			t.Errorf("%s: the machine does not end:\n%s", kind, vm.console)
		}
		h.must("sessions", "revoke", p.Session)
		if _, err := os.Lstat(filepath.Join(dir, "v_618")); err == nil {
			time.Sleep(time.Second)
			if _, err := os.Lstat(filepath.Join(dir, "v_618")); err == nil {
				t.Errorf("%s: the socket outlives its session", kind)
			}
		}
	}
}
