package rootfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// unfinished begins the names of directories in which an image is being built, and of what is kept for later.
func unfinished(name string) string { return ".new-" + name + "-" }

// pollLock is how often a lock that somebody else holds is tried again.
const pollLock = 200 * time.Millisecond

// hold makes the caller the only one that builds or removes the image of that name, until release is called, and
// removes what a build that was killed left behind. Who else builds is told to Waiting, and waited for.
func (s Store) hold(ctx context.Context, name string) (release func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, ".lock-"+name), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	if err := s.await(ctx, f, name); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	release = func() { f.Close() }
	left, err := filepath.Glob(filepath.Join(s.Dir, unfinished(name)+"*"))
	for _, dir := range left {
		if rest := strings.TrimPrefix(filepath.Base(dir), unfinished(name)); strings.Contains(rest, "-") {
			continue // of an image whose name only begins so
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err == nil {
		err = errors.Join(f.Truncate(0), writeAt(f, fmt.Sprint(os.Getpid())))
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

func writeAt(f *os.File, s string) error {
	_, err := f.WriteAt([]byte(s), 0)
	return err
}

// await takes the lock.
func (s Store) await(ctx context.Context, f *os.File, name string) error {
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !told && s.Waiting != nil {
			holder := make([]byte, 20)
			n, _ := f.ReadAt(holder, 0)
			s.Waiting(fmt.Sprintf("waiting for process %s, which builds the image %s", holder[:n], name))
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollLock):
		}
	}
}

// Remove removes an image. A VM that runs from it goes on.
func (s Store) Remove(ctx context.Context, name string) error {
	release, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	final := filepath.Join(s.Dir, name)
	if _, err := os.Stat(final); err != nil { // one that is damaged can be removed, too
		_, err = s.Open(name)
		return err
	}
	gone, err := os.MkdirTemp(s.Dir, unfinished(name))
	if err != nil {
		return err
	}
	if err := os.Rename(final, filepath.Join(gone, name)); err != nil {
		return errors.Join(err, os.Remove(gone))
	}
	return os.RemoveAll(gone)
}
