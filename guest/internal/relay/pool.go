package relay

import (
	"context"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// A Pool opens forward streams and keeps idle ones for the next exchange. It is safe for concurrent use.
type Pool struct {
	dial  Dialer
	token protocol.Token
	slots chan struct{} // one taken per stream in use

	mu   sync.Mutex
	idle []*Stream // last used last
}

// New returns a Pool of streams that present token.
func New(dial Dialer, token protocol.Token) *Pool {
	return &Pool{dial: dial, token: token, slots: make(chan struct{}, protocol.MaxStreams)}
}

// Open returns a stream for one exchange, an idle one if there is one. When MaxStreams are in use it
// waits, at most StreamWait, and then refuses with ReasonStreamsExhausted. It refuses with
// ReasonBrokerUnavailable when the broker can't be reached. Release or Abort the stream when done.
func (p *Pool) Open(ctx context.Context) (*Stream, error) {
	if err := p.take(ctx); err != nil {
		return nil, err
	}
	if s := p.reuse(); s != nil {
		return s, nil
	}
	c, err := p.dial(ctx)
	if err != nil {
		<-p.slots
		return nil, protocol.Refuse(protocol.ReasonBrokerUnavailable, err)
	}
	s := newStream(c, protocol.Preface{Version: protocol.Version, Kind: protocol.KindForward, Token: p.token})
	s.pool = p
	return s, nil
}

// maxIdle is how long a stream may be idle and still be used: the broker closes it soon after, and a
// request that is on its way then would be lost.
const maxIdle = protocol.StreamIdleTimeout - 30*time.Second

// take takes a slot, waiting if there is none.
func (p *Pool) take(ctx context.Context) error {
	select {
	case p.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(protocol.StreamWait)
	defer wait.Stop()
	select {
	case p.slots <- struct{}{}:
		return nil
	case <-wait.C:
		return protocol.Refuse(protocol.ReasonStreamsExhausted, nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// reuse returns the idle stream that was used last and still stands, or nil.
func (p *Pool) reuse() *Stream {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		s := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if time.Since(s.since) < maxIdle && s.quiet() {
			return s
		}
		s.close()
	}
}

// Release gives back a stream whose request and response have both ended.
func (s *Stream) Release() {
	p := s.pool
	if p == nil {
		return
	}
	s.used, s.since = true, time.Now()
	p.mu.Lock()
	keep := len(p.idle) < protocol.MaxIdleStreams && s.r.Buffered() == 0
	if keep {
		p.idle = append(p.idle, s)
	}
	p.mu.Unlock()
	if !keep {
		s.close()
	}
	<-p.slots
}

// Abort closes the stream in the middle of an exchange: the broker then aborts it upstream. After it,
// reads and writes under way fail. Only the first of Release and Abort counts; call neither twice from
// two goroutines.
func (s *Stream) Abort() {
	s.close()
	if s.pool != nil {
		<-s.pool.slots
		s.pool = nil
	}
}

// Cut makes reads and writes under way fail, from any goroutine. Abort must still follow.
func (s *Stream) Cut() { s.close() }

// Close closes the idle streams.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range p.idle {
		s.close()
	}
	p.idle = nil
}

// quiet reports whether an idle stream still stands: nothing has arrived, not even its end. A kind of
// connection that can't be looked at counts as quiet.
func (s *Stream) quiet() bool {
	if s.peek == nil {
		sc, ok := s.conn.Conn.(syscall.Conn)
		if !ok {
			return true
		}
		raw, err := sc.SyscallConn()
		if err != nil {
			return false
		}
		s.peek = &peek{raw: raw}
		s.peek.look = s.peek.poll
	}
	return s.peek.raw.Control(s.peek.look) == nil && s.peek.quiet
}

// A peek looks at a connection without reading; it is kept, since every exchange needs one.
type peek struct {
	raw   syscall.RawConn
	look  func(fd uintptr)
	quiet bool
}

func (p *peek) poll(fd uintptr) {
	fds := [1]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLRDHUP}}
	n, err := unix.Poll(fds[:], 0)
	p.quiet = n == 0 && err == nil
}
