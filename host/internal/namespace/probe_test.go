package namespace

import (
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain makes the test binary torno's stages and the guest too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case InitCommand:
			os.Exit(Init())
		case EnterCommand:
			os.Exit(Enter())
		case "probe":
			os.Exit(probe(os.Args[2:]))
		case "wait":
			os.Stdout.WriteString("waiting\n")
			time.Sleep(time.Hour)
		case "exit":
			n, _ := strconv.Atoi(os.Args[2])
			os.Exit(n)
		case "parent":
			os.Exit(parent())
		}
	}
	os.Exit(m.Run())
}

// A sight is what a guest reports of where it finds itself.
type sight struct {
	PID, UID, GID int
	Groups        []int
	Root, Dev     []string // names
	Home          []string
	Run           []string
	Ifaces        []string
	Procs         []int
	FDs           []string
	Env           []string
	UIDMap        string
	SID           int
	Exists        map[string]bool   // by path
	Reads         map[string]string // by path: content or error
	Writes        map[string]string // by path: "" or the error
	Acts          map[string]string // attack → "" or the error
	Connects      map[string]string
}

// probe looks around, tries what must fail, and prints a sight. Its arguments are paths.
func probe(paths []string) int {
	s := sight{
		PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(), Root: names("/"), Dev: names("/dev"), Home: names("/root"),
		Run: names("/run"), Env: os.Environ(), UIDMap: read("/proc/self/uid_map"),
		Exists: map[string]bool{}, Reads: map[string]string{}, Writes: map[string]string{}, Connects: map[string]string{},
	}
	s.Groups, _ = os.Getgroups()
	s.SID, _ = unix.Getsid(0)
	ifaces, _ := net.Interfaces()
	for _, i := range ifaces {
		s.Ifaces = append(s.Ifaces, i.Name)
	}
	for _, n := range names("/proc") {
		if pid, err := strconv.Atoi(n); err == nil {
			s.Procs = append(s.Procs, pid)
		}
	}
	for _, fd := range names("/proc/self/fd") {
		if to, err := os.Readlink("/proc/self/fd/" + fd); err == nil && !strings.HasPrefix(to, "anon_inode:") {
			s.FDs = append(s.FDs, fd)
		}
	}
	for _, p := range paths {
		info, err := os.Lstat(p)
		s.Exists[p] = err == nil
		switch {
		case err != nil || info.Mode().Type() == os.ModeSymlink:
		case info.IsDir():
			f := filepath.Join(p, ".probe")
			s.Writes[p] = text(os.WriteFile(f, nil, 0o600))
			os.Remove(f)
		case info.Mode().Type() == os.ModeSocket:
			c, err := net.Dial("unix", p)
			if s.Connects[p] = text(err); err == nil {
				c.Close()
			}
		default:
			s.Reads[p] = read(p)
			f, err := os.OpenFile(p, os.O_WRONLY, 0)
			if s.Writes[p] = text(err); err == nil {
				f.Close()
			}
		}
	}
	s.Acts = attack46()
	return encode(s)
}

// attack46 touches the kernel that the host uses too, and the locks on what is shared.
func attack46() map[string]string {
	now := unix.NsecToTimespec(time.Now().Add(time.Hour).UnixNano())
	acts := map[string]string{
		"clock":    text(unix.ClockSettime(unix.CLOCK_REALTIME, &now)),
		"module":   text(unix.InitModule([]byte("none"), "")),
		"reboot":   text(unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)),
		"kexec":    text(kexec()),
		"remount":  text(unix.Mount("", "/usr", "", unix.MS_REMOUNT|unix.MS_BIND, "")),
		"unmount":  text(unix.Unmount("/usr", unix.MNT_DETACH)),
		"sysfs":    text(unix.Mount("sysfs", "/mnt", "sysfs", 0, "")),
		"devtmpfs": text(unix.Mount("devtmpfs", "/mnt", "devtmpfs", 0, "")),
		"mknod":    text(unix.Mknod("/tmp/mem", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 1)))),
		"syslog":   text(syslog()),
		"swap":     text(swapoff()),
	}
	for _, name := range []string{"kernel/core_pattern", "kernel/modprobe", "kernel/modules_disabled", "kernel/kptr_restrict",
		"vm/drop_caches", "kernel/sysrq", "fs/file-max"} {
		if _, err := os.Stat("/proc/sys/" + name); err == nil {
			f, err := os.OpenFile("/proc/sys/"+name, os.O_WRONLY, 0)
			if err == nil {
				f.Close()
			}
			acts[name] = text(err)
		}
	}
	if err := unix.Unmount("/proc", unix.MNT_DETACH); err == nil { // what is below?
		below := 0
		for _, n := range names("/proc") {
			if _, err := strconv.Atoi(n); err == nil {
				below++
			}
		}
		if below > 2 { // more than the stages
			acts["below proc"] = ""
		}
	}
	return acts
}

func kexec() error {
	_, _, errno := unix.Syscall(unix.SYS_KEXEC_LOAD, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func syslog() error {
	_, err := unix.Klogctl(unix.SYSLOG_ACTION_CLEAR, nil)
	return err
}

func swapoff() error {
	_, _, errno := unix.Syscall(unix.SYS_SWAPOFF, 0, 0, 0)
	return errno
}

func names(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return []string{"error: " + err.Error()}
	}
	var n []string
	for _, e := range entries {
		n = append(n, e.Name())
	}
	return n
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "error: " + err.Error()
	}
	return string(b)
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func encode(v any) int {
	if json.NewEncoder(os.Stdout).Encode(v) != nil {
		return 1
	}
	return 0
}
