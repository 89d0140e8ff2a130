package transport

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const socketMode = 0o600

func listenUnix(p string) (net.Listener, error) {
	if len(p) > maxPath {
		return nil, fmt.Errorf("socket %q: path of %d bytes, at most %d fit", p, len(p), maxPath)
	}
	if err := removeStale(p); err != nil {
		return nil, err
	}
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		// The mode of the socket's own inode becomes that of the file (unix_bind), so there is no
		// moment at which others may connect.
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), socketMode) }); e != nil {
			return e
		}
		return err
	}}
	l, err := config.Listen(context.Background(), "unix", p)
	if errors.Is(err, unix.EADDRINUSE) { // it came a moment ago
		return nil, fmt.Errorf("%q: %w", p, ErrInUse)
	}
	return l, err
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(p string) error {
	info, err := os.Lstat(p)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%q exists and is not a socket", p)
	}
	c, err := net.Dial("unix", p)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("%q: %w", p, ErrInUse)
	}
	if errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%q is a socket of somebody else", p)
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(p)
}

// PeerUID returns the user that the process at the other end of a Unix socket had when it connected
// or listened (SO_PEERCRED), as this process's user namespace knows it. It is false on other transports.
func PeerUID(c net.Conn) (uid uint32, ok bool) {
	u, isUnix := c.(*net.UnixConn)
	if !isUnix {
		return 0, false
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil {
			uid, ok = cred.Uid, true
		}
	})
	return uid, ok && err == nil
}
