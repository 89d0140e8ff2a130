package front

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// Whatever clients and the broker do to one another, no stream is lost: afterwards MaxStreams exchanges
// still fit at once.
func TestNoStreamIsLost(t *testing.T) {
	h := newHouse(t)
	var orderly atomic.Bool
	meeting := newMeeting(protocol.MaxStreams)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if orderly.Load() {
			meeting.wait()
			return echo(req, r, w, c)
		}
		switch rand.IntN(6) {
		case 0:
			return errors.New("abort before the response")
		case 1:
			_ = w.WriteResponse(&protocol.Response{Status: 200})
			_, _ = io.WriteString(w, "half")
			_ = w.Flush()
			return errors.New("abort within it")
		case 2:
			_ = reply(w, 413, nil, "early", nil)
			return errors.New("done early")
		}
		return echo(req, r, w, c)
	}
	texts := []string{
		"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi",
		"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 20\r\n\r\nhalf",
		"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\nx\r\n",
		"GET / HTTP/1.1\r\nHost: a@example\r\n\r\n",
	}
	var clients sync.WaitGroup
	for range 16 {
		clients.Go(func() {
			for range 60 {
				conn, err := net.Dial("tcp", h.addr)
				if err != nil {
					t.Error(err)
					return
				}
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				for range 3 {
					_, _ = io.WriteString(conn, texts[rand.IntN(len(texts))])
				}
				if rand.IntN(2) == 0 {
					_ = conn.(*net.TCPConn).CloseWrite()
					_, _ = io.Copy(io.Discard, conn)
				}
				conn.Close()
			}
		})
	}
	clients.Wait()
	orderly.Store(true)
	answers := h.askAtOnce(protocol.MaxStreams, func(int) string { return "/" })
	if answers["200"] != protocol.MaxStreams {
		t.Errorf("answers %v, want %d times 200", answers, protocol.MaxStreams)
	}
}

// A meeting ends when all have come, or some time later.
type meeting struct {
	missing atomic.Int64
	all     chan struct{}
}

func newMeeting(n int64) *meeting {
	m := &meeting{all: make(chan struct{})}
	m.missing.Store(n)
	return m
}

func (m *meeting) wait() {
	if m.missing.Add(-1) == 0 {
		close(m.all)
	}
	select {
	case <-m.all:
	case <-time.After(8 * time.Second):
	}
}

// askAtOnce makes n requests on connections of their own and counts the answers.
func (h *house) askAtOnce(n int, path func(i int) string) map[string]int {
	answers := make(chan string, n)
	for i := range n {
		conn := h.raw(h.addr, "")
		go func() { answers <- status(conn, "GET "+path(i)+" HTTP/1.1\r\nHost: a.example\r\n\r\n") }()
	}
	count := map[string]int{}
	for range n {
		count[<-answers]++
	}
	return count
}

// 512 slow exchanges at once and 488 more waiting: who gets a stream within StreamWait is served, the
// others are told to try again, and none hangs.
func TestStreamsExhausted(t *testing.T) {
	h := newHouse(t)
	const slow = 3 * time.Second
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if req.Path == "/slow" {
			time.Sleep(slow)
		}
		return echo(req, r, w, c)
	}
	begun := time.Now()
	answers := h.askAtOnce(1000, func(i int) string {
		if i%4 == 0 {
			return "/quick"
		}
		return "/slow"
	})
	if ok, refused := answers["200"], answers["503 streams_exhausted"]; ok < protocol.MaxStreams || ok+refused != 1000 || refused == 0 {
		t.Errorf("answers %v", answers)
	}
	if took := time.Since(begun); took > slow+2*protocol.StreamWait {
		t.Errorf("it took %v", took)
	}
}
