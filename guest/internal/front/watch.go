package front

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/relay"
)

// watchInterval is how often the front looks whether a client that waits for its response is still
// there. A call to a language model may take minutes; nobody should pay for one that nobody waits for.
const watchInterval = time.Second

// An activity is what a connection is doing, for those who look at it from outside.
type activity struct {
	raw syscall.RawConn // nil where the connection can't be looked at

	mu      sync.Mutex
	stream  *relay.Stream // held by the exchange under way, nil between exchanges
	overTLS bool
	gone    bool      // the client was found gone and the stream cut
	idle    time.Time // since when the connection waits for a request; zero while it does not
}

// hold says which stream the exchange under way uses.
func (c *conn) hold(s *relay.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream, c.overTLS = s, c.scheme == "https"
	if c.gone {
		s.Cut()
	}
}

// cut aborts the exchange under way, or the next: its client is gone.
func (c *conn) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gone = true
	if c.stream != nil {
		c.stream.Cut()
	}
}

// release gives the stream back, or aborts it unless whole, and reports whether the client is gone.
func (c *conn) release(s *relay.Stream, whole bool) (gone bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stream = nil
	if whole && !c.gone {
		s.Release()
	} else {
		s.Abort()
	}
	return c.gone
}

// setIdle says since when the connection waits for a request, or that it no longer does.
func (c *conn) setIdle(since time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = since
}

func (c *conn) idleSince() (time.Time, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.idle, !c.idle.IsZero()
}

// look cuts the exchange under way if the client has closed its connection.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil || c.gone || c.raw == nil || !hasClosed(c.raw, c.overTLS) {
		return
	}
	c.gone = true
	c.stream.Cut()
}

// hasClosed reports whether the peer has closed. Over TLS its end of file is enough; over plain HTTP a
// half-close may just mean that no further request follows.
func hasClosed(raw syscall.RawConn, overTLS bool) bool {
	closed := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); n == 1 && err == nil {
			closed = fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 || overTLS && fds[0].Revents&unix.POLLRDHUP != 0
		}
	})
	return err != nil || closed
}

// rawConn returns what hasClosed looks at, or nil.
func rawConn(nc any) syscall.RawConn {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}
