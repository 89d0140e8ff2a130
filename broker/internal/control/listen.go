// Package control serves the operator's API: HTTP and JSON on a Unix socket that only the broker's own
// user can open. It knows sockets, bodies and errors; what a request means stands in package broker.
package control

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"torno.internal/protocol/transport"
)

// maxSocketPath is the longest path that fits sockaddr_un, without its final zero.
const maxSocketPath = 107

// A BusyError means that another broker answers on the socket.
type BusyError struct{ Path string }

func (e *BusyError) Error() string { return fmt.Sprintf("another broker listens on %q", e.Path) }

// MakeDir makes dir and its parents with mode 0700 and checks that nobody else can write it: sockets
// and state must not stand where another user can swap them.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("%q is not a directory", dir)
	case ok && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%q belongs to uid %d, not to us", dir, st.Uid)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("%q has mode %v: others can reach it; chmod 700 it", dir, info.Mode().Perm())
	}
	return nil
}

// Listen listens on the Unix socket at path, which it makes with mode 0600 in a private directory. A
// stale socket is replaced; one that answers is a *BusyError. Peers of another user are turned away.
func Listen(path string) (net.Listener, error) {
	ln, err := ListenBare(path)
	if err != nil {
		return nil, err
	}
	return &ownListener{ln}, nil
}

// ListenBare is Listen for who adopts the listener later.
func ListenBare(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("socket path %q is %d bytes, more than the %d that fit", path, len(path), maxSocketPath)
	}
	if err := MakeDir(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	addr, err := transport.ParseAddr("unix://" + path)
	if err != nil {
		return nil, err
	}
	return transport.Listen(addr, 0)
}

// Adopt returns a listener of a Unix socket that somebody else has made for us, which turns away peers of another user as
// Listen's does.
func Adopt(ln net.Listener) net.Listener { return &ownListener{ln} }

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%q stands where the socket belongs, and is none", path)
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return &BusyError{path}
	}
	return os.Remove(path)
}

// An ownListener accepts connections of the broker's own user and of root.
type ownListener struct{ net.Listener }

func (l *ownListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		u, isUnix := c.(*net.UnixConn)
		if uid, ok := transport.PeerUID(c); isUnix && ok && (uid == 0 || int(uid) == os.Geteuid()) {
			return newConn(u), nil
		}
		c.Close()
	}
}

// A Lease lends a listener to one server, which may close it, and takes it back: who connects in between waits.
type Lease struct {
	net.Listener
	Deadline func(time.Time) error // of accepting on it
}

// Close has Accept return, and leaves the listener open.
func (l *Lease) Close() error { return l.Deadline(time.Unix(1, 0)) }

// Return lets the next server accept.
func (l *Lease) Return() error { return l.Deadline(time.Time{}) }
