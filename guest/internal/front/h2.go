package front

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// Bounds on one HTTP/2 connection.
const (
	h2MaxStreams = 128     // streams open at once, as told to the client
	h2MaxBusy    = 256     // exchanges under way, those included that the client has reset
	h2ConnWindow = 1 << 20 // bytes of content that all streams hold together
	h2Resets     = 2000    // streams that a client may waste at once
	h2ResetRate  = 100     // and a second
	h2Remembered = 64      // streams whose end is remembered
)

// An h2Conn is one connection that speaks HTTP/2 (RFC 9113). Its reader is the connection's own goroutine; each
// stream has another. The streams' exchanges are those of HTTP/1, one conn each.
type h2Conn struct {
	c    *conn // what the connection is for
	nc   net.Conn
	r    *h2Reader
	w    *h2Writer
	dec  *hpack.Decoder
	work sync.WaitGroup

	// The reader's own.
	lastID   uint32
	resets   float64 // what is left of h2Resets
	resetsAt time.Time

	mu       sync.Mutex
	streams  map[uint32]*h2Stream
	busy     int
	flushing bool
	ended    []h2Ended  // streams that ended last
	room     *sync.Cond // signalled when a send window grows or a stream ends
	send     int64      // bytes that may be sent on all streams
	initial  int64      // bytes that may be sent on a new stream
	recv     int64      // bytes that may come on all streams
	unsaid   int64      // bytes of content used up and not yet given back
	closed   error
}

// An h2Ended stream is no longer open.
type h2Ended struct {
	id   uint32
	ours bool // we reset it, so the client may not know yet
}

func newH2Conn(c *conn, nc net.Conn) *h2Conn {
	h := &h2Conn{
		c: c, nc: nc, r: newH2Reader(nc), w: newH2Writer(nc), dec: hpack.NewDecoder(h2TableSize, nil),
		streams: map[uint32]*h2Stream{}, send: h2DefaultWindow, initial: h2DefaultWindow, recv: h2ConnWindow,
		resets: h2Resets, resetsAt: time.Now(),
	}
	h.dec.SetMaxStringLength(protocol.MaxHead)
	h.room = sync.NewCond(&h.mu)
	return h
}

// serve serves streams until the connection ends, and returns once all of them have ended.
func (h *h2Conn) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	err := h.read(ctx)
	cancel()
	h.end(err)
	h.work.Wait()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// read reads frames until the connection ends.
func (h *h2Conn) read(ctx context.Context) error {
	_ = h.nc.SetReadDeadline(time.Now().Add(protocol.HeadTimeout))
	var preface [len(h2Preface)]byte
	if _, err := io.ReadFull(h.r.r, preface[:]); err != nil {
		return err
	}
	if string(preface[:]) != h2Preface {
		return connError(h2ProtocolError, "no preface")
	}
	if h.c.proxy {
		return connError(h2HTTP11Required, "the proxy speaks HTTP/1.1")
	}
	h.w.put(func(b []byte) []byte {
		b = appendFrame(b, h2Settings, 0, 0, 2*h2SettingEntry)
		b = appendSetting(b, settingMaxStreams, h2MaxStreams)
		b = appendSetting(b, settingMaxHeaderList, protocol.MaxHead)
		return appendWord(b, h2WindowUpdate, 0, h2ConnWindow-h2DefaultWindow)
	})
	h.flushSoon()
	var f h2Frame
	for first := true; ; first = false {
		if !h.r.ready() {
			h.flushSoon()
		}
		if err := h.r.read(&f); err != nil {
			return err
		}
		if first {
			if f.kind != h2Settings || f.has(h2Ack) {
				return connError(h2ProtocolError, "frame %d before SETTINGS", f.kind)
			}
			h.rest()
		}
		if err := h.frame(ctx, &f); err != nil {
			var e *h2Error
			if !errors.As(err, &e) || e.stream == 0 {
				return err
			}
			if err := h.reset(e); err != nil {
				return err
			}
		}
	}
}

