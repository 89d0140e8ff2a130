// Package rootfs puts the guest's own files into a root file system that somebody else made, which may
// be read-only or belong to ids that the guest has no power over.
package rootfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dir holds what the guest puts into the root file system: a tmpfs that every user may read.
const Dir = "/run/torno-guest"

// MakeDir makes Dir, on a tmpfs over /run where /run cannot be written to.
func MakeDir() error {
	err := os.MkdirAll(Dir, 0o755)
	if Unwritable(err) {
		if err := unix.Mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
			return fmt.Errorf("mounting a tmpfs on /run: %w", err)
		}
		err = os.MkdirAll(Dir, 0o755)
	}
	if err != nil {
		return err
	}
	return os.Chmod(Dir, 0o755) // whatever the umask is
}

// WriteFile makes path a file with the given content that everybody may read. Where the place cannot
// be written to but the file is there, a copy in Dir is mounted over it.
func WriteFile(path string, content []byte) error {
	if resolved, err := filepath.EvalSymlinks(path); err == nil {
		path = resolved // a symbolic link stays one
	}
	err := replace(path, content)
	if target, linkErr := os.Readlink(path); Unwritable(err) && linkErr == nil {
		// A link into nowhere: /etc/resolv.conf often leads below /run.
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		return replace(target, content)
	}
	if !Unwritable(err) {
		return err
	}
	if _, statErr := os.Stat(path); statErr != nil {
		return err
	}
	copied, copyErr := os.CreateTemp(Dir, filepath.Base(path)+".*")
	if copyErr != nil {
		return errors.Join(err, copyErr)
	}
	defer copied.Close()
	if _, err := copied.Write(content); err != nil {
		return err
	}
	if err := copied.Chmod(0o644); err != nil {
		return err
	}
	if err := unix.Mount(copied.Name(), path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting over %q: %w", path, err)
	}
	return nil
}

// replace writes a new file and renames it into place, so that no reader sees half of it.
func replace(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".torno-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once the file is renamed
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Unwritable reports whether err says that this place takes no files, rather than that something broke.
// EBUSY and EOVERFLOW come from files that are mounted over, and from ids that the namespace lacks.
func Unwritable(err error) bool {
	return errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EBUSY) || errors.Is(err, syscall.EOVERFLOW)
}
