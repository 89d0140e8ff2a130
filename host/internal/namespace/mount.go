package namespace

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Attributes of what is bound from the host.
const (
	readOnlyAttr = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV // sockets can be connected to
	deviceAttr   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
)

// openTree returns a private, detached copy of the mounts at path and below, with attributes added
// (open_tree(2), mount_setattr(2)).
func openTree(path string, attr uint64) (*os.File, error) {
	const flags = unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, flags)
	if err != nil {
		return nil, explainMount(fmt.Errorf("binding %q: %w", path, err))
	}
	f := os.NewFile(uintptr(fd), path)
	a := unix.MountAttr{Attr_set: attr, Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &a); err != nil {
		f.Close()
		return nil, explainMount(fmt.Errorf("restricting %q: %w", path, err))
	}
	return f, nil
}

// attach mounts a detached tree at target.
func attach(f *os.File, target string) error {
	err := unix.MoveMount(int(f.Fd()), "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("mounting %q: %w", target, err)
	}
	return f.Close()
}

func explainMount(err error) error {
	switch {
	case errors.Is(err, unix.ENOSYS):
		return hinted("torno needs Linux 5.12 or newer", err)
	case errors.Is(err, unix.EACCES):
		return hinted("run torno in a directory that you can reach", err)
	}
	return err
}

// explainClone says what keeps a process from new user namespaces.
func explainClone(err error) error {
	err = fmt.Errorf("making namespaces: %w", err)
	switch {
	case errors.Is(err, unix.ENOSPC):
		return hinted("this machine allows no more of them: sysctl user.max_user_namespaces", err)
	case errors.Is(err, unix.EPERM):
		return hinted("this machine forbids user namespaces: look at sysctl kernel.unprivileged_userns_clone, "+
			"kernel.apparmor_restrict_unprivileged_userns, or the container's seccomp profile", err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS):
		return hinted("the kernel lacks user namespaces (CONFIG_USER_NS)", err)
	}
	return err
}
