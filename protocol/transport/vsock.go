package transport

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"

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
	return &vsockListener{l}, nil
}

// A vsockListener accepts from VMs alone, and from their privileged ports.
type vsockListener struct{ net.Listener }

func (l *vsockListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if acceptable(c.RemoteAddr()) {
			return c, nil
		}
		_ = c.Close()
	}
}

// acceptable refuses loopback peers, whose CID is 1, the host's own, and unprivileged ports.
func acceptable(a net.Addr) bool {
	v, ok := a.(*vsock.Addr)
	return ok && v.ContextID >= minGuest && v.Port < reservedPort
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
