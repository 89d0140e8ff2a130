package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Private looks whether dir is ours alone. One that is not there must be possible to make. Files in it but those named must be
// ours alone as well.
func Private(dir string, but ...string) Finding {
	info, err := os.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return possible(dir)
	case err != nil:
		return Fail(elsewhere, "%v", err)
	case info.Mode()&fs.ModeSymlink != 0:
		return Fail("name the place that it leads to", "%s is a symbolic link, which whoever can write beside it can turn elsewhere", dir)
	case !info.IsDir():
		return Fail("move it away", "%s is not a directory", dir)
	case !owned(info):
		return Fail("run torno as its owner, or name another place", "%s belongs to user %d", dir, info.Sys().(*syscall.Stat_t).Uid)
	case info.Mode().Perm()&0o077 != 0:
		return Fail("", "others can reach %s", dir).With(Fix{What: "chmod 700 " + dir, Do: func() error { return withoutOthers(dir) }})
	}
	open, err := openFiles(dir, but)
	if err != nil {
		return Fail(elsewhere, "%v", err)
	}
	if len(open) > 0 {
		return Warn("", "others could read %s, were it elsewhere", strings.Join(open, ", ")).With(Fix{What: "chmod go= " + strings.Join(open, " "), Do: func() error {
			for _, path := range open {
				if err := withoutOthers(path); err != nil {
					return err
				}
			}
			return nil
		}, Then: "if somebody could have read the key: torno key rotate"})
	}
	return OK("%s", dir)
}

const elsewhere = "name another place: TORNO_STATE for state, XDG_RUNTIME_DIR for sockets"

// owned reports whether a file is the caller's.
func owned(info fs.FileInfo) bool {
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// possible looks whether a directory that is not there can be made.
func possible(dir string) Finding {
	parent, err := dir, fs.ErrNotExist
	for errors.Is(err, fs.ErrNotExist) {
		parent = filepath.Dir(parent)
		_, err = os.Stat(parent)
	}
	if err := unix.Access(parent, unix.W_OK|unix.X_OK); err != nil {
		return Fail(elsewhere, "%s cannot be made: %s: %v", dir, parent, err)
	}
	return OK("%s, made by the first broker", dir)
}

// openFiles returns the regular files of ours below dir, one level deep and in its audit, that others may touch.
func openFiles(dir string, but []string) ([]string, error) {
	var open []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || !d.Type().IsRegular() || slices.Contains(but, d.Name()) {
			return err
		}
		info, err := d.Info()
		if err == nil && owned(info) && info.Mode().Perm()&0o077 != 0 {
			open = append(open, path)
		}
		return nil
	})
	return open, err
}

// withoutOthers takes the modes for others away from a file or directory. It must be ours, and no link, when that is done, too.
func withoutOthers(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !owned(info) || !info.IsDir() && !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no longer what it was", path)
	}
	return f.Chmod(info.Mode().Perm() &^ 0o077)
}

// Socket looks whether somebody listens where a socket stands. A stale one may be removed.
func Socket(ctx context.Context, path string) Finding {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return OK("no socket, and no broker")
	case err != nil:
		return Fail(elsewhere, "%v", err)
	case info.Mode()&fs.ModeSocket == 0:
		return Fail("move it away", "%s is no socket", path)
	case info.Mode().Perm()&0o077 != 0:
		return Fail("", "others can reach %s", path).With(Fix{What: "chmod 600 " + path, Do: func() error { return os.Chmod(path, 0o600) }})
	}
	if stale(ctx, path) {
		return Warn("", "%s is there, and nobody listens", path).With(Fix{What: "rm " + path, Do: func() error {
			if !stale(ctx, path) {
				return errors.New("somebody listens now")
			}
			return os.Remove(path)
		}})
	}
	return OK("%s", path)
}

// stale reports whether a socket's listener has gone for good.
func stale(ctx context.Context, path string) bool {
	d := net.Dialer{Timeout: 2 * time.Second}
	c, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// A Space is a directory, and how much must be free in its file system for it to serve: MiB. What is not there yet is judged by
// what it will be made in.
type Space struct {
	Dir string
	MiB uint64
	For string
}

// Disk looks whether there is enough room.
func Disk(spaces ...Space) Finding {
	var free []string
	for _, s := range spaces {
		dir := s.Dir
		for {
			if _, err := os.Stat(dir); err == nil || dir == "/" || dir == "." {
				break
			}
			dir = filepath.Dir(dir)
		}
		var disk unix.Statfs_t
		if err := unix.Statfs(dir, &disk); err != nil {
			return Fail(elsewhere, "%s: %v", dir, err)
		}
		mib := disk.Bavail * uint64(disk.Bsize) >> 20
		if mib < s.MiB {
			return Warn("make room, or name another place", "%s has %d MiB left; %s takes %d", s.Dir, mib, s.For, s.MiB)
		}
		free = append(free, fmt.Sprintf("%d MiB for %s", mib, s.For))
	}
	return OK("%s", strings.Join(free, ", "))
}
