package transport

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrInUse means that somebody listens there already.
var ErrInUse = errors.New("somebody listens there already")

// ListenFor is Listen over Hybrid or Unix for a peer that runs as another user, such as a jailed VMM: the
// socket belongs to uid from its first moment on, and what is done in its directory, also when a stale
// socket is replaced and when the listener is closed, is done with uid's rights alone. So a directory that
// uid may write to is no way to the files of others. It takes CAP_SETUID, unless uid is our own.
//
// The directory and those above it must belong to root, to uid or to us, and nobody else may write there.
func ListenFor(a Addr, port, uid uint32) (net.Listener, error) {
	p := a.Path
	if a.Network == Hybrid {
		p += "_" + strconv.FormatUint(uint64(port), 10)
	} else if a.Network != Unix {
		return nil, fmt.Errorf("listening on %q for a user: not a socket in the file system", a)
	}
	if err := checkPlace(filepath.Dir(p), uid); err != nil {
		return nil, err
	}
	var l net.Listener
	err := asUser(uid, func() error {
		var err error
		l, err = listenUnix(p)
		return err
	})
	if err != nil {
		return nil, err
	}
	u := l.(*net.UnixListener)
	u.SetUnlinkOnClose(false) // it would be done with our own rights
	return &ownedListener{UnixListener: u, path: p, uid: uid}, nil
}

// An ownedListener removes its socket with the rights of the user that it belongs to.
type ownedListener struct {
	*net.UnixListener
	path string
	uid  uint32
	once sync.Once
}

func (l *ownedListener) Close() error {
	l.once.Do(func() {
		_ = asUser(l.uid, func() error { // what stands there now may be the user's own, and so are the rights
			if info, err := os.Lstat(l.path); err != nil || info.Mode().Type() != fs.ModeSocket {
				return err
			}
			return os.Remove(l.path)
		})
	})
	return l.UnixListener.Close()
}

// asUser calls f on a thread that has the rights of uid in the file system, and no more. The thread is used
// for nothing else and ends with f.
func asUser(uid uint32, f func() error) error {
	if int(uid) == os.Geteuid() {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked, so that the thread ends here
		done <- func() error {
			// Going from 0 to another takes away the capabilities over files too (capabilities(7)).
			_ = unix.Setfsuid(int(uid))
			if now, err := unix.SetfsuidRetUid(-1); err != nil || now != int(uid) {
				return fmt.Errorf("acting for user %d in the file system: %w", uid, unix.EPERM)
			}
			return f()
		}()
	}()
	return <-done
}

// checkPlace reports who else could put something in the place of a file in dir.
func checkPlace(dir string, uid uint32) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for last := dir; ; dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return err
		}
		stat, ok := info.Sys().(*syscall.Stat_t)
		sticky := info.Mode()&fs.ModeSticky != 0 && dir != last // there only owners rename and remove
		switch {
		case !info.IsDir() || !ok:
			return fmt.Errorf("%q is not a directory", dir)
		case stat.Uid != 0 && stat.Uid != uid && int(stat.Uid) != os.Geteuid():
			return fmt.Errorf("%q belongs to user %d, who could put another socket there", dir, stat.Uid)
		case info.Mode().Perm()&0o022 != 0 && !sticky:
			return fmt.Errorf("%q can be written to by others (mode %v), who could put another socket there", dir, info.Mode().Perm())
		case dir == "/":
			return nil
		}
	}
}
