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

// watch cuts the stream when the client closes its connection before the response has ended. It looks
// only while the request has been read whole, when nothing else would notice. stop ends it.
func (c *conn) watch(s *relay.Stream) (stop func()) {
	sc, ok := c.tcp.(syscall.Conn)
	if !ok {
		return func() {}
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return func() {}
	}
	var mu sync.Mutex
	ended := false
	var timer *time.Timer
	timer = time.AfterFunc(watchInterval, func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		if gone(raw, c.scheme == "https") {
			s.Cut()
			return
		}
		timer.Reset(watchInterval)
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		timer.Stop()
	}
}

// gone reports whether the peer has closed. Over TLS its end of file is enough; over plain HTTP a
// half-close may just mean that no further request follows.
func gone(raw syscall.RawConn, overTLS bool) bool {
	closed := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := unix.Poll(fds, 0); n == 1 && err == nil {
			closed = fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 || overTLS && fds[0].Revents&unix.POLLRDHUP != 0
		}
	})
	return err != nil || closed
}
