package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"

	"github.com/mdlayher/socket"
	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"
)

// A vsockConn is a connection that dialVSOCK made. It has CloseWrite.
type vsockConn struct {
	*socket.Conn
	local, remote *vsock.Addr
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

// WriteBuffers writes several buffers in one system call, so that they make one packet to the other
// side. It must not run at the same time as another write.
func (c *vsockConn) WriteBuffers(b *net.Buffers) (int64, error) { return writeBuffers(c, b) }

// An acceptedConn is a connection from a VM. It has CloseWrite.
type acceptedConn struct{ *vsock.Conn }

// WriteBuffers is as that of vsockConn.
func (c acceptedConn) WriteBuffers(b *net.Buffers) (int64, error) { return writeBuffers(c, b) }

// writeBuffers does for sockets that package net does not know what net.Buffers does for its own.
func writeBuffers(c syscall.Conn, b *net.Buffers) (total int64, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	for len(*b) > 0 {
		var n int
		var sent error
		err := raw.Write(func(fd uintptr) bool {
			n, sent = unix.SendmsgBuffers(int(fd), *b, nil, nil, unix.MSG_NOSIGNAL)
			return !errors.Is(sent, unix.EAGAIN) && !errors.Is(sent, unix.EINTR)
		})
		if err = errors.Join(err, sent); err != nil {
			return total, err
		}
		total += int64(n)
		*b = consume(*b, n)
	}
	return total, nil
}

// consume drops the first n bytes, and empty buffers.
func consume(b net.Buffers, n int) net.Buffers {
	for len(b) > 0 && n >= len(b[0]) {
		n -= len(b[0])
		b = b[1:]
	}
	if n > 0 {
		b[0] = b[0][n:]
	}
	return b
}

// dialVSOCK connects from a port below 1024, where vsock.Dial would take any.
func dialVSOCK(ctx context.Context, a Addr) (net.Conn, error) {
	c, err := socket.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, VSOCK, nil)
	if err != nil {
		return nil, fmt.Errorf("dialling %s: %w", a, err)
	}
	port, err := bindReserved(c.Bind, rand.Uint32N(reservedPort))
	if err == nil {
		_, err = c.Connect(ctx, &unix.SockaddrVM{CID: a.CID, Port: a.Port})
	}
	if err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("dialling %s: %w", a, err)
	}
	return &vsockConn{
		Conn:   c,
		local:  &vsock.Addr{ContextID: unix.VMADDR_CID_ANY, Port: port},
		remote: &vsock.Addr{ContextID: a.CID, Port: a.Port},
	}, nil
}

// bindReserved binds the first free port below 1024 from first on, around.
func bindReserved(bind func(unix.Sockaddr) error, first uint32) (uint32, error) {
	for i := range uint32(reservedPort) {
		port := (first + i) % reservedPort
		if port == 0 {
			continue
		}
		err := bind(&unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port})
		if !errors.Is(err, unix.EADDRINUSE) {
			return port, err
		}
	}
	return 0, fmt.Errorf("all ports below %d are in use: %w", reservedPort, unix.EADDRINUSE)
}

func listenVSOCK(cid, port uint32) (net.Listener, error) {
	l, err := vsock.ListenContextID(cid, port, nil)
	if err != nil {
		return nil, err
	}
	return Guests(l), nil
}

// Guests returns a listener that accepts what l does from VMs alone, and from their privileged ports: what
// comes over loopback, whose CID is 1, from the host itself, or from a port of 1024 or above is closed
// unseen. Who has no privilege in a VM can't get at a port below that.
func Guests(l net.Listener) net.Listener { return &guestListener{l} }

type guestListener struct{ net.Listener }

func (l *guestListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if !acceptable(c.RemoteAddr()) {
			_ = c.Close()
			continue
		}
		if v, ok := c.(*vsock.Conn); ok {
			return acceptedConn{v}, nil
		}
		return c, nil
	}
}

func acceptable(a net.Addr) bool {
	v, ok := a.(*vsock.Addr)
	return ok && v.ContextID >= MinGuestCID && v.Port < reservedPort
}

// PeerCID returns the CID of the VM at the other end of a VSOCK connection. It is false on other
// transports.
func PeerCID(c net.Conn) (cid uint32, ok bool) {
	v, ok := c.RemoteAddr().(*vsock.Addr)
	if !ok {
		return 0, false
	}
	return v.ContextID, true
}
