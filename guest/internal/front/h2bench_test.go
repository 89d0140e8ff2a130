package front

import (
	"bufio"
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// An h2caller asks the same again and again on one connection, at little cost of its own.
type h2caller struct {
	raw *h2raw
	out bytes.Buffer
	in  *http2.Framer
	to  *http2.Framer
	got int
}

func (h *house) h2caller(name string) *h2caller {
	c := &h2caller{raw: h.h2raw(name)}
	_ = c.raw.conn.SetDeadline(time.Time{})
	c.in = http2.NewFramer(io.Discard, bufio.NewReaderSize(c.raw.conn, 64<<10))
	c.in.SetReuseFrames()
	c.to = http2.NewFramer(&c.out, nil)
	return c
}

func (c *h2caller) call(t testing.TB, content []byte, fields ...string) {
	c.raw.id += 2
	id := c.raw.id - 1
	c.out.Reset()
	_ = c.to.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.raw.encode(fields...), EndStream: content == nil, EndHeaders: true})
	if content != nil {
		_ = c.to.WriteData(id, true, content)
	}
	if _, err := c.raw.conn.Write(c.out.Bytes()); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := c.in.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok && len(d.Data()) > 0 {
			c.got += len(d.Data())
			if c.got > h2DefaultWindow/4 {
				_ = c.raw.framer.WriteWindowUpdate(0, uint32(c.got))
				if !d.StreamEnded() {
					_ = c.raw.framer.WriteWindowUpdate(id, uint32(c.got))
				}
				c.got = 0
			}
		}
		if f.Header().StreamID == id && f.Header().Flags.Has(http2.FlagDataEndStream) {
			return
		}
	}
}

var (
	usualH2Get = []string{":method", "GET", ":scheme", "https", ":authority", "api.example", ":path", "/v1/models", "accept", "application/json",
		"accept-encoding", "gzip, deflate", "user-agent", "Example/Python 0.71.0", "x-client-lang", "python"}
	usualH2Post = []string{":method", "POST", ":scheme", "https", ":authority", "api.example", ":path", "/v1/messages", "accept", "application/json",
		"content-type", "application/json", "content-length", "200"}
)

// As BenchmarkKeepAlive, over HTTP/2.
func BenchmarkH2(b *testing.B) {
	for _, m := range []struct {
		name    string
		fields  []string
		content []byte
	}{{"GET", usualH2Get, nil}, {"POST", usualH2Post, make([]byte, 200)}} {
		b.Run(m.name, func(b *testing.B) {
			h := newHouse(b)
			h.broker = canned(200)
			c := h.h2caller("api.example")
			c.call(b, m.content, m.fields...)
			b.ReportAllocs()
			for b.Loop() {
				c.call(b, m.content, m.fields...)
			}
		})
	}
}

// One long response.
func BenchmarkH2Download(b *testing.B) {
	h := newHouse(b)
	const size = 64 << 20
	h.broker = canned(size)
	c := h.h2caller("api.example")
	_ = c.raw.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 4 << 20})
	_ = c.raw.framer.WriteWindowUpdate(0, 4<<20)
	b.SetBytes(size)
	for b.Loop() {
		c.call(b, nil, usualH2Get...)
	}
}

func BenchmarkH2IdleMemory(b *testing.B) {
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
		var callers []*h2caller
		for range conns {
			c := h.h2caller("api.example")
			c.call(b, make([]byte, 200), usualH2Post...)
			c.in, c.to, c.raw.framer, c.raw.enc, c.out = nil, nil, nil, nil, bytes.Buffer{}
			callers = append(callers, c)
		}
		time.Sleep(shrinkAfter)
		b.ReportMetric(float64(measure()-before)/conns/1024, "KiB/conn")
		for _, c := range callers {
			c.raw.conn.Close()
		}
	}
}
