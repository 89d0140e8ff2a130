package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/transport"
)

// deadlineSlack is how far a deadline may lag behind before it is moved, so that not every read and
// write touches a timer. Idle time is cut short by as much.
const deadlineSlack = time.Minute

// A responseReader reads responses as *http1.Reader does.
type responseReader interface {
	ReadResponse(h *http1.ResponseHead, method string) error
	Read(p []byte) (int, error)
	Trailer() protocol.Fields
	Buffered() int
}

// A requestWriter writes requests as *http1.Writer does.
type requestWriter interface {
	Confide()
	WriteRequest(method, target, host string, f protocol.Fields, length int64) error
	AppendField(name string, value http1.Value) error
	Write(p []byte) (int, error)
	Flush() error
	Close(trailer protocol.Fields) error
}

// A conn is one connection and its HTTP/1.1 or HTTP/2 state. One exchange at a time has it.
type conn struct {
	origin *origin
	socket *socket
	cork   *transport.Corked // between TLS and socket; nil without TLS
	rw     net.Conn          // TLS over cork, or socket
	r      responseReader
	w      requestWriter
	h2     *h2conn // both of them, where the other side chose HTTP/2; else nil
	remote string  // the address that it leads to

	reused  bool            // it has carried an exchange before
	expires time.Time       // when it is too old to be reused; while idle
	one     [1]byte         // what a probe reads into
	fields  protocol.Fields // room for the fields of one request

	later   error     // what Read met behind bytes that it returned
	writeBy time.Time // the write deadline that is set

	mu     sync.Mutex
	phase  phase
	readBy time.Time       // the read deadline that is set
	bound  <-chan struct{} // of the context whose end cuts the connection
	unbind func() bool     // nil: none
}

// A phase says which deadline reads are held to.
type phase uint8

const (
	phaseRequest phase = iota // none: the request has not ended, and writes have theirs
	phaseHead                 // protocol.ResponseHeadTimeout from the request's end
	phaseContent              // protocol.IdleTimeout from the last byte
)

// newConn makes a conn of tcp, with a TLS handshake where the origin has TLS. In HTTP/2 the other side may send held
// bytes of content before somebody reads them. Its errors are
// *protocol.RefusedError, and tcp is then the caller's to close.
func newConn(ctx context.Context, o *origin, tcp *net.TCPConn, held int64) (*conn, error) {
	s, err := newSocket(tcp)
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonConnect, err)
	}
	c := &conn{origin: o, socket: s, rw: s}
	if o.tls != nil {
		c.cork = &transport.Corked{Conn: s}
		tc, err := handshake(ctx, c.cork, o.tls)
		if err != nil {
			return nil, err
		}
		c.rw = tc
	}
	if tc, ok := c.rw.(*tls.Conn); ok && tc.ConnectionState().NegotiatedProtocol == protoHTTP2 {
		c.h2 = newH2(c, held)
		c.r, c.w = c.h2, c.h2
	} else {
		c.r, c.w = http1.NewReader(c), http1.NewWriter(c)
	}
	if a, ok := tcp.RemoteAddr().(*net.TCPAddr); ok {
		at := a.AddrPort()
		c.remote = netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	}
	return c, nil
}

// abort closes the connection under whoever reads or writes.
func (c *conn) abort() {
	_ = c.socket.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.unbind != nil {
		c.unbind()
	}
	c.bound, c.unbind = nil, nil
}

// bind has the end of ctx cut the connection, and no other context's any more. It stays bound when an exchange has
// ended: the next one comes most often with the same context, its session's.
func (c *conn) bind(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bound == ctx.Done() {
		return
	}
	if c.unbind != nil {
		c.unbind()
	}
	c.bound, c.unbind = ctx.Done(), context.AfterFunc(ctx, c.abort)
}

// ended reports whether the context that the connection is bound to has ended.
func (c *conn) ended() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.bound:
		return true
	default:
		return false
	}
}

