package front

import (
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
)

// canned answers every request with size bytes of JSON, without allocating.
func canned(size int) func(*protocol.Request, *bhttp.Reader, *bhttp.Writer, net.Conn) error {
	content := []byte(strings.Repeat("j", size))
	resp := &protocol.Response{Status: 200, Fields: protocol.Fields{
		{Name: "content-type", Value: "application/json"}, {Name: "content-length", Value: strconv.Itoa(size)}, {Name: "x-request-id", Value: "0123456789"},
	}}
	return func(_ *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		var b [512]byte
		for {
			if _, err := r.Read(b[:]); err == io.EOF {
				break
			} else if err != nil {
				return err
			}
		}
		if err := r.ReadTrailer(new(protocol.Fields)); err != nil {
			return err
		}
		if err := w.WriteResponse(resp); err != nil {
			return err
		}
		if _, err := w.Write(content); err != nil {
			return err
		}
		return w.Close(nil)
	}
}

// A caller asks the same again and again on one connection, at little cost of its own.
type caller struct {
	conn net.Conn
	text []byte
	r    *http1.Reader
	head http1.ResponseHead
	b    [4 << 10]byte
}

func (h *house) caller(name, text string) *caller {
	conn := h.raw(h.addr, name)
	_ = conn.SetDeadline(time.Time{})
	return &caller{conn: conn, text: []byte(text), r: http1.NewReader(conn)}
}

func (c *caller) call(t testing.TB) {
	if _, err := c.conn.Write(c.text); err != nil {
		t.Fatal(err)
	}
	if err := c.r.ReadResponse(&c.head, "GET"); err != nil || c.head.Status != 200 {
		t.Fatal(c.head.Status, err)
	}
	for {
		if _, err := c.r.Read(c.b[:]); err == io.EOF {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

const usualGet = "GET /v1/models HTTP/1.1\r\nHost: api.example\r\nAccept: application/json\r\nAccept-Encoding: gzip, deflate\r\n" +
	"Connection: keep-alive\r\nUser-Agent: Example/Python 0.71.0\r\nX-Client-Lang: python\r\n\r\n"

var usualPost = "POST /v1/messages HTTP/1.1\r\nHost: api.example\r\nAccept: application/json\r\nConnection: keep-alive\r\n" +
	"Content-Type: application/json\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("c", 200)

// Client, front and broker together: what one request on a connection that is kept costs.
func BenchmarkKeepAlive(b *testing.B) {
	for _, m := range []struct{ name, text string }{{"GET", usualGet}, {"POST", usualPost}} {
		for _, sni := range []string{"", "api.example"} {
			b.Run(m.name+map[string]string{"": "/plain"}[sni], func(b *testing.B) {
				h := newHouse(b)
				h.broker = canned(200)
				c := h.caller(sni, m.text)
				c.call(b)
				b.ReportAllocs()
				for b.Loop() {
					c.call(b)
				}
			})
		}
	}
}

// Idle connections that have carried a response hold little memory; the client's half is in the number.
func BenchmarkIdleMemory(b *testing.B) {
	h := newHouse(b)
	h.broker = canned(30 << 10)
	const conns = 200
	measure := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for b.Loop() {
		before := measure()
		var callers []*caller
		for range conns {
			c := h.caller("api.example", usualPost)
			c.call(b)
			callers = append(callers, c)
		}
		time.Sleep(shrinkAfter + 100*time.Millisecond)
		b.ReportMetric(float64(measure()-before)/conns/1024, "KiB/conn")
		for _, c := range callers {
			c.conn.Close()
		}
	}
}
