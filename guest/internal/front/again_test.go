package front

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// A pooled stream that the broker closes as the request arrives: what is safe is sent again, once.
func TestStaleStream(t *testing.T) {
	for _, c := range []struct {
		name, text string
		stale      int64 // exchanges that find their stream closed
		want       string
	}{
		{"GET", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 1, "200"},
		{"GET with content", "GET / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi", 1, "200"},
		{"GET twice", "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n", 2, "503 broker_unavailable"},
		{"POST", "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 2\r\n\r\nhi", 1, "503 broker_unavailable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHouse(t)
			var stale atomic.Int64
			h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, nc net.Conn) error {
				if stale.Add(-1) >= 0 {
					return errors.New("closed")
				}
				return echo(req, r, w, nc)
			}
			conn := h.raw(h.addr, "a.example")
			if got := status(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); got != "200" {
				t.Fatal(got) // its stream is pooled now
			}
			stale.Store(c.stale)
			if got := status(conn, c.text); got != c.want {
				t.Errorf("answer %q, want %q", got, c.want)
			}
			if c.want == "200" {
				return
			}
			stale.Store(0)
			if got := status(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"); got != "200" {
				t.Errorf("after it: %q", got)
			}
		})
	}
}

// A new stream is no stale one: the broker that fails on it may have acted, so nothing is sent again.
func TestBrokerFails(t *testing.T) {
	h := newHouse(t)
	h.broker = func(*protocol.Request, *bhttp.Reader, *bhttp.Writer, net.Conn) error { return errors.New("failed") }
	conn := h.raw(h.addr, "a.example")
	fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "1" || resp.Header.Get(protocol.FieldReason) != "broker_unavailable" || h.asked.Load() != 1 {
		t.Errorf("%d %v after %d exchanges", resp.StatusCode, resp.Header, h.asked.Load())
	}
}

// What the preface is answered with becomes the answer to the request; too many streams may pass.
func TestStreamRefused(t *testing.T) {
	for _, c := range []struct {
		status protocol.Status
		times  int64
		want   string
	}{
		{protocol.StatusBusy, 3, "200"},
		{protocol.StatusBusy, 1000, "503 streams_exhausted"},
		{protocol.StatusToken, 1, "403 session_ended"},
		{protocol.StatusNoSession, 1, "403 session_ended"},
		{protocol.StatusVersion, 1, "403 session_ended"},
	} {
		for _, text := range []string{
			"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n",
			"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		} {
			t.Run(fmt.Sprint(c.status, c.times, text[:4]), func(t *testing.T) {
				t.Parallel()
				h := newHouse(t)
				h.refusal.Store(int64(c.status))
				h.refusals.Store(c.times)
				begun := time.Now()
				if got := status(h.raw(h.addr, "a.example"), text); got != c.want {
					t.Errorf("answer %q, want %q", got, c.want)
				}
				if c.times == 1000 && time.Since(begun) < protocol.StreamWait {
					t.Errorf("gave up after %v", time.Since(begun))
				}
			})
		}
	}
}

// A broker that refuses a long upload and closes the stream is heard, though the upload fails.
func TestRefusedUpload(t *testing.T) {
	h := newHouse(t)
	h.broker = func(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		resp, content := protocol.Refusal(protocol.ReasonDenied)
		_ = w.WriteResponse(&resp)
		_, _ = w.Write(content)
		_ = w.Close(nil)
		_, _ = io.CopyN(io.Discard, r, 64<<10)
		return errors.New("closed with content unread")
	}
	for i := range 20 {
		conn := h.raw(h.addr, "a.example")
		go func() {
			fmt.Fprint(conn, "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 100000000\r\n\r\n")
			_, _ = conn.Write(make([]byte, 1<<20)) // fails once the front has closed
		}()
		if got := status(conn, ""); got != "403 denied" {
			t.Fatalf("upload %d: %q", i, got)
		}
		conn.Close()
	}
}

// A broker that fails after an interim response: the client is told, and the stream is not used again.
func TestBrokerFailsAfterInterim(t *testing.T) {
	h := newHouse(t)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		if req.Path == "/whole" {
			return echo(req, r, w, c)
		}
		_ = w.WriteResponse(&protocol.Response{Status: 103})
		_ = w.Flush()
		if req.Path == "/malformed" {
			_, _ = c.Write([]byte{0x40, 0x01}) // a status that is longer than needed
			_, _ = io.Copy(io.Discard, c)
		}
		return errors.New("failed")
	}
	for _, path := range []string{"/cut", "/malformed"} {
		conn := h.raw(h.addr, "a.example")
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a.example\r\n\r\n", path)
		b, err := io.ReadAll(conn)
		if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 103 ") || !strings.Contains(string(b), "HTTP/1.1 503 ") {
			t.Errorf("%s: %q, %v", path, b, err)
		}
		if got := status(h.raw(h.addr, "a.example"), "POST /whole HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0\r\n\r\n"); got != "200" {
			t.Errorf("after %s: %q", path, got)
		}
	}
}
