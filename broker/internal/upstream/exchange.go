package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// An Exchange is one request and its response. One goroutine may write while another reads; Abort may
// come from anywhere. Release ends it in every case, after both are done.
type Exchange struct {
	pool *pool
	conn *conn

	// the writer's
	method string
	creds  []credential.Field // for their names
	sent   bool               // the request has ended cleanly
	key    string             // of a WebSocket's handshake; empty: there is none

	// the reader's
	head     http1.ResponseHead
	final    bool // the final response's head was read
	received bool // the response has ended cleanly
	raw      bool // the connection carries a WebSocket now
	trailer  protocol.Fields
	keep     time.Duration // how long the other side lets the connection be idle

	mu       sync.Mutex
	released bool
}

func newExchange(ctx context.Context, p *pool, c *conn) *Exchange {
	c.begin()
	c.bind(ctx)
	return &Exchange{pool: p, conn: c, keep: idleTimeout}
}

// Remote returns the address that the exchange's connection leads to, as host:port.
func (x *Exchange) Remote() string { return x.conn.remote }

// Reused reports whether the connection has carried an exchange before.
func (x *Exchange) Reused() bool { return x.conn.reused }

// Abort cuts the connection: reads and writes under way fail. It may be called at any time, from any
// goroutine; after Release it does nothing.
func (x *Exchange) Abort() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.released {
		x.conn.abort()
	}
}

// Release ends the exchange. If reusable is true, both messages have ended cleanly and the other side
// agrees, the connection is kept for the next one; else it is closed. Only Abort and Release may be
// called afterwards, and do nothing.
func (x *Exchange) Release(reusable bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.released {
		return
	}
	x.released = true
	x.creds = nil
	if reusable && !x.conn.ended() && x.sent && x.clean() {
		x.pool.put(x.conn, x.keep)
		return
	}
	x.pool.drop(x.conn)
	_ = x.conn.w.Flush() // to nowhere: wipes a credential that was not sent
}

// clean reports whether the response has ended cleanly, with nothing behind it, on a connection that the
// other side keeps.
func (x *Exchange) clean() bool {
	if x.raw {
		return false
	}
	if x.final && x.head.ContentLength == 0 { // nobody needs to have read that there is nothing
		_, _ = x.Read(x.conn.one[:])
	}
	if h := x.conn.h2; h != nil && h.usable() != nil {
		return false
	}
	return x.received && x.head.KeepAlive && x.conn.r.Buffered() == 0
}

// errEnded stops who writes on after the request's end, when the connection may be another's.
var errEnded = errors.New("upstream: the request has ended")

// refuse gives err, from reading or writing, its reason.
func refuse(err error) error {
	var malformed *http1.Error
	reason := protocol.ReasonUpstreamProtocol
	switch {
	case errors.As(err, &malformed):
		reason = malformed.Reason
	case errors.Is(err, net.ErrClosed):
		reason = protocol.ReasonSessionEnded
	case isTimeout(err):
		reason = protocol.ReasonUpstreamTimeout
	case isAlert(err):
		reason = protocol.ReasonUpstreamTLS
	}
	return protocol.Refuse(reason, err)
}

// isAlert reports whether the other side ended TLS with an alert: in TLS 1.3 it looks at a client's certificate
// only when the handshake has ended for us.
func isAlert(err error) bool {
	var oe *net.OpError
	return errors.As(err, &oe) && oe.Op == "remote error"
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// cutOff is refuse for content: whatever the cause, it matches io.ErrUnexpectedEOF and never io.EOF.
func cutOff(what string, err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(fmt.Errorf("%s: %w", what, err))
	}
	return refuse(fmt.Errorf("%s: %w: %w", what, io.ErrUnexpectedEOF, err))
}
