package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/broker/internal/session"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// listenPlace listens where record's guest will connect: at a socket of the session's own, at that of its
// VMM, or among the connections of its CID.
func (b *Broker) listenPlace(record *session.Session) (net.Listener, error) {
	place := record.Place()
	switch place.Network {
	case transport.VSOCK:
		return b.claimCID(place.CID)
	case transport.Hybrid:
		return listenHybrid(place, record.PeerUID())
	}
	return b.listenOwn(record)
}

// listenOwn listens at the socket b in the session's directory.
func (b *Broker) listenOwn(record *session.Session) (net.Listener, error) {
	dir := b.socketDir(record.ID())
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "b")
	addr, err := transport.ParseAddr("unix://" + path)
	if err != nil {
		return nil, err
	}
	_ = os.Remove(path) // of an earlier broker; the state lock says that it is gone
	ln, err := transport.Listen(addr, protocol.BrokerPort)
	if err != nil {
		return nil, err
	}
	if uid := record.PeerUID(); int(uid) != os.Geteuid() {
		if err := errors.Join(giveSocket(path, uid), os.Lchown(dir, int(uid), -1)); err != nil {
			return nil, errors.Join(err, ln.Close())
		}
	}
	return ln, nil
}

// giveSocket makes a socket that we have just made uid's. The directory may be uid's since an earlier broker, who could
// have put a link to somebody else's file there: nothing is given away but a socket of ours that has one name.
func giveSocket(path string, uid uint32) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFSOCK || stat.Nlink != 1 || int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("%q is not the socket that was made there", path)
	}
	return unix.Fchownat(fd, "", int(uid), -1, unix.AT_EMPTY_PATH)
}

// listenHybrid listens where a VMM of user uid, whose vsock device stands at place, brings connections to
// the broker's port.
func listenHybrid(place transport.Addr, uid uint32) (net.Listener, error) {
	ln, err := transport.ListenFor(place, protocol.BrokerPort, uid)
	if err == nil {
		return ln, nil
	}
	e := &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("the VMM's socket: %v", err),
		Hint: fmt.Sprintf("name a place in a directory that user %d may write to, and nobody else but root", uid)}
	if errors.Is(err, transport.ErrInUse) {
		e.Code, e.Hint = control.CodeConflict, "each VM needs a socket of its own; torno sessions list shows whose this one is"
	}
	return nil, e
}

// servePlace returns the address that the session's guest dials, as people and programs are told it.
func (b *Broker) servePlace(record *session.Session) string {
	switch place := record.Place(); place.Network {
	case transport.VSOCK:
		return transport.Addr{Network: transport.VSOCK, CID: transport.CIDHost, Port: b.vsockPort}.String()
	case transport.Hybrid:
		return place.String()
	}
	return "unix://" + filepath.Join(b.socketDir(record.ID()), "b")
}

// A cidListener accepts what comes from one VM on the kernel's vsock.
type cidListener struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	close func() // once
}

func (l *cidListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *cidListener) Close() error { l.close(); return nil }

func (l *cidListener) Addr() net.Addr { return l.addr }

// claimCID gives a session the connections of a CID, until the listener is closed.
func (b *Broker) claimCID(cid uint32) (net.Listener, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.machines == nil {
		return nil, &control.Error{Code: control.CodeInvalid, Message: "the broker does not listen on vsock",
			Hint: `listen = "vsock://2:618" in broker.toml, on a host with vhost_vsock`}
	}
	if b.cids[cid] != nil {
		return nil, &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("CID %d belongs to a live session", cid), Hint: "torno sessions list"}
	}
	l := &cidListener{addr: b.machines.Addr(), conns: make(chan net.Conn, vsockBacklog), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.cids, cid)
		close(l.done)
		for { // nobody adds to them any more
			select {
			case c := <-l.conns:
				c.Close()
			default:
				return
			}
		}
	})
	b.cids[cid] = l
	return l, nil
}

// openVSOCK listens on the kernel's vsock, if the operator wants that.
func (b *Broker) openVSOCK() error {
	text := b.cfg.Operator.Listen
	if text == "" {
		return nil
	}
	addr, err := transport.ParseAddr(text)
	if err == nil && addr.Network != transport.VSOCK {
		err = fmt.Errorf("listen = %q: want vsock://2:%d", text, protocol.BrokerPort)
	}
	if err != nil {
		return err
	}
	listen := b.cfg.listenVSOCK
	if listen == nil {
		listen = transport.Listen
	}
	ln, err := listen(addr, addr.Port)
	if err != nil {
		return &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("listening on %s: %v", addr, err),
			Hint: "modprobe vhost_vsock; a port below 1024 takes CAP_NET_BIND_SERVICE"}
	}
	b.machines, b.vsockPort = ln, addr.Port
	return nil
}

// maxStrangers is how many connections from CIDs without a session are answered at once; more are closed
// without a word.
const maxStrangers = 64

// serveVSOCK brings each connection to the session of the CID that it comes from, and to no other, until ctx
// ends.
func (b *Broker) serveVSOCK(ctx context.Context) {
	ln := b.machines
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	var answering sync.WaitGroup
	defer answering.Wait()
	room := make(chan struct{}, maxStrangers)
	for {
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return
		}
		if err != nil { // out of descriptors, say
			b.log.Error("accepting on vsock", "err", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		if b.deliver(c) {
			continue
		}
		select {
		case room <- struct{}{}:
			answering.Go(func() { turnAway(ctx, c); <-room })
		default:
			c.Close()
		}
	}
}

// vsockBacklog is how many connections of one CID wait for its session to take them up. There are as many only while
// the session has as many as it may have; more are closed, so that one VM never keeps the others waiting.
const vsockBacklog = 64

// deliver hands c to the session of its CID, if there is one.
func (b *Broker) deliver(c net.Conn) bool {
	cid, ok := transport.PeerCID(c)
	if !ok {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	l := b.cids[cid]
	if l == nil {
		return false
	}
	select {
	case l.conns <- c:
	default:
		c.Close()
	}
	return true
}

// turnAway tells who has no session so.
func turnAway(ctx context.Context, c net.Conn) {
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	_ = c.SetDeadline(time.Now().Add(protocol.PrefaceTimeout))
	if _, err := protocol.ReadPreface(c); err != nil {
		return
	}
	_, _ = c.Write(protocol.PrefaceReply{Version: protocol.Version, Status: protocol.StatusNoSession}.AppendTo(nil))
}
