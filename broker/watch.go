package broker

import (
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// watchInterval is how often the broker looks whether a guest that waits for a response is still there.
// An upstream may think for minutes; nobody should pay for an answer that nobody waits for.
const watchInterval = time.Second

// watch calls gone once when the guest closes the stream. It is for exchanges whose request has been read
// to its end, when nothing else would notice. stop ends it; gone is not called afterwards.
func (c *pacedConn) watch(gone func()) (stop func()) {
	sc, ok := c.Conn.(syscall.Conn)
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
		switch {
		case ended:
		case hungUp(raw):
			gone()
		default:
			timer.Reset(watchInterval)
		}
	})
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		timer.Stop()
	}
}

// hungUp reports whether the other side has closed. A half-close is an orderly end of the requests and
// does not count.
func hungUp(raw syscall.RawConn) bool {
	closed := false
	err := raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always reported
		n, err := unix.Poll(fds, 0)
		closed = err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || closed
}
