package vmm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ExecCommand is the name of the hidden command by which torno runs Exec: Go can run no code between fork
// and exec.
const ExecCommand = "vmm-exec"

// exitFailed is the status of an Exec that could not become QEMU.
const exitFailed = 125

// readable is what QEMU may read of the host: its libraries and its firmware. Where the directories are
// links into each other nothing is lost.
var readable = []string{"/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/share/qemu", "/usr/share/seabios", "/etc/ld.so.cache", "/sys/devices/system/cpu"}

const kvmDevice = "/dev/kvm"

// Exec becomes QEMU: args are its path and its arguments. It returns only if it could not, with an exit
// status, after saying why on standard error.
func Exec(args []string) int {
	runtime.LockOSThread()
	err := become(args)
	fmt.Fprintf(os.Stderr, "torno: starting QEMU: %v\n", err)
	return exitFailed
}

func become(args []string) error {
	if len(args) == 0 {
		return errors.New("no program")
	}
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("core limit: %w", err)
	}
	if err := dropCapabilities(); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := restrict(args[0]); err != nil {
		return err
	}
	// Becoming somebody else has cleared it. If our parent has ended since, we end with its namespace.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	return unix.Exec(args[0], args, []string{"PATH=/usr/bin:/bin", "LC_ALL=C"})
}

// dropCapabilities gives up those that come with a user namespace of one's own.
func dropCapabilities() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// restrict lets QEMU open nothing but what it needs, where the kernel can do that. Its kernel, disks and
// device come as descriptors that are open already.
func restrict(qemu string) error {
	r, err := newRuleset()
	if r == nil || err != nil {
		return err
	}
	for _, path := range append(readable, qemu) {
		r.allow(path, readAccess)
	}
	r.allow(kvmDevice, unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_WRITE_FILE|unix.LANDLOCK_ACCESS_FS_IOCTL_DEV)
	inherited, err := inheritedFiles()
	if err != nil {
		return err
	}
	for _, path := range inherited { // QEMU opens its kernel anew, by descriptor
		r.allow(path, readAccess)
	}
	return r.enforce()
}

// inheritedFiles returns paths that lead to the regular files among our descriptors.
func inheritedFiles() ([]string, error) {
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		target, err := os.Readlink(path)
		info, statErr := os.Stat(path)
		if err == nil && statErr == nil && info.Mode().IsRegular() && strings.HasPrefix(target, "/") && !strings.HasPrefix(target, "/memfd:") {
			paths = append(paths, path)
		}
	}
	return paths, nil
}
