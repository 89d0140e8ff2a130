package front

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// maxConns is how many connections one listener serves at once. When there are as many, the one that has
// been idle longest makes room; where none is idle, further ones wait to be accepted.
const maxConns = 1024

// A server serves the connections of one listener.
type server struct {
	slots chan struct{}

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// serve serves connections until ctx ends or the listener fails. It returns once all of them have ended.
func (f *Front) serve(ctx context.Context, ln net.Listener, prepare func(net.Conn) *conn) error {
	ctx, cancel := context.WithCancel(ctx)
	s := &server{slots: make(chan struct{}, maxConns), conns: map[*conn]struct{}{}}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	running.Go(func() { s.watch(ctx) })
	for s.takeSlot(ctx) {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return err
		}
		running.Go(func() {
			defer func() { <-s.slots }()
			defer nc.Close()
			defer context.AfterFunc(ctx, func() { nc.Close() })()
			c := prepare(nc)
			s.add(c)
			defer s.remove(c)
			c.serve(ctx)
		})
	}
	return nil
}

// takeSlot makes or waits for room for one more connection. It returns false when ctx has ended.
func (s *server) takeSlot(ctx context.Context) bool {
	const pause = 50 * time.Millisecond
	for {
		select {
		case s.slots <- struct{}{}:
			return ctx.Err() == nil
		default:
		}
		s.closeIdle()
		select {
		case s.slots <- struct{}{}:
			return true
		case <-time.After(pause):
		case <-ctx.Done():
			return false
		}
	}
}

func (s *server) add(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = struct{}{}
}

func (s *server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// closeIdle closes the connection that has waited longest for its next request.
func (s *server) closeIdle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest *conn
	var since time.Time
	for c := range s.conns {
		if t, idle := c.idleSince(); idle && (oldest == nil || t.Before(since)) {
			oldest, since = c, t
		}
	}
	if oldest != nil {
		oldest.tcp.Close()
	}
}

// watch looks after connections whose client may have gone, until ctx ends.
func (s *server) watch(ctx context.Context) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		s.mu.Lock()
		for c := range s.conns {
			c.look()
		}
		s.mu.Unlock()
	}
}