// frame serves one frame.
func (h *h2Conn) frame(ctx context.Context, f *h2Frame) error {
	switch f.kind {
	case h2Data:
		return h.onData(f)
	case h2Headers:
		return h.onHeaders(ctx, f)
	case h2Priority:
		return h.onPriority(f)
	case h2Reset:
		return h.onReset(f)
	case h2Settings:
		return h.onSettings(f)
	case h2PushPromise:
		return connError(h2ProtocolError, "a client pushes")
	case h2Ping:
		return h.onPing(f)
	case h2GoAway:
		if f.stream != 0 || len(f.payload) < 8 {
			return connError(h2ProtocolError, "GOAWAY of %d bytes on stream %d", len(f.payload), f.stream)
		}
		return nil // it opens no more streams, and closes the connection when these have ended
	case h2WindowUpdate:
		return h.onWindowUpdate(f)
	case h2Continuation:
		return connError(h2ProtocolError, "CONTINUATION of nothing")
	}
	return nil // unknown ones are for extensions (RFC 9113 §5.5)
}

// reset ends the stream that e is about.
func (h *h2Conn) reset(e *h2Error) error {
	if err := h.spend(); err != nil {
		return err
	}
	h.mu.Lock()
	st := h.streams[e.stream]
	if st == nil {
		h.remember(e.stream, true)
	}
	h.mu.Unlock()
	if st != nil {
		st.fail(e) // and its goroutine tells the client
		return nil
	}
	return h.answer(func(b []byte) []byte { return appendWord(b, h2Reset, e.stream, uint32(e.code)) })
}

// answer queues a frame that the client's own made necessary.
func (h *h2Conn) answer(f func([]byte) []byte) error {
	if h.w.put(f) > h2MaxControl {
		return connError(h2EnhanceYourCalm, "answers are not read")
	}
	return nil
}

// flushSoon has what is queued written, without waiting for it.
func (h *h2Conn) flushSoon() {
	if !h.w.pending() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.flushing {
		return
	}
	h.flushing = true
	h.work.Go(func() {
		for again := true; again; {
			err := h.w.flush()
			h.mu.Lock()
			if again = err == nil && h.w.pending(); !again {
				h.flushing = false
			}
			h.mu.Unlock()
		}
	})
}

// end tells the client why the connection ends, and ends all of its streams.
func (h *h2Conn) end(err error) {
	code := h2NoError
	var e *h2Error
	if errors.As(err, &e) {
		code = e.code
	}
	h.mu.Lock()
	h.closed = err
	streams := make([]*h2Stream, 0, len(h.streams))
	for _, st := range h.streams {
		streams = append(streams, st)
	}
	h.mu.Unlock()
	for _, st := range streams {
		st.fail(err)
	}
	_ = h.nc.SetWriteDeadline(time.Now().Add(lingerTimeout))
	h.w.put(func(b []byte) []byte {
		b = appendFrame(b, h2GoAway, 0, 0, 8)
		b = binary.BigEndian.AppendUint32(b, h.lastID)
		return binary.BigEndian.AppendUint32(b, uint32(code))
	})
	if h.w.flush() == nil && e != nil {
		h.c.nc = h.nc
		h.c.linger()
	}
	h.w.stop(net.ErrClosed)
	h.c.tcp.Close()
}

// rest notes that the connection has no streams, if so: it may wait so for keepAliveIdle. h.mu is not held.
func (h *h2Conn) rest() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.streams) > 0 || h.closed != nil {
		return
	}
	now := time.Now()
	h.c.setIdle(now)
	_ = h.nc.SetReadDeadline(now.Add(keepAliveIdle))
	h.w.shrink()
}

// remember notes a stream's end. h.mu is held.
func (h *h2Conn) remember(id uint32, ours bool) {
	if len(h.ended) == h2Remembered {
		h.ended = append(h.ended[:0], h.ended[1:]...)
	}
	h.ended = append(h.ended, h2Ended{id, ours})
}

// how returns how a stream ended that is not open. h.mu is held.
func (h *h2Conn) how(id uint32) (e h2Ended, known bool) {
	for i := len(h.ended) - 1; i >= 0; i-- {
		if h.ended[i].id == id {
			return h.ended[i], true
		}
	}
	return h2Ended{}, false
}
