package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// devices are the nodes that every program has.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// networkFiles are what programs that use the network resolve names and verify certificates by.
var networkFiles = []string{
	"/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/host.conf", "/etc/services", "/etc/protocols",
	"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	"/var/lib/ca-certificates",
}

// Attributes of what is bound from the host.
const (
	readAttr   = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	dataAttr   = readAttr | unix.MOUNT_ATTR_NOEXEC
	writeAttr  = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	deviceAttr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// scratch is where the root directory is put together: any directory that is there. It is hidden from us alone.
const scratch = "/tmp"

// A tree is a directory or file of the host that the program sees.
type tree struct {
	host, inside string
	attr         uint64
	must         bool // it has to be there
}

// A binding is a tree that is open.
type binding struct {
	tree
	fd  int
	dir bool
}

// buildRoot makes a root directory that holds what the plan promises, and nothing else.
func buildRoot(p *plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("%w: separating the mounts: %w", errNoNamespaces, err)
	}
	_ = unix.Sethostname([]byte("plugin")) // else it keeps the host's, which systemd may want
	bindings, err := openTrees(p.trees())
	if err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tmpfs", scratch, "tmpfs", flags, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("%w: mounting the root: %w", errNoNamespaces, err)
	}
	if err := os.Mkdir(scratch+"/tmp", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", scratch+"/tmp", "tmpfs", flags|unix.MS_NOEXEC, "mode=1777,size="+tmpSize); err != nil {
		return fmt.Errorf("mounting /tmp: %w", err)
	}
	for _, b := range bindings {
		if err := b.place(); err != nil {
			return err
		}
	}
	if p.wants("/proc") {
		if err := mountProc(scratch + "/proc"); err != nil {
			return err
		}
	}
	return enterRoot()
}

// trees are all that the program sees, in order: what lies in another comes after it.
func (p *plan) trees() []tree {
	var all []tree
	for _, d := range devices {
		all = append(all, tree{host: d, inside: d, attr: deviceAttr})
	}
	if p.Network {
		for _, f := range networkFiles {
			all = append(all, tree{host: f, inside: f, attr: dataAttr})
		}
	}
	for _, path := range p.Read {
		if path != "/proc" {
			all = append(all, tree{host: path, inside: path, attr: readAttr, must: true})
		}
	}
	for _, path := range p.Write {
		all = append(all, tree{host: path, inside: path, attr: writeAttr, must: true})
	}
	return append(all, tree{host: p.Dir, inside: InsideDir, attr: writeAttr | unix.MOUNT_ATTR_NOEXEC, must: true})
}

func (p *plan) wants(path string) bool {
	for _, r := range p.Read {
		if r == path {
			return true
		}
	}
	return false
}

// openTrees opens detached copies of all trees, before scratch hides any of them (open_tree(2), mount_setattr(2)).
func openTrees(trees []tree) ([]binding, error) {
	var all []binding
	for _, t := range trees {
		info, err := os.Stat(t.host)
		if errors.Is(err, fs.ErrNotExist) && !t.must {
			continue
		}
		if err != nil {
			return nil, &Error{err, "paths and writable in broker.toml name what is there for the broker"}
		}
		fd, err := unix.OpenTree(unix.AT_FDCWD, t.host, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return nil, fmt.Errorf("binding %q: %w", t.host, err)
		}
		a := unix.MountAttr{Attr_set: t.attr, Propagation: unix.MS_PRIVATE}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
			return nil, fmt.Errorf("restricting %q: %w", t.host, err)
		}
		all = append(all, binding{t, fd, info.IsDir()})
	}
	return all, nil
}

// place attaches the tree where it belongs, making the directories above it.
func (b *binding) place() error {
	defer unix.Close(b.fd)
	target := filepath.Join(scratch, b.inside)
	if err := b.room(target); err != nil {
		return fmt.Errorf("making room for %q: %w", b.inside, err)
	}
	if err := unix.MoveMount(b.fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mounting %q: %w", b.inside, err)
	}
	return nil
}

// room makes what is mounted over. Where it lies in another tree it has to be there.
func (b *binding) room(target string) error {
	if _, err := os.Stat(target); err == nil {
		return nil
	}
	if b.dir {
		return os.MkdirAll(target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	return os.WriteFile(target, nil, 0o644)
}

// mountProc mounts the program's own /proc, with no process of the host in it.
func mountProc(target string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	err := unix.Mount("proc", target, "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC|unix.MS_RDONLY, "")
	if errors.Is(err, unix.EPERM) {
		return &Error{fmt.Errorf("mounting /proc: %w", err), "parts of the broker's own /proc are masked, as containers do; leave /proc out of paths"}
	}
	return err
}

// enterRoot makes scratch the root, for reading alone, and lets go of the host's (pivot_root(2)).
func enterRoot() error {
	if err := unix.Chdir(scratch); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("detaching the host's root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	a := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", 0, &a); err != nil {
		return fmt.Errorf("closing the root: %w", err)
	}
	return nil
}

// CleanPath reports whether a path may be promised: absolute, in its normal form, and neither the root nor what
// programs have of their own.
func CleanPath(path string) bool {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path || strings.ContainsRune(path, 0) {
		return false
	}
	for _, own := range []string{"/", "/dev", "/tmp", InsideDir} {
		if path == own {
			return false
		}
	}
	return true
}
