package front

import (
	"errors"
	"net"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// Floods: each is sent for as long as the front takes it, at most for floodTime, and no answer is read.
const (
	floodTime   = 500 * time.Millisecond
	floodMemory = 3 << 20 // bytes that the front may hold meanwhile
)

// A client that floods gets no memory but what one connection may have, and other clients are served.
func TestAttack19FloodH2(t *testing.T) {
	request := with(getH2(), ":scheme", "http")
	post := with(request, ":method", "POST")
	for name, flood := range map[string]struct {
		ends bool // the front takes no more
		send func(c *h2raw) error
	}{
		"PING": {true, func(c *h2raw) error { return c.framer.WritePing(false, [8]byte{}) }},
		"SETTINGS": {true, func(c *h2raw) error {
			return c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
		}},
		"large SETTINGS": {true, func(c *h2raw) error {
			return c.framer.WriteSettings(make([]http2.Setting, h2MaxFrame/h2SettingEntry)...)
		}},
		"PRIORITY":       {false, func(c *h2raw) error { return c.framer.WritePriority(1, http2.PriorityParam{StreamDep: 3}) }},
		"unknown frames": {false, func(c *h2raw) error { return c.framer.WriteRawFrame(0xbb, 0, 0, nil) }},
		"CONTINUATION": {true, func(c *h2raw) error {
			if c.id == 0 {
				c.id = 1
				return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(request...)})
			}
			return c.framer.WriteContinuation(1, false, nil)
		}},
		"large CONTINUATION": {true, func(c *h2raw) error {
			if c.id == 0 {
				c.id = 1
				return c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(request...)})
			}
			return c.framer.WriteContinuation(1, false, make([]byte, h2MaxFrame))
		}},
		"rapid reset": {true, func(c *h2raw) error {
			_ = c.headers(true, request...)
			return c.framer.WriteRSTStream(c.id, http2.ErrCodeCancel)
		}},
		"rapid reset by error": {true, func(c *h2raw) error {
			_ = c.headers(false, post...)
			return c.framer.WriteWindowUpdate(c.id, 0)
		}},
		"malformed requests": {true, func(c *h2raw) error {
			return c.headers(true, append(request, "connection", "close")...)
		}},
		"more streams than allowed": {true, func(c *h2raw) error {
			_ = c.headers(false, post...)
			return c.framer.WriteWindowUpdate(c.id, 1)
		}},
		"empty DATA": {false, func(c *h2raw) error {
			if c.id == 0 {
				_ = c.headers(false, post...)
			}
			return c.framer.WriteData(c.id, false, nil)
		}},
		"content that nobody reads": {true, func(c *h2raw) error {
			if err := c.headers(false, post...); err != nil {
				return err
			}
			for range 3 { // a little less than the stream's window
				if err := c.framer.WriteData(c.id, false, make([]byte, h2MaxFrame)); err != nil {
					return err
				}
			}
			return nil
		}},
		"WINDOW_UPDATE": {true, func(c *h2raw) error {
			if c.id == 0 {
				_ = c.headers(false, post...)
			}
			return c.framer.WriteWindowUpdate(0, 1<<20)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
				if req.Path == "/echo" {
					return echo(req, r, w, c)
				}
				return hang(req, r, w, c)
			}
			c := h.h2pipe()
			before := heap()
			most, sent := uint64(0), 0
			end := time.Now().Add(floodTime)
			if flood.ends {
				end = end.Add(10 * time.Second)
			}
			var err error
			for ; err == nil && time.Now().Before(end); sent++ {
				_ = c.conn.SetWriteDeadline(time.Now().Add(floodTime))
				err = flood.send(c)
				if sent%5000 == 0 {
					most = max(most, heap())
				}
			}
			if most = max(most, heap()); most > before+floodMemory {
				t.Errorf("%d KiB of memory", (most-before)>>10)
			}
			if flood.ends != (err != nil) {
				t.Errorf("after %d: %v", sent, err)
			}
			if n := h.asked.Load(); n > h2Resets+h2MaxStreams {
				t.Errorf("%d exchanges", n)
			}
			if got := status(h.raw(h.addr, "a.example"), "GET /echo HTTP/1.1\r\nHost: a.example\r\n\r\n"); got != "200" {
				t.Errorf("another client: %q", got)
			}
			t.Logf("%d sent, %d KiB, %d exchanges, %v", sent, (most-min(most, before))>>10, h.asked.Load()-1, err)
		})
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// hang reads nothing and answers nothing until the stream ends.
func hang(_ *protocol.Request, _ *bhttp.Reader, _ *bhttp.Writer, c net.Conn) error {
	_, _ = c.Read(make([]byte, 1))
	return errors.New("hung up")
}
