package broker

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A stream is one connection of a guest, after its preface.
type stream struct {
	conn *pacedConn
	r    *bhttp.Reader
	w    *bhttp.Writer
	req  protocol.Request // reused from exchange to exchange
}

// accept reads the preface of a new connection, judges it and answers it. Whatever the guest sends
// before the answer costs it one buffer. A stream that is let in counts until leave.
func (s *live) accept(nc net.Conn) (*stream, protocol.Preface, error) {
	_ = nc.SetDeadline(time.Now().Add(protocol.PrefaceTimeout))
	p, err := protocol.ReadPreface(nc)
	if err != nil {
		return nil, p, err
	}
	status := s.judge(p)
	if status == protocol.StatusOK && !s.enter(p.Kind) {
		status = protocol.StatusBusy
	}
	reply := protocol.PrefaceReply{Version: min(p.Version, protocol.Version), Status: status}
	if status == protocol.StatusVersion {
		reply.Version = protocol.Version
	}
	if _, err := nc.Write(reply.AppendTo(nil)); err != nil {
		if status == protocol.StatusOK {
			s.leave(p.Kind)
		}
		return nil, p, err
	}
	if status != protocol.StatusOK {
		return nil, p, &protocol.StatusError{Status: status, Version: p.Version}
	}
	_ = nc.SetDeadline(time.Time{})
	conn := &pacedConn{Conn: nc}
	return &stream{conn: conn, r: bhttp.NewReader(conn), w: bhttp.NewWriter(conn)}, p, nil
}

// judge decides on a preface. Hello needs no token; every other kind needs the session's own.
func (s *live) judge(p protocol.Preface) protocol.Status {
	switch {
	case p.Version < protocol.MinVersion || p.Version > protocol.Version:
		return protocol.StatusVersion
	case s.ctx.Err() != nil:
		return protocol.StatusNoSession
	}
	switch p.Kind {
	case protocol.KindHello:
		if s.record.HelloUsed() {
			return protocol.StatusHelloUsed
		}
		return protocol.StatusOK
	case protocol.KindChannel, protocol.KindForward:
		if err := s.record.UseToken(p.Token); err != nil {
			return protocol.StatusToken
		}
		return protocol.StatusOK
	}
	return protocol.StatusKind
}

// channelStreams is how many streams a session may have for hello, leaves and events.
const channelStreams = 16

// enter counts a new stream, unless there are too many of its kind.
func (s *live) enter(kind protocol.Kind) bool {
	count, limit := s.count(kind)
	if count.Add(1) > limit {
		count.Add(-1)
		return false
	}
	return true
}

// leave takes a stream off the count.
func (s *live) leave(kind protocol.Kind) {
	count, _ := s.count(kind)
	count.Add(-1)
}

func (s *live) count(kind protocol.Kind) (count *atomic.Int64, limit int64) {
	if kind == protocol.KindForward {
		return &s.stats.forward, protocol.MaxStreams
	}
	return &s.stats.channel, channelStreams
}

// serve runs one stream of kind kind until it ends.
func (s *live) serve(ctx context.Context, st *stream, kind protocol.Kind) error {
	handle := s.exchange
	if kind != protocol.KindForward {
		handle = func(ctx context.Context, st *stream) (bool, error) { return s.channel(ctx, st, kind) }
	}
	for {
		if err := st.nextHead(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		reusable, err := handle(ctx, st)
		if err != nil || !reusable {
			return err
		}
	}
}

// nextHead reads the next request head. The stream may be idle for StreamIdleTimeout before it; a head
// that has begun must end within HeadTimeout.
func (st *stream) nextHead() error {
	st.conn.await(protocol.StreamIdleTimeout)
	if err := st.r.Await(); err != nil {
		return err
	}
	st.conn.await(protocol.HeadTimeout)
	if err := st.r.ReadRequest(&st.req); err != nil {
		return err
	}
	st.conn.flow(time.Now())
	return nil
}

// A pacedConn moves the deadlines of content forward as it flows: a guest may pause for IdleTimeout, in
// either direction. Read and Write may each be called by one goroutine at a time.
type pacedConn struct {
	net.Conn
	reads, writes time.Time // when the deadline was last moved
}

// refresh is how old a deadline may grow before it is moved again: moving it on every read would cost
// a timer update each.
const refresh = time.Minute

func (c *pacedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if now := time.Now(); n > 0 && !c.reads.IsZero() && now.Sub(c.reads) > refresh {
		c.flow(now)
	}
	return n, err
}

// flow begins the content's deadline.
func (c *pacedConn) flow(now time.Time) {
	c.reads = now
	_ = c.Conn.SetReadDeadline(now.Add(protocol.IdleTimeout))
}

// await gives the guest d for what comes next, and suspends flow.
func (c *pacedConn) await(d time.Duration) {
	c.reads = time.Time{}
	_ = c.Conn.SetReadDeadline(time.Now().Add(d))
}

func (c *pacedConn) Write(p []byte) (int, error) {
	c.writing()
	return c.Conn.Write(p)
}

// WriteBuffers writes several buffers in one system call.
func (c *pacedConn) WriteBuffers(b *net.Buffers) (int64, error) {
	c.writing()
	return b.WriteTo(c.Conn)
}

func (c *pacedConn) writing() {
	if now := time.Now(); now.Sub(c.writes) > refresh {
		c.writes = now
		_ = c.Conn.SetWriteDeadline(now.Add(protocol.IdleTimeout))
	}
}
