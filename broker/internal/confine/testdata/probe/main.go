// Probe tries what a confined program must not be able to do, and prints what it could.
package main

import (
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Found is what the probe found out.
type Found struct {
	UID, PPID   int
	Env         []string
	Descriptors []int    // that are open, beside the standard ones
	Terminal    bool     // there is one
	Root        []string // names in the root directory that exist
	Read        []string // of paths that were to be tried
	Write       []string
	Run         []string
	Unix, TCP   string // errors of connecting; empty: connected
	Datagram    string
	Listen      string
	Caps        uint32
	NoNewPrivs  bool
	Dumpable    int
	Calls       []string // system calls that should have been refused
	Hostname    string
}

func main() {
	var f Found
	switch os.Getenv("PROBE") {
	case "memory":
		debug.SetGCPercent(-1)
		var all [][]byte
		for range 4096 {
			b := make([]byte, 1<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
		}
		os.Stdout.WriteString(strings.Repeat("x", len(all)/4096))
		return
	case "wait":
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Hour)
	case "child": // leaves a process behind that holds the pipes
		cmd := exec.Command("/bin/sleep", "3600")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			os.Stdout.WriteString(err.Error() + "\n")
			return
		}
		os.Stdout.WriteString("ready\n")
		time.Sleep(time.Hour)
	}
	f.UID, f.PPID, f.Env = os.Getuid(), os.Getppid(), os.Environ()
	f.Hostname, _ = os.Hostname()
	for fd := 3; fd < 256; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			var st unix.Stat_t
			if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT != 0 { // else the runtime's own epoll and eventfd
				f.Descriptors = append(f.Descriptors, fd)
			}
		}
	}
	if tty, err := os.Open("/dev/tty"); err == nil {
		tty.Close()
		f.Terminal = true
	}
	if info, err := os.Stdin.Stat(); err == nil {
		_, err := unix.IoctlGetTermios(0, unix.TCGETS)
		f.Terminal = f.Terminal || err == nil
		_ = info
	}
	for _, name := range []string{"bin", "dev", "etc", "home", "lib", "proc", "root", "run", "sys", "tmp", "usr", "var"} {
		if _, err := os.Lstat("/" + name); err == nil { // which landlock does not hide
			f.Root = append(f.Root, name)
		}
	}
	files(&f)
	sockets(&f)
	calls(&f)
	_ = json.NewEncoder(os.Stdout).Encode(f)
}

// files tries the paths in PROBE_PATHS, and some more.
func files(f *Found) {
	for _, path := range append(strings.Split(os.Getenv("PROBE_PATHS"), ":"), "/etc/passwd", "/proc/1/environ", "/proc/self/status", "/root", "/home", "/sys/kernel") {
		if file, err := os.Open(path); err == nil {
			var b [1]byte
			if _, err := file.Read(b[:]); err == nil || !strings.Contains(err.Error(), "permission") {
				f.Read = append(f.Read, path)
			}
			file.Close()
		}
		if err := os.WriteFile(path+"/probe", nil, 0o600); err == nil {
			f.Write = append(f.Write, path)
			os.Remove(path + "/probe")
		}
	}
	for _, program := range []string{"/bin/true", "/usr/bin/true"} {
		if exec.Command(program).Run() == nil {
			f.Run = append(f.Run, program)
		}
	}
}

func sockets(f *Found) {
	try := func(network, address string) string {
		c, err := net.DialTimeout(network, address, time.Second)
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	}
	f.Unix, f.TCP, f.Datagram = try("unix", os.Getenv("PROBE_UNIX")), try("tcp", os.Getenv("PROBE_TCP")), try("unixgram", os.Getenv("PROBE_UNIX")+".dgram")
	if f.Datagram != "" { // one of a pair sends to anybody too
		f.Datagram = fromPair(os.Getenv("PROBE_UNIX") + ".dgram")
	}
	ln, err := net.Listen("unix", os.Getenv("PROBE_DIR")+"/s")
	if err != nil {
		f.Listen = err.Error()
		return
	}
	ln.Close()
}

// fromPair sends a datagram to path from a socket that is one of a pair.
func fromPair(path string) string {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error()
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if err := unix.Sendto(pair[0], []byte("x"), 0, &unix.SockaddrUnix{Name: path}); err != nil {
		return err.Error()
	}
	return ""
}

func calls(f *Found) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	_ = unix.Capget(&header, &data[0])
	f.Caps = data[0].Effective | data[0].Permitted | data[1].Effective | data[1].Permitted | data[0].Inheritable
	n, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	f.NoNewPrivs = n == 1
	f.Dumpable, _ = unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	for name, call := range map[string]func() error{
		"unshare":   func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"ptrace":    func() error { return syscall.PtraceAttach(os.Getppid()) },
		"mount":     func() error { return unix.Mount("tmpfs", "/tmp", "tmpfs", 0, "") },
		"setuid":    func() error { return syscall.Setuid(0) },
		"bpf":       func() error { _, _, e := unix.Syscall(unix.SYS_BPF, 0, 0, 0); return errno(e) },
		"io_uring":  func() error { _, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); return reached(e) },
		"keyctl":    func() error { _, _, e := unix.Syscall(unix.SYS_KEYCTL, 0, 0, 0); return errno(e) },
		"bluetooth": func() error { _, err := unix.Socket(unix.AF_BLUETOOTH, unix.SOCK_STREAM, 0); return err },
		"packet":    func() error { _, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0); return err },
		"kill":      func() error { return unix.Kill(max(os.Getppid(), 2), 0) },
		"memory": func() error {
			_, err := unix.ProcessVMReadv(os.Getppid(), nil, nil, 0)
			return err
		},
	} {
		if call() == nil {
			f.Calls = append(f.Calls, name)
		}
	}
}

func errno(e syscall.Errno) error {
	if e == 0 {
		return nil
	}
	return e
}

// reached returns nil where the kernel looked at the call at all.
func reached(e syscall.Errno) error {
	if e == unix.ENOSYS || e == unix.EPERM {
		return e
	}
	return nil
}
