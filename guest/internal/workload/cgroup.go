package workload

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	cgroupRoot = "/sys/fs/cgroup"
	cgroupLeaf = "init" // where the command itself is: a cgroup that is divided up holds no processes
)

// enterCgroup makes the cgroup that we were started in the root of all that root sees of cgroups, with ourselves
// in a leaf of it. Container engines find what they expect, and what they make stays within the VM's limits.
func enterCgroup() error {
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("a namespace: %w", err)
	}
	// Linux refuses a mount over another of the same file system.
	if err := unix.Unmount(cgroupRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", cgroupRoot, err)
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, "nsdelegate"); err != nil {
		return fmt.Errorf("mounting %s: %w", cgroupRoot, err)
	}
	leaf := filepath.Join(cgroupRoot, cgroupLeaf)
	if err := os.Mkdir(leaf, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
		return err
	}
	return Delegate(cgroupRoot)
}

// Delegate gives the cgroups below dir those controllers; none: all that dir has.
func Delegate(dir string, controllers ...string) error {
	if len(controllers) == 0 {
		all, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		if err != nil {
			return err
		}
		controllers = strings.Fields(string(all))
	}
	for _, name := range controllers {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+name), 0); err != nil {
			return fmt.Errorf("controller %s: %w", name, err)
		}
	}
	return nil
}
