package transport

import (
	"errors"
	"net"
	"testing"

	"github.com/mdlayher/vsock"
)

// A fakeListener hands out connections from the addresses that it is given, and ends.
type fakeListener struct {
	peers  []net.Addr
	closed []net.Addr // of them, those whose connection was closed unread
}

// A fakeConn is one end of a pipe with an address.
type fakeConn struct {
	net.Conn
	from net.Addr
	l    *fakeListener
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.from }

func (c *fakeConn) Close() error {
	c.l.closed = append(c.l.closed, c.from)
	return c.Conn.Close()
}

func (l *fakeListener) Accept() (net.Conn, error) {
	if len(l.peers) == 0 {
		return nil, net.ErrClosed
	}
	mine, other := net.Pipe()
	_ = other.Close()
	c := &fakeConn{mine, l.peers[0], l}
	l.peers = l.peers[1:]
	return c, nil
}

func (l *fakeListener) Close() error   { return nil }
func (l *fakeListener) Addr() net.Addr { return &vsock.Addr{ContextID: CIDHost, Port: 618} }

// Attack 4 on the host's side: loopback (CID 1), the host itself, the hypervisor (CID 0) and whoever has no
// privilege in a VM are closed unseen. What a VM's guest opens from a privileged port is accepted.
func TestAttack04Guests(t *testing.T) {
	at := func(cid, port uint32) net.Addr { return &vsock.Addr{ContextID: cid, Port: port} }
	accepted := []net.Addr{at(3, 1023), at(3, 1), at(77, 618), at(MaxGuestCID, 0)}
	turnedAway := []net.Addr{
		at(3, 1024), at(3, 1<<30), at(77, 1<<32-1), at(0, 1), at(1, 1), at(2, 1), at(2, 1023), &net.UnixAddr{}, &net.TCPAddr{},
	}
	inner := &fakeListener{}
	for i := range turnedAway {
		inner.peers = append(inner.peers, turnedAway[i])
		if i < len(accepted) {
			inner.peers = append(inner.peers, accepted[i])
		}
	}
	l := Guests(inner)
	for _, want := range accepted {
		c, err := l.Accept()
		if err != nil || c.RemoteAddr() != want {
			t.Fatalf("Accept = %v, %v; want one from %v", c, err, want)
		}
		if cid, ok := PeerCID(c); !ok || cid != want.(*vsock.Addr).ContextID {
			t.Errorf("PeerCID = %d, %v", cid, ok)
		}
	}
	if c, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept = %v, %v; want the end", c, err)
	}
	if len(inner.closed) != len(turnedAway) {
		t.Errorf("%d connections were closed: %v; want %d", len(inner.closed), inner.closed, len(turnedAway))
	}
}
