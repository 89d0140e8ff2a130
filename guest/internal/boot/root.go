package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Names of the disks, which they carry as their serial numbers.
const (
	diskRoot    = "torno-root"
	diskScratch = "torno-scratch"
)

// Where the root is put together before it becomes the root.
const (
	lowerDir   = "/lower"
	scratchDir = "/scratch"
	newRoot    = "/newroot"
)

// enterRoot makes the image's file system the root, read only below an overlay that takes what is written,
// and gives it the mounts and devices that the workload finds. Without an image it gives them to the
// root that we have.
func (g *guest) enterRoot(ctx context.Context) error {
	if g.Words.Root == "" {
		if err := g.mountAll("/", mounts); err != nil {
			return err
		}
		return ensureDevices("/dev")
	}
	if err := g.mountOverlay(ctx); err != nil {
		return err
	}
	if err := g.mountDirectories(ctx); err != nil {
		return err
	}
	if err := g.mountAll(newRoot, mounts); err != nil {
		return err
	}
	if err := makeDevices(newRoot + "/dev"); err != nil {
		return err
	}
	for dir, mode := range map[string]os.FileMode{"/tmp": 0o777 | os.ModeSticky, "/var/tmp": 0o777 | os.ModeSticky, "/root": 0o700} {
		if err := errors.Join(os.MkdirAll(newRoot+dir, mode), os.Chmod(newRoot+dir, mode)); err != nil {
			return err
		}
	}
	return switchRoot()
}

// ensureDevices makes the devices where an image's own /dev was covered.
func ensureDevices(dir string) error {
	if _, err := os.Lstat(filepath.Join(dir, devices[0].name)); err == nil {
		return nil
	}
	return makeDevices(dir)
}

func (g *guest) mountOverlay(ctx context.Context) error {
	if err := g.mountDisk(ctx, g.Words.Root, lowerDir, unix.MS_RDONLY|unix.MS_NOATIME|unix.MS_NODEV); err != nil {
		return err
	}
	if g.Words.Scratch != "" {
		if err := g.mountDisk(ctx, g.Words.Scratch, scratchDir, unix.MS_NOATIME|unix.MS_NODEV); err != nil {
			return err
		}
	} else {
		err := errors.Join(os.MkdirAll(scratchDir, 0o700), unix.Mount("tmpfs", scratchDir, "tmpfs", unix.MS_NODEV, "mode=0700"))
		if err != nil {
			return fmt.Errorf("scratch in memory: %w", err)
		}
	}
	upper, work := scratchDir+"/upper", scratchDir+"/work"
	for _, dir := range []string{upper, work, newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := "lowerdir=" + lowerDir + ",upperdir=" + upper + ",workdir=" + work
	if err := unix.Mount("overlay", newRoot, "overlay", unix.MS_NODEV|unix.MS_NOATIME, options); err != nil {
		return fmt.Errorf("overlay: %w", err)
	}
	var err error
	if g.scratch, err = os.Open(scratchDir); err != nil { // the path ends with the first root
		return err
	}
	g.upper, err = os.OpenRoot(scratchDir)
	return err
}

// directoryList names the directories of the host's that the workload sees, each ended by a NUL but the
// last. The disk of the first is diskDirectory with a 0 behind it, and so on.
const (
	directoryList = "directories"
	diskDirectory = "torno-dir"
)

// mountDirectories mounts the host's directories, read only, at the paths that they have there.
func (g *guest) mountDirectories(ctx context.Context) error {
	list, err := os.ReadFile(filepath.Join(initDir, directoryList))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(list) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	for i, path := range strings.Split(string(list), "\x00") {
		if !filepath.IsAbs(path) || filepath.Clean(path) != path {
			return fmt.Errorf("directory %q is not an absolute path", path)
		}
		if err := g.mountDisk(ctx, diskDirectory+strconv.Itoa(i), newRoot+path, unix.MS_RDONLY|unix.MS_NOATIME|unix.MS_NODEV|unix.MS_NOSUID); err != nil {
			return err
		}
	}
	return nil
}

// diskTypes are the file systems that an image or a scratch disk may have.
var diskTypes = []string{"ext4", "erofs", "squashfs"}

// mountDisk mounts the disk of that name.
func (g *guest) mountDisk(ctx context.Context, name, target string, flags uintptr) error {
	var device string
	find := func() bool { device = findDisk(name); return device != "" }
	if err := await(ctx, "the disk "+name, find); err != nil {
		return err
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	var errs error
	for _, fstype := range diskTypes {
		err := unix.Mount(device, target, fstype, flags, "")
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.ENODEV) { // which means that the kernel does not know the type
			errs = errors.Join(errs, fmt.Errorf("%s: %w", fstype, err))
		}
	}
	return fmt.Errorf("mounting the disk %s: %w", name, errs)
}

// findDisk returns the device of the disk with that serial number, or of that name: not every VMM gives disks
// serial numbers of their owner's choice.
func findDisk(name string) string {
	const dir = "/sys/class/block"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	for _, e := range entries {
		if e.Name() == name {
			return "/dev/" + name
		}
		serial, err := os.ReadFile(filepath.Join(dir, e.Name(), "serial"))
		if err == nil && strings.TrimSpace(string(serial)) == name {
			return "/dev/" + e.Name()
		}
	}
	return ""
}

// switchRoot makes newRoot the root and frees what the initial file system held. This program runs on: what
// executes it again does so by /proc/self/exe.
func switchRoot() error {
	for _, m := range firstMounts {
		if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmounting the first %s: %w", m.target, err)
		}
	}
	if err := errors.Join(os.RemoveAll(initDir), os.Remove("/init")); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	return os.Chdir("/")
}
