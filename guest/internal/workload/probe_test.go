package workload

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// probe is what the workload tries in the attack tests: it prints what each attempt came to, as JSON.
func probe(what string) int {
	results := map[string]string{}
	switch what {
	case "sockets":
		probeSockets(results)
	case "calls":
		probeCalls(results)
	case "process1":
		probeProcess1(results)
	case "environment":
		probeEnvironment(results)
	}
	if json.NewEncoder(os.Stdout).Encode(results) != nil {
		return 1
	}
	return 0
}

// status returns one field of /proc/self/status.
func status(name string) string {
	data, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	if errno, ok := err.(syscall.Errno); ok {
		return unix.ErrnoName(errno)
	}
	return err.Error()
}

// probeSockets opens a socket of each family, but only under a filter that has proved itself with a
// family that is harmless: AF_VSOCK must never reach the kernel from a test.
func probeSockets(results map[string]string) {
	results["seccomp"] = status("Seccomp")
	_, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0)
	results["control"] = outcome(err)
	if results["seccomp"] != "2" || err != unix.EAFNOSUPPORT {
		return
	}
	for family := range 64 {
		_, err := unix.Socket(family, unix.SOCK_STREAM, 0)
		results[strconv.Itoa(family)] = outcome(err)
		if _, err := unix.Socketpair(family, unix.SOCK_STREAM, 0); err == nil {
			results["pair "+strconv.Itoa(family)] = "ok"
		}
	}
	listener, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrInet4{Port: 618})
	}
	results["bind 618"] = outcome(err)
}

// forbiddenCalls are tried with arguments that do no harm should they get through.
var forbiddenCalls = map[string]struct {
	nr   uintptr
	args [3]uintptr
}{
	"io_uring_setup":    {unix.SYS_IO_URING_SETUP, [3]uintptr{1, 0}},
	"io_uring_enter":    {unix.SYS_IO_URING_ENTER, [3]uintptr{^uintptr(0)}},
	"io_uring_register": {unix.SYS_IO_URING_REGISTER, [3]uintptr{^uintptr(0)}},
	"ptrace":            {unix.SYS_PTRACE, [3]uintptr{unix.PTRACE_ATTACH, 1}},
	"process_vm_readv":  {unix.SYS_PROCESS_VM_READV, [3]uintptr{1}},
	"process_vm_writev": {unix.SYS_PROCESS_VM_WRITEV, [3]uintptr{1}},
	"pidfd_getfd":       {unix.SYS_PIDFD_GETFD, [3]uintptr{^uintptr(0)}},
	"bpf":               {unix.SYS_BPF, [3]uintptr{^uintptr(0)}},
	"userfaultfd":       {unix.SYS_USERFAULTFD, [3]uintptr{^uintptr(0)}},
	"perf_event_open":   {unix.SYS_PERF_EVENT_OPEN, [3]uintptr{0}},
	"kexec_load":        {unix.SYS_KEXEC_LOAD, [3]uintptr{^uintptr(0), ^uintptr(0)}},
	"init_module":       {unix.SYS_INIT_MODULE, [3]uintptr{0}},
	"syslog":            {unix.SYS_SYSLOG, [3]uintptr{10}},
	"clock_settime":     {unix.SYS_CLOCK_SETTIME, [3]uintptr{^uintptr(0)}},
	"keyctl":            {unix.SYS_KEYCTL, [3]uintptr{^uintptr(0)}},
	"x32 socket":        {0x40000000 | unix.SYS_SOCKET, [3]uintptr{unix.AF_UNIX, unix.SOCK_STREAM}},
	"mount":             {unix.SYS_MOUNT, [3]uintptr{0}},
	"unshare user":      {unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWUSER}},
	"unshare net":       {unix.SYS_UNSHARE, [3]uintptr{unix.CLONE_NEWNET}},
	"clone3":            {unix.SYS_CLONE3, [3]uintptr{0}},
	"clone user":        {unix.SYS_CLONE, [3]uintptr{unix.CLONE_NEWUSER | unix.CLONE_THREAD, 0}}, // invalid together
	"setns":             {unix.SYS_SETNS, [3]uintptr{^uintptr(0)}},
}

func probeCalls(results map[string]string) {
	for name, c := range forbiddenCalls {
		_, _, errno := unix.Syscall(c.nr, c.args[0], c.args[1], c.args[2])
		results[name] = "ok"
		if errno != 0 {
			results[name] = unix.ErrnoName(errno)
		}
	}
	_, err := unix.IoctlGetInt(0, unix.TIOCSTI)
	results["TIOCSTI"] = outcome(err)
}

func probeProcess1(results map[string]string) {
	for _, name := range []string{"mem", "environ", "maps", "fd", "root/", "exe", "cwd/", "stack", "syscall", "auxv", "task", "ns/net", "map_files", "personality"} {
		_, err := os.ReadFile("/proc/1/" + name)
		if err != nil && strings.Contains(err.Error(), "is a directory") {
			_, err = os.ReadDir("/proc/1/" + name)
		}
		results["/proc/1/"+name] = kind(err)
	}
	for _, name := range []string{"/dev/mem", "/dev/kmem", "/dev/port", "/proc/kcore", "/dev/kmsg", "/proc/kmsg", "/proc/kpageflags", "/sys/kernel/debug/x", "/dev/vsock", "/dev/kvm", "/dev/fuse"} {
		f, err := os.OpenFile(name, os.O_RDWR, 0)
		if err == nil {
			f.Close()
		}
		results[name] = kind(err)
	}
	for _, name := range []string{"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/sys/kernel/mm/ksm/run"} {
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err == nil {
			f.Close()
		}
		results["write "+name] = kind(err)
	}
	results["kill"] = outcome(unix.Kill(1, unix.SIGKILL))
	results["kill 0"] = outcome(unix.Kill(1, 0))
}

func kind(err error) string {
	switch {
	case err == nil:
		return "ok"
	case os.IsNotExist(err):
		return "absent"
	case os.IsPermission(err), strings.Contains(err.Error(), "read-only"):
		return "refused"
	}
	return err.Error()
}

func probeEnvironment(results map[string]string) {
	entries, _ := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && !strings.Contains(target, "anon_inode") &&
			!strings.HasPrefix(target, "/sys/fs/cgroup/") { // both are the probe's own, of Go's runtime
			results["fd "+e.Name()] = strings.SplitN(target, ":", 2)[0]
		}
	}
	for _, e := range os.Environ() {
		key, value, _ := strings.Cut(e, "=")
		results["env "+key] = value
	}
	for _, name := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp", "Uid", "Gid", "Groups"} {
		results[name] = strings.Join(strings.Fields(status(name)), " ")
	}
	var core unix.Rlimit
	unix.Getrlimit(unix.RLIMIT_CORE, &core)
	results["core"] = fmt.Sprint(core.Cur, core.Max)
	sid, _ := unix.Getsid(0)
	results["leader"] = fmt.Sprint(sid == os.Getpid() && unix.Getpgrp() == sid)
}
