package main_test

import (
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A machine with PCI boots as well. The VM's clock is right at once, and after it was paused; and so are
// certificates.
func TestVMQ35AndClock(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	r := h.startRun([]string{"--machine", "q35"}, `test -d /sys/bus/pci/devices/0000:00:00.0 && echo PCI; echo ready
while read -r _; do date +%s.%N; done
curl -sS https://files.example.org/hello`)
	if !strings.Contains(r.stdout.String(), "PCI\n") {
		t.Errorf("no PCI: %q", r.stdout)
	}
	asked := 0
	ask := func() { // writes one line, whose answer is the time
		asked++
		if _, err := io.WriteString(r.stdin, "\n"); err != nil {
			t.Fatal(err)
		}
	}
	answers := func() []string {
		_, after, _ := strings.Cut(r.stdout.String(), "ready\n")
		return strings.Split(after, "\n")
	}
	check := func(when string, since time.Time) {
		t.Helper()
		r.await(t, "time", func(string) bool { return len(answers()) > asked })
		var seconds float64
		if _, err := fmt.Sscan(answers()[asked-1], &seconds); err != nil {
			t.Fatalf("%s: %v in %q", when, err, r.stdout)
		}
		const slack = 500 * time.Millisecond
		inside, now := time.UnixMicro(int64(seconds*1e6)), time.Now()
		if inside.Before(since.Add(-slack)) || inside.After(now.Add(slack)) {
			t.Errorf("%s it was %v inside, %v to %v here", when, inside, since, now)
		}
	}
	began := time.Now()
	ask()
	check("at first", began)
	id := strings.Fields(lastLine(h.must("sessions", "list")))[0]
	shown := h.must("sessions", "show", id)
	for _, want := range []string{"machine    q35 by ", "image base, kernel ", "-cloud-amd64, 2048 MiB, 1 vCPU", "isolation  microvm"} {
		if !strings.Contains(shown, want) {
			t.Errorf("no %q in what is shown of the session:\n%s", want, shown)
		}
	}

	qemu := r.vm(t)
	if err := syscall.Kill(qemu, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	ask()
	time.Sleep(5 * time.Second)
	if n := len(answers()); n > asked {
		t.Errorf("%d answers of a machine that is paused", n-1)
	}
	resumed := time.Now()
	if err := syscall.Kill(qemu, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	check("after a pause", resumed)
	_ = r.stdin.Close()
	if err := r.Wait(); err != nil || !strings.HasSuffix(r.stdout.String(), "ok GET /hello\n") {
		t.Errorf("%v, stdout %q, stderr %q", err, r.stdout, r.stderr)
	}
	if shown := h.must("sessions", "show", id); !strings.Contains(shown, "\nconsole\n  ") || !strings.Contains(shown, "reboot: Restarting system") {
		t.Errorf("no console in what is shown of the session:\n%s", shown)
	}
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// vm returns the process id of the run's QEMU.
func (r *running) vm(t *testing.T) int {
	t.Helper()
	for _, pid := range descendants(t, r.Process.Pid) {
		if isVM(pid) {
			return pid
		}
	}
	t.Fatal("no QEMU")
	return 0
}

// The guest's memory: 16 MiB at most once the command runs, and 64 KiB for each connection beyond.
func TestVMGuestMemory(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	h.write("torno.toml", agentFile+"\n[workload]\nuser = \"root\"\n")
	r := h.run("/usr/bin/python3", "-c", `import socket, ssl
def resident():
    return next(int(l.split()[1]) for l in open("/proc/1/status") if l.startswith("VmRSS"))
print(resident())
context, held = ssl.create_default_context(), []
for i in range(100):
    s = context.wrap_socket(socket.create_connection(("files.example.org", 443)), server_hostname="files.example.org")
    s.sendall(b"GET /hello HTTP/1.1\r\nhost: files.exam")
    held.append(s)
print(resident())
for s in held: s.sendall(b"ple.org\r\nconnection: close\r\n\r\n")
print(sum(b"ok GET /hello" in b"".join(iter(lambda: s.recv(65536), b"")) for s in held))`)
	var idle, held, answered int
	if _, err := fmt.Sscan(r.stdout, &idle, &held, &answered); err != nil {
		t.Fatalf("%v: exit %d, stdout %q, stderr %q", err, r.code, r.stdout, r.stderr)
	}
	t.Logf("%d KiB, and %d KiB for each of 100 TLS connections", idle, (held-idle)/100)
	if idle > 16<<10 || held-idle > 100*64 || idle < 2<<10 {
		t.Errorf("the guest has %d KiB, with 100 connections %d KiB; want at most %d, and 64 for each", idle, held, 16<<10)
	}
	if answered != 100 {
		t.Errorf("%d of 100 connections got their answer", answered)
	}
}
