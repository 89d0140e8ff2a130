package workload

import (
	"encoding/json"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/nstest"
	"torno.internal/protocol"
)

// runProbe runs the probe as the workload of a guest and returns what it found.
func runProbe(t *testing.T, user, what string) map[string]string {
	t.Helper()
	installProbe(t)
	h := newHost(t, strings.NewReader(""))
	exit := h.start(t.Context(), protocol.Workload{Argv: []string{"/tmp/probe", "probe", what}, User: user})()
	results := map[string]string{}
	if err := json.Unmarshal(h.out.Bytes(), &results); err != nil || exit.Code != 0 {
		t.Fatalf("probe: exit %v, stdout %q, stderr %q", exit, h.out.String(), h.err.String())
	}
	return results
}

func installProbe(t *testing.T) {
	t.Helper()
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	copied, err := os.OpenFile("/tmp/probe", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer copied.Close()
	if _, err := io.Copy(copied, self); err != nil {
		t.Fatal(err)
	}
}

// forUsers runs f as guest in namespaces, once for each user that a workload may be.
func forUsers(t *testing.T, f func(t *testing.T, user string)) {
	nstest.Run(t, func(t *testing.T) {
		asGuest(t)
		for _, user := range []string{protocol.UserAgent, protocol.UserRoot} {
			f(t, user)
		}
	})
}

// Attacks 1, 4 and 7: the workload opens AF_VSOCK itself, as agent and as root of its namespace, or
// listens where the host would be called.
func TestAttack01VsockFromWorkload(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		asGuest(t)
		// Positive control, with a family that is harmless here: without the filter it opens.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
		if err != nil {
			t.Fatalf("AF_PACKET without the filter: %v", err)
		}
		unix.Close(fd)
		for _, user := range []string{protocol.UserAgent, protocol.UserRoot} {
			got := runProbe(t, user, "sockets")
			want := map[string]string{"seccomp": "2", "control": "EAFNOSUPPORT", "bind 618": "ok", "pair 1": "ok"}
			if user == protocol.UserAgent {
				want["bind 618"] = "EACCES"
			}
			for family := range 64 {
				want[fmtInt(family)] = "EAFNOSUPPORT"
			}
			want["1"], want["2"], want["10"], want["16"] = "ok", "ok", "ok", "ESOCKTNOSUPPORT" // netlink has no streams
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: (-want +got):\n%s", user, diff)
			}
		}
	})
}

func fmtInt(n int) string { b, _ := json.Marshal(n); return string(b) }

// Attacks 2, 6 and 7: ways around the filter, and system calls that reach other processes or the kernel.
func TestAttack02ForbiddenCalls(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		got := runProbe(t, user, "calls")
		forAgent := map[string]string{"mount": "EPERM", "unshare user": "EPERM", "unshare net": "EPERM", "clone3": "ENOSYS", "clone user": "EPERM", "setns": "EPERM"}
		for _, name := range slices.Sorted(maps.Keys(got)) {
			want := "EPERM"
			if strings.HasPrefix(name, "io_uring") || name == "x32 socket" || name == "keyctl" {
				want = "ENOSYS"
			}
			if special, ok := forAgent[name]; ok {
				if user == protocol.UserRoot {
					continue // root may, in its namespace
				}
				want = special
			}
			if got[name] != want {
				t.Errorf("%s: %s: %s, want %s", user, name, got[name], want)
			}
		}
	})
}

// Attack 2: a 32-bit program has other system call numbers, among them socketcall. It is killed.
func TestAttack02ForeignArchitecture(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("a program for i386 needs an amd64 machine")
	}
	nstest.Run(t, func(t *testing.T) {
		if err := os.WriteFile("/tmp/i386", exit42, 0o755); err != nil {
			t.Fatal(err)
		}
		// Positive control: without the filter the program runs, where the kernel has 32-bit programs.
		err := exec.Command("/tmp/i386").Run()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != 42 {
			t.Skipf("this kernel runs no 32-bit programs (%v); CONFIG_IA32_EMULATION would", err)
		}
		for _, user := range []string{protocol.UserAgent, protocol.UserRoot} {
			h := newHost(t, strings.NewReader(""))
			exit := h.start(t.Context(), protocol.Workload{Argv: []string{"/tmp/i386"}, User: user})()
			if exit.Signal != "SYS" {
				t.Errorf("%s: exit %+v, want SYS", user, exit)
			}
		}
	})
}

// exit42 is an ELF32 program: mov eax, 1; mov ebx, 42; int 0x80.
var exit42 = []byte("\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x02\x00\x03\x00\x01\x00\x00\x00\x54\x80\x04\x08\x34\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x34\x00\x20\x00\x01\x00\x28\x00\x00\x00\x00\x00" +
	"\x01\x00\x00\x00\x00\x00\x00\x00\x00\x80\x04\x08\x00\x80\x04\x08\x60\x00\x00\x00\x60\x00\x00\x00\x05\x00\x00\x00\x00\x10\x00\x00" +
	"\xb8\x01\x00\x00\x00\xbb\x2a\x00\x00\x00\xcd\x80")

// Attacks 6 and 7: the guest's memory, environment and descriptors, the machine's memory and log, and
// switches of the kernel as a whole.
func TestAttack06Process1AndKernel(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		for name, got := range runProbe(t, user, "process1") {
			if name == "kill" || name == "kill 0" {
				continue
			}
			if user == protocol.UserRoot && (name == "/proc/1/task") {
				continue // root sees that process 1 is there
			}
			if got != "absent" && got != "refused" {
				t.Errorf("%s: %s: %s, want absent or refused", user, name, got)
			}
		}
	})
}

// Attack 6: killing process 1. The kernel drops the signal; we are process 1 and still here.
func TestAttack06KillProcess1(t *testing.T) {
	forUsers(t, func(t *testing.T, user string) {
		got := runProbe(t, user, "process1")
		if user == protocol.UserAgent && (got["kill"] != "EPERM" || got["kill 0"] != "EPERM") {
			t.Errorf("kill: %q, %q, want EPERM", got["kill"], got["kill 0"])
		}
	})
}

// Attack 6: inherited descriptors, environment, credentials, limits.
func TestAttack06InheritedState(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		asGuest(t)
		t.Setenv("LD_PRELOAD", "/tmp/evil.so") // of the guest, never the workload's
		// Descriptors of the guest that are open and not marked to close.
		for range 5 {
			if _, err := unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0); err != nil {
				t.Fatal(err)
			}
		}
		got := runProbe(t, protocol.UserAgent, "environment")
		want := map[string]string{
			"fd 0": "pipe", "fd 1": "pipe", "fd 2": "pipe",
			"env PATH": searchPath, "env HOME": "/home/agent", "env USER": "agent", "env LOGNAME": "agent", "env SHELL": Shell(),
			"CapInh": zeroCaps, "CapPrm": zeroCaps, "CapEff": zeroCaps, "CapBnd": zeroCaps, "CapAmb": zeroCaps,
			"NoNewPrivs": "1", "Seccomp": "2", "Uid": "1000 1000 1000 1000", "Gid": "1000 1000 1000 1000", "Groups": "1000",
			"core": "0 0", "leader": "true",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

const zeroCaps = "0000000000000000"

// TestConsole runs a workload without a run channel: its streams are the guest's.
func TestConsole(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		exit := Run(t.Context(), Config{Workload: shell("exit 6"), PID1: true, Log: slog.New(slog.DiscardHandler)})
		if exit.Code != 6 {
			t.Errorf("exit %+v, want 6", exit)
		}
	})
}
