// Package nstest runs tests in Linux namespaces of their own: user, network with nothing but a lo that
// is down, mount, PID (the test is process 1), IPC, UTS and cgroup. Ids 0 to 65535 inside are ids of no
// account outside, so a test can break nothing of the machine.
package nstest

import (
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	inside  = "TORNO_TEST_NAMESPACE"
	firstID = 100000
	idCount = 65536
)

// Run runs f in namespaces of its own: it starts the test binary again there for this one test, with
// args after the flags. It skips where namespaces cannot be made.
func Run(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	run(t, f, &syscall.SysProcAttr{
		Cloneflags:                 namespaces | syscall.CLONE_NEWUSER,
		UidMappings:                ids(),
		GidMappings:                ids(),
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0},
	})
}

// RunAsRoot is Run without a user namespace: f is root of the machine, in all other namespaces of its
// own. It is for what a VM's guest may do in its own kernel and must touch nothing global.
func RunAsRoot(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	run(t, f, &syscall.SysProcAttr{Cloneflags: namespaces})
}

const namespaces = syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
	syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP

func ids() []syscall.SysProcIDMap {
	return []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: idCount}}
}

func run(t *testing.T, f func(t *testing.T), sys *syscall.SysProcAttr) {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		prepare(t)
		f(t)
		return
	}
	if os.Getuid() != 0 {
		t.Skip("needs namespaces with many ids; try: run the tests as root")
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	args := []string{"/proc/self/fd/3", "-test.run=" + pattern(t.Name()), "-test.count=1", "-test.timeout=30s"}
	if testing.Verbose() {
		args = append(args, "-test.v")
	}
	sys.Pdeathsig = syscall.SIGKILL
	child, err := os.StartProcess(args[0], args, &os.ProcAttr{
		Dir:   "/",
		Env:   append(os.Environ(), inside+"="+t.Name(), "GOCOVERDIR="),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, self},
		Sys:   sys,
	})
	if err != nil {
		t.Skipf("namespaces: %v; try: sysctl user.max_user_namespaces=10000", err)
	}
	state, err := child.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if !state.Success() {
		t.Fatalf("in namespaces: %v", state)
	}
}

// prepare gives the namespaces what a guest finds: private mounts, its own /proc and devpts, and fresh
// /tmp, /run, /etc and /home that it may write to.
func prepare(t *testing.T) {
	t.Helper()
	check := func(what string, err error) {
		if err != nil {
			t.Fatalf("preparing namespaces: %s: %v", what, err)
		}
	}
	check("private mounts", unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""))
	check("proc", unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
	for _, dir := range []string{"/tmp", "/run", "/home", "/root"} {
		check(dir, unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"))
	}
	check("/tmp", os.Chmod("/tmp", 0o777|os.ModeSticky))
	check("devpts", unix.Mount("devpts", "/dev/pts", "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"))
	check("ptmx", unix.Mount("/dev/pts/ptmx", "/dev/ptmx", "", unix.MS_BIND, ""))
	check("home", os.Mkdir("/home/agent", 0o700))
	check("home", os.Chown("/home/agent", 1000, 1000))
}

// pattern selects one test, level by level.
func pattern(name string) string {
	levels := strings.Split(name, "/")
	for i, l := range levels {
		levels[i] = "^" + regexp.QuoteMeta(l) + "$"
	}
	return strings.Join(levels, "/")
}