// Read reads within the deadline of the phase. The end of a TLS stream without close_notify is
// io.ErrUnexpectedEOF: somebody on the path may have cut it (RFC 9112 §9.8).
func (c *conn) Read(p []byte) (int, error) {
	if err := c.extendRead(); err != nil {
		return 0, err
	}
	if err := c.later; err != nil {
		c.later = nil
		return 0, err
	}
	n, err := c.rw.Read(p)
	for c.cork != nil && n >= maxRecord/2 && err == nil && len(p)-n >= maxRecord { // more has most often arrived
		var m int
		m, err = c.readNow(p[n:])
		n += m
		if m == 0 {
			break
		}
	}
	if errors.Is(err, errNothing) {
		err = nil
	}
	if errors.Is(err, io.EOF) && c.socket.eof && c.origin.tls != nil {
		err = io.ErrUnexpectedEOF
	}
	if n > 0 && err != nil {
		c.later, err = err, nil
	}
	return n, err
}

// readNow reads what has arrived, or returns errNothing.
func (c *conn) readNow(p []byte) (int, error) {
	c.socket.probing = true
	defer func() { c.socket.probing = false }()
	return c.rw.Read(p)
}

// Write writes within protocol.IdleTimeout.
func (c *conn) Write(p []byte) (int, error) {
	if now := time.Now(); c.writeBy.Sub(now) < protocol.IdleTimeout-deadlineSlack {
		c.writeBy = now.Add(protocol.IdleTimeout)
		if err := c.rw.SetWriteDeadline(c.writeBy); err != nil {
			return 0, err
		}
	}
	if c.cork == nil || len(p) <= maxRecord {
		return c.rw.Write(p)
	}
	c.cork.Cork()
	n, err := c.rw.Write(p)
	return n, errors.Join(err, c.cork.Uncork())
}

// maxRecord is how much content one TLS record holds (RFC 8446 §5.1).
const maxRecord = 16 << 10 // bytes

func (c *conn) extendRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch c.phase {
	case phaseRequest:
		return c.readUntil(time.Time{})
	case phaseContent:
		if now := time.Now(); c.readBy.Sub(now) < protocol.IdleTimeout-deadlineSlack {
			return c.readUntil(now.Add(protocol.IdleTimeout))
		}
	}
	return nil
}

// begin prepares for the next exchange. In HTTP/1.1 nobody reads yet.
func (c *conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phaseRequest
	if c.h2 != nil {
		_ = c.readUntil(time.Time{}) // fails where the connection is closed, which reads will tell
	}
}

// enterHead holds reads, one under way too, to the deadline of the response's head, unless that has
// come before the request ended.
func (c *conn) enterHead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase == phaseContent {
		return nil
	}
	c.phase = phaseHead
	err := c.readUntil(time.Now().Add(protocol.ResponseHeadTimeout))
	if c.h2 != nil {
		return nil // as in begin
	}
	return err
}

// enterContent holds reads to come to the idle deadline. In HTTP/2 one is under way already.
func (c *conn) enterContent() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.phase = phaseContent
	if c.h2 != nil {
		_ = c.readUntil(time.Now().Add(protocol.IdleTimeout)) // as in begin
	}
}

// postpone moves the read deadline that has passed.
func (c *conn) postpone() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.readUntil(time.Now().Add(protocol.IdleTimeout))
}

func (c *conn) readUntil(t time.Time) error {
	if c.readBy.Equal(t) {
		return nil
	}
	c.readBy = t
	return c.rw.SetReadDeadline(t)
}

var errUnasked = errors.New("upstream sent bytes that nobody asked for")

// probe returns nil if an idle connection is still open and silent, io.EOF if the other side closed
// it. TLS's own messages are no harm.
func (c *conn) probe() error {
	if time.Now().After(c.expires) {
		return io.EOF
	}
	if c.h2 != nil {
		return c.h2.usable()
	}
	if c.r.Buffered() > 0 {
		return errUnasked
	}
	n, err := c.readNow(c.one[:])
	switch {
	case n > 0:
		return errUnasked
	case errors.Is(err, errNothing):
		return nil
	case err == nil:
		return errUnasked
	}
	return err
}
