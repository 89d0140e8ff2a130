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
	req  protocol.Request  // reused from exchange to exchange
	resp protocol.Response // as well
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
	for {
		if err := st.nextHead(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		var reusable bool
		var err error
		if kind == protocol.KindForward {
			reusable, err = s.exchange(ctx, st)
		} else {
			reusable, err = s.channel(ctx, st, kind)
		}
		if err != nil || !reusable {
			return err
		}
	}
}

// nextHead reads the next request head. The stream may be idle for StreamIdleTimeout before it; a head
// that has begun must end within HeadTimeout.
func (st *stream) nextHead() error {
	st.conn.enter(phaseIdle)
	if err := st.r.Await(); err != nil {
		return err
	}
	st.conn.enter(phaseHead)
	if err := st.r.ReadRequest(&st.req); err != nil {
		return err
	}
	st.conn.enter(phaseContent)
	return nil
}

// A phase says which deadline the reads of a stream are held to.
type phase uint8

const (
	phaseIdle    phase = iota // protocol.StreamIdleTimeout for the first byte of a head
	phaseHead                 // protocol.HeadTimeout for the whole head
	phaseContent              // protocol.IdleTimeout for each next byte
	phaseSet                  // whatever SetReadDeadline said
)

// A pacedConn holds a guest to the deadlines of the phase that its stream is in, and moves those of content forward as
// it flows, in either direction. They are set when a read really waits for the guest, and moved when they are
// off by more than their slack: most exchanges arrive whole and touch no timer. Read and Write may each be called by
// one goroutine at a time.
type pacedConn struct {
	net.Conn
	phase  phase
	begun  bool      // the phase's deadline is set
	until  time.Time // the read deadline that is set
	writes time.Time // when the write deadline was last moved
}

// Slacks of deadlines: how much may be missing from one before it is moved.
const (
	idleSlack    = 10 * time.Second
	contentSlack = time.Minute
)

// enter begins a phase.
func (c *pacedConn) enter(p phase) { c.phase, c.begun = p, false }

func (c *pacedConn) Read(p []byte) (int, error) {
	switch c.phase {
	case phaseIdle:
		c.hold(protocol.StreamIdleTimeout, idleSlack)
	case phaseHead:
		if !c.begun { // it bounds the whole head, so it is not moved
			c.hold(protocol.HeadTimeout, 0)
		}
	case phaseContent:
		c.hold(protocol.IdleTimeout, contentSlack)
	}
	c.begun = true
	return c.Conn.Read(p)
}

// hold makes the read deadline d from now, unless it is that already but for the slack.
func (c *pacedConn) hold(d, slack time.Duration) {
	now := time.Now()
	if left := c.until.Sub(now); left <= d && left > d-slack {
		return
	}
	c.until = now.Add(d)
	_ = c.Conn.SetReadDeadline(c.until) // fails where the connection is closed, which Read will tell
}

// SetReadDeadline takes the deadline out of the phases' hands until the next one is entered. It reaches a read that is
// under way.
func (c *pacedConn) SetReadDeadline(t time.Time) error {
	c.phase, c.until = phaseSet, t
	return c.Conn.SetReadDeadline(t)
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
	if now := time.Now(); now.Sub(c.writes) > contentSlack {
		c.writes = now
		_ = c.Conn.SetWriteDeadline(now.Add(protocol.IdleTimeout))
	}
}
