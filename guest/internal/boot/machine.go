package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// What the initial file system holds beside this program, which is its /init: modules, and a list of their
// files in the order to load them in.
const (
	initDir    = "/torno"
	moduleList = "modules"
)

// deviceWait bounds how long a device may take to appear once its driver is loaded.
const deviceWait = 5 * time.Second

// loadModules loads the drivers of a machine of its own, and waits for its way to the host.
func (g *guest) loadModules(ctx context.Context) error {
	if err := g.mountAll("/", firstMounts); err != nil {
		return err
	}
	if nonce, err := os.ReadFile(bootNonceFile); err == nil { // gone once the root is another
		g.bootFile = strings.TrimSpace(string(nonce))
	}
	list, err := os.ReadFile(filepath.Join(initDir, moduleList))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the kernel, or the image's own init, has loaded what there is
	}
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(list)) {
		if err := loadModule(filepath.Join(initDir, name)); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return await(ctx, "a vsock device", hasVSOCK)
}

func loadModule(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return nil
}

// hasVSOCK reports whether the kernel knows the machine's CID: virtio devices appear shortly after their
// driver.
func hasVSOCK() bool {
	const noCID = 1<<32 - 1
	dev, err := unix.Open("/dev/vsock", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dev)
	cid, err := unix.IoctlGetUint32(dev, unix.IOCTL_VM_SOCKETS_GET_LOCAL_CID)
	return err == nil && cid != noCID
}

// await waits until there is what the machine needs.
func await(ctx context.Context, what string, there func() bool) error {
	deadline := time.Now().Add(deviceWait)
	for !there() {
		if time.Now().After(deadline) {
			return fmt.Errorf("no sign of %s within %v", what, deviceWait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// A mount is one row of a table of mounts.
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// firstMounts are what finding drivers and disks needs.
var firstMounts = []mount{
	{"proc", "/proc", "proc", safe, ""},
	{"sysfs", "/sys", "sysfs", safe | unix.MS_RDONLY, ""},
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755"},
}

// mounts are what the workload finds.
var mounts = []mount{
	{"proc", "/proc", "proc", safe, ""},
	{"sysfs", "/sys", "sysfs", safe | unix.MS_RDONLY, ""},
	{"cgroup2", "/sys/fs/cgroup", "cgroup2", safe, "nsdelegate"},
	{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=0755,size=1m"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
	{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=64m"},
}

func (g *guest) mountAll(root string, table []mount) error {
	for _, m := range table {
		target := filepath.Join(root, m.target)
		if _, err := os.Lstat(target); err != nil {
			if err := os.MkdirAll(target, 0o755); err != nil {
				return err
			}
		}
		if err := unix.Mount(m.source, target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mounting %s at %s: %w", m.fstype, m.target, err)
		}
		g.Log.Debug("boot: mounted", "target", m.target)
	}
	return nil
}

// A device is a row of the table of what /dev holds. Disks, memory and the kernel's log are not there:
// nobody but us has had business with them, and we are done.
type device struct {
	name         string
	mode         uint32
	major, minor uint32
}

var devices = []device{
	{"null", 0o666, 1, 3}, {"zero", 0o666, 1, 5}, {"full", 0o666, 1, 7},
	{"random", 0o666, 1, 8}, {"urandom", 0o666, 1, 9}, {"tty", 0o666, 5, 0}, {"fuse", 0o666, 10, 229},
}

var deviceLinks = [][2]string{
	{"/proc/self/fd", "fd"}, {"/proc/self/fd/0", "stdin"}, {"/proc/self/fd/1", "stdout"}, {"/proc/self/fd/2", "stderr"}, {"pts/ptmx", "ptmx"},
}

func makeDevices(dir string) error {
	defer unix.Umask(unix.Umask(0))
	for _, d := range devices {
		if err := unix.Mknod(filepath.Join(dir, d.name), unix.S_IFCHR|d.mode, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	for _, l := range deviceLinks {
		if err := os.Symlink(l[0], filepath.Join(dir, l[1])); err != nil {
			return err
		}
	}
	return nil
}

// Probe says that the machine runs programs, and ends it.
func Probe() {
	fmt.Println(ProbeLine)
	powerOff(slog.New(slog.DiscardHandler))
}

// ProbeLine is what Probe says.
const ProbeLine = "torno-guest: this machine works"

// powerOff ends the machine. QEMU, told not to reboot, ends on a restart.
func powerOff(log *slog.Logger) {
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	log.Error("power off", "error", err)
}
