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

// An aborter is an exchange with an upstream that can be cut from any goroutine.
type aborter interface{ Abort() }

// A watch looks after the streams of a session whose request has been read to its end, when nothing else would notice
// that the guest is gone.
type watch struct {
	mu      sync.Mutex
	waiting map[*stream]aborter
}

// add has up aborted once the guest closes st, until remove.
func (w *watch) add(st *stream, up aborter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting == nil {
		w.waiting = map[*stream]aborter{}
	}
	w.waiting[st] = up
}

// remove ends what add began; nothing is aborted afterwards.
func (w *watch) remove(st *stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiting, st)
}

// watchAll looks after the streams of all sessions until done is closed.
func (b *Broker) watchAll(done <-chan struct{}) {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case <-tick.C:
			for _, s := range b.all() {
				s.watch.look()
			}
		}
	}
}

func (w *watch) look() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for st, up := range w.waiting {
		if st.conn.hungUp() {
			up.Abort()
			delete(w.waiting, st)
		}
	}
}

// hungUp reports whether the guest has closed the stream. A half-close is an orderly end of the requests and
// does not count, and a connection that can't be looked at has not.
func (c *pacedConn) hungUp() bool {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd)}} // POLLHUP and POLLERR are always reported
		n, err := unix.Poll(fds, 0)
		closed = err == nil && n == 1 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
	})
	return err != nil || closed
}
