package boot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// engines are where container engines lay overlays of their own, which Linux refuses on an overlay.
var engines = []string{"/var/lib/docker", "/var/lib/containerd", "/var/lib/containers"}

// mountEngines puts directories of the scratch disk itself where root's container engines write. A directory
// that the image has something in is the image's own business.
func (g *guest) mountEngines(context.Context) error {
	if g.scratch == nil {
		return nil
	}
	defer func() { g.scratch.Close(); g.scratch = nil }()
	if g.hello.Workload.User != protocol.UserRoot {
		return nil
	}
	for _, target := range engines {
		if entries, err := os.ReadDir(target); len(entries) > 0 || err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := g.mountScratch(target); err != nil {
			return fmt.Errorf("%s: %w", target, err)
		}
	}
	return nil
}

// mountScratch mounts a new directory of the scratch disk at target. The disk's own mount is below the first
// root and has no path any more, so it goes by descriptors.
func (g *guest) mountScratch(target string) error {
	name := "engine-" + filepath.Base(target)
	at := int(g.scratch.Fd())
	if err := unix.Mkdirat(at, name, 0o711); err != nil {
		return err
	}
	tree, err := unix.OpenTree(at, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return fmt.Errorf("opening the scratch disk: %w", err)
	}
	defer unix.Close(tree)
	if err := os.MkdirAll(target, 0o711); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
