package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// checkDir makes dir, or checks that it is ours alone and no symbolic link.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		return &DirError{dir, "is a symbolic link, which whoever can write beside it can turn elsewhere", "set TORNO_STATE to where it leads"}
	case !info.IsDir():
		return &DirError{dir, "is not a directory", "move it away, or set TORNO_STATE"}
	case st != nil && int(st.Uid) != os.Geteuid():
		return &DirError{dir, fmt.Sprintf("belongs to user %d, not to us (%d)", st.Uid, os.Geteuid()), "run torno as that user, or set TORNO_STATE to a directory of your own"}
	case info.Mode().Perm()&0o077 != 0:
		return &DirError{dir, fmt.Sprintf("has mode %v, so others can reach it", info.Mode().Perm()), "look at who could have changed it, then: chmod 700 " + dir}
	}
	return nil
}

// takeLock locks path for this process and writes its pid there.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, &BusyError{Dir: filepath.Dir(path), PID: holder(path)}
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// holder returns the process that holds a lock; 0: it does not say.
func holder(path string) int {
	for range 20 { // it writes its number just after it has taken the lock
		held, _ := os.ReadFile(path)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(held))); err == nil {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	return 0
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
