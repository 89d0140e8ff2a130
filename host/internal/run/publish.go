package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"torno.internal/protocol"
)

// A Published is a port of the workload's that clients on this machine reach.
type Published struct {
	Listener *net.TCPListener // Serve closes it
	Port     uint16           // where the server listens inside
}

// clients are those of published ports: each waits for the guest to open a stream for it.
type clients struct {
	room chan struct{} // one for each that there may be

	mu      sync.Mutex
	last    uint64
	waiting map[uint64]*net.TCPConn
}

func newClients() *clients {
	return &clients{room: make(chan struct{}, protocol.MaxPublished), waiting: map[uint64]*net.TCPConn{}}
}

// add has c wait, under a number of its own.
func (w *clients) add(c *net.TCPConn) uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last++
	w.waiting[w.last] = c
	return w.last
}

// claim returns the client of that number, if it still waits. Who gets it sees it to its end.
func (w *clients) claim(number uint64) *net.TCPConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := w.waiting[number]
	delete(w.waiting, number)
	return c
}

// reset ends a client as where nobody listens, and makes room for another.
func (w *clients) reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
	<-w.room
}

// resetAll resets those that still wait.
func (w *clients) resetAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for number, c := range w.waiting {
		delete(w.waiting, number)
		w.reset(c)
	}
}

// publish takes clients, as many as there is room for, and has the guest lead them on.
func (s *server) publish(p Published) {
	for {
		select {
		case s.clients.room <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := p.Listener.AcceptTCP()
		if err != nil {
			<-s.clients.room
			if errors.Is(err, net.ErrClosed) || s.ctx.Err() != nil {
				return
			}
			s.Log.Error("published port", "error", err)
			time.Sleep(50 * time.Millisecond) // out of descriptors, say
			continue
		}
		if !s.isStarted() {
			s.clients.reset(c)
			continue
		}
		number := s.clients.add(c)
		time.AfterFunc(protocol.PublishTimeout, func() {
			if c := s.clients.claim(number); c != nil {
				s.clients.reset(c)
			}
		})
		s.send(protocol.RunEvent{Type: protocol.RunConnect, Port: p.Port, Number: number})
	}
}

// published joins a stream of the guest's to the client that it is for.
func (s *server) published(st *stream, path string) error {
	text := strings.TrimPrefix(path, protocol.PathPublished)
	number, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(number, 10) != text {
		return errors.Join(st.answer(400), fmt.Errorf("no number: %q", text))
	}
	client := s.clients.claim(number)
	if client == nil {
		return errors.Join(st.answer(404), fmt.Errorf("nobody waits under number %d", number))
	}
	stop := context.AfterFunc(s.ctx, func() { _ = client.SetDeadline(time.Unix(1, 0)) }) // the run is over
	err = st.join(client)
	stop()
	if err != nil {
		s.clients.reset(client)
		return err
	}
	client.Close()
	<-s.clients.room
	return nil
}

// join carries bytes both ways until both have ended. An error of one ends the other.
func (st *stream) join(client *net.TCPConn) error {
	if err := st.head(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- st.copyFrom(client) }()
	outward := st.copyTo(client)
	if outward != nil { // the guest is gone, or the client
		_ = client.SetReadDeadline(time.Unix(1, 0))
		st.conn.Close()
	}
	return errors.Join(outward, <-ended)
}

// copyFrom sends what the client says, and its end, as the response's content.
func (st *stream) copyFrom(client *net.TCPConn) error {
	buf := make([]byte, copyBuffer)
	for {
		n, err := client.Read(buf)
		if n > 0 {
			if _, err := st.w.Write(buf[:n]); err != nil {
				return err
			}
			if err := st.w.Flush(); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return st.w.Close(nil)
		}
		if err != nil {
			st.conn.Close()
			return err
		}
	}
}

// copyTo gives the client the request's content, and its end.
func (st *stream) copyTo(client *net.TCPConn) error {
	buf := make([]byte, copyBuffer)
	for {
		n, err := st.r.Read(buf)
		if n > 0 {
			if _, err := client.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
	}
	var trailer protocol.Fields
	if err := st.r.ReadTrailer(&trailer); err != nil {
		return err
	}
	return client.CloseWrite()
}
