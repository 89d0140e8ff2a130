package namespace

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// scratch is where the root directory is put together; it is hidden only from stage 1 itself.
const scratch = "/tmp"

// An action is how a row of the root directory comes about.
type action uint8

const (
	bind   action = iota // the host's, read-only; a symbolic link stays one; skipped where absent
	device               // the host's node
	tmpfs                // empty; data is its mount options
	dir                  // a directory of the root's own tmpfs; data is its mode in octal
	link                 // a symbolic link to data
	etc                  // a copy of the host's /etc
	devpts
	proc // stage 1's own, without any process of the host
)

// A row is one entry of the root directory.
type row struct {
	do   action
	path string
	data string
}

// root is all that the guest sees of files, in order; the session's sockets and directories come
// after. What is not in the table is not there: no /sys, no home directories, nothing of /var.
var root = []row{
	{bind, "/usr", ""},
	{bind, "/bin", ""},
	{bind, "/sbin", ""},
	{bind, "/lib", ""},
	{bind, "/lib32", ""},
	{bind, "/lib64", ""},
	{bind, "/libx32", ""},
	{bind, "/opt", ""},
	{bind, "/nix/store", ""},
	{bind, "/gnu/store", ""},
	{etc, "/etc", ""},
	{tmpfs, "/run", "mode=0755,size=64m"},
	{tmpfs, "/tmp", "mode=1777"},
	{tmpfs, "/home", "mode=0755"},
	{dir, "/root", "0700"},
	{dir, "/mnt", "0755"},
	{dir, "/srv", "0755"},
	{dir, "/var", "0755"},
	{dir, "/var/cache", "0755"},
	{dir, "/var/lib", "0755"},
	{dir, "/var/log", "0755"},
	{tmpfs, "/var/tmp", "mode=1777"},
	{link, "/var/run", "/run"},
	{link, "/var/lock", "/run/lock"},
	{dir, "/run/lock", "1777"},
	{tmpfs, "/dev", "mode=0755,size=64k"},
	{device, "/dev/null", ""},
	{device, "/dev/zero", ""},
	{device, "/dev/full", ""},
	{device, "/dev/random", ""},
	{device, "/dev/urandom", ""},
	{device, "/dev/tty", ""},
	{devpts, "/dev/pts", "newinstance,ptmxmode=0666,mode=0620"},
	{link, "/dev/ptmx", "pts/ptmx"},
	{tmpfs, "/dev/shm", "mode=1777"},
	{link, "/dev/fd", "/proc/self/fd"},
	{link, "/dev/stdin", "/proc/self/fd/0"},
	{link, "/dev/stdout", "/proc/self/fd/1"},
	{link, "/dev/stderr", "/proc/self/fd/2"},
	{proc, "/proc", ""},
}

// ownPlaces cannot be bound from the host: inside they are something else.
var ownPlaces = []string{"/", "/dev", "/etc", "/home", "/proc", "/root", "/run", "/sys", "/tmp", "/var", "/var/tmp"}

// provided reports whether the guest sees path by the table already.
func provided(path string) bool {
	return slices.ContainsFunc(root, func(r row) bool { return r.do == bind && within(path, r.path) })
}

// A build puts the root directory together in scratch.
type build struct {
	plan          plan
	trees         map[string]*os.File // detached mounts by the path inside
	report, guest *os.File            // for stage 2
}

// open opens all that is bound, before scratch hides any of it.
func (b *build) open() error {
	b.trees = map[string]*os.File{}
	for _, r := range root {
		attr, ok := map[action]uint64{bind: readOnlyAttr, device: deviceAttr}[r.do]
		info, err := os.Lstat(r.path)
		if !ok || err != nil || info.Mode().Type() == fs.ModeSymlink {
			continue
		}
		if b.trees[r.path], err = openTree(r.path, attr); err != nil {
			return err
		}
	}
	for _, t := range b.plan.Trees {
		if t.FD != 0 {
			b.trees[t.At] = os.NewFile(uintptr(t.FD), t.Path)
			continue
		}
		var err error
		if b.trees[t.At], err = openTree(t.Path, readOnlyAttr); err != nil {
			return err
		}
	}
	return nil
}

// make fills scratch and makes it the root.
func (b *build) make() error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tmpfs", scratch, "tmpfs", flags, "mode=0755"); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	copied, err := openEtc()
	if err != nil {
		return err
	}
	for _, r := range root {
		if err := b.add(r, copied); err != nil {
			return fmt.Errorf("building %q: %w", r.path, err)
		}
	}
	for _, t := range b.plan.Trees {
		if err := b.place(t.At); err != nil {
			return err
		}
	}
	return enterRoot(scratch)
}

func (b *build) add(r row, copied *os.Root) error {
	target := filepath.Join(scratch, r.path)
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	switch r.do {
	case bind:
		if to, err := os.Readlink(r.path); err == nil {
			return os.Symlink(to, target)
		}
		if b.trees[r.path] == nil {
			return nil
		}
		return b.place(r.path)
	case device:
		if b.trees[r.path] == nil {
			return nil
		}
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return err
		}
		return attach(b.trees[r.path], target)
	case link:
		return os.Symlink(r.data, target)
	case dir:
		var mode uint32
		if _, err := fmt.Sscanf(r.data, "%o", &mode); err != nil {
			return err
		}
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		return unix.Chmod(target, mode)
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	switch r.do {
	case etc:
		return copyEtc(copied, target)
	case devpts:
		return unix.Mount("devpts", target, "devpts", unix.MS_NOSUID|unix.MS_NOEXEC, r.data)
	case proc:
		return explainProc(unix.Mount("proc", target, "proc", flags|unix.MS_NOEXEC, ""))
	}
	return unix.Mount("tmpfs", target, "tmpfs", flags, r.data)
}

// explainProc: the kernel lets a user namespace mount proc only where all of another one is in sight.
func explainProc(err error) error {
	if err == unix.EPERM {
		return hinted("parts of /proc are masked, as containers do (docker: --security-opt systempaths=unconfined)", err)
	}
	return err
}

// place attaches the tree that belongs at inside, making the directories above it.
func (b *build) place(inside string) error {
	target := filepath.Join(scratch, inside)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return fmt.Errorf("making room for %q: %w", inside, err)
	}
	return attach(b.trees[inside], target)
}

// enterRoot makes dir the root and lets go of the host's (pivot_root(2)).
func enterRoot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the host's root: %w", err)
	}
	return unix.Chdir("/")
}
