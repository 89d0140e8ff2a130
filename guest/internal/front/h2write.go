package front

import (
	"io"
	"strconv"
	"sync"

	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// Bounds on what waits to be written, in bytes.
const (
	h2MaxQueued  = 64 << 10 // from which on content waits
	h2MaxControl = 64 << 10 // of answers to the client's own frames: one that never reads gets no more
	h2Idle       = 16 << 10 // that a connection without streams keeps
)

// An h2Writer gathers frames and writes them in their order. Whoever finds nobody writing writes, for all
// who have come meanwhile; so content waits for the client, and the connection's reader never does. It is
// safe for concurrent use.
type h2Writer struct {
	dst io.Writer

	mu      sync.Mutex
	cond    *sync.Cond // signalled after every write
	buf     []byte     // not yet being written
	spare   []byte
	control int   // bytes of buf that came by put
	queued  int64 // bytes that ever came to buf
	written int64
	writing bool
	err     error
	enc     *hpack.Encoder
	block   hpackBlock
}

// An hpackBlock is what the encoder writes to.
type hpackBlock struct{ b []byte }

func (k *hpackBlock) Write(p []byte) (int, error) {
	k.b = append(k.b, p...)
	return len(p), nil
}

func newH2Writer(w io.Writer) *h2Writer {
	h := &h2Writer{dst: w}
	h.cond = sync.NewCond(&h.mu)
	h.enc = hpack.NewEncoder(&h.block)
	return h
}

// head puts a head or trailer section in the queue; status is 0 for trailers. With more, what follows at
// once takes it along.
func (w *h2Writer) head(stream uint32, status int, fields protocol.Fields, end, more bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waitForRoom()
	if w.err != nil {
		return w.err
	}
	w.block.b = w.block.b[:0]
	if status != 0 {
		_ = w.enc.WriteField(hpack.HeaderField{Name: ":status", Value: strconv.Itoa(status)})
	}
	for _, f := range fields {
		_ = w.enc.WriteField(hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	flags := uint8(0)
	if end {
		flags = h2EndStream
	}
	from := len(w.buf)
	kind := h2Headers
	for rest := w.block.b; kind == h2Headers || len(rest) > 0; kind, flags = h2Continuation, 0 {
		piece := rest[:min(len(rest), h2MaxFrame)]
		if rest = rest[len(piece):]; len(rest) == 0 {
			flags |= h2EndHeaders
		}
		w.buf = append(appendFrame(w.buf, kind, flags, stream, len(piece)), piece...)
	}
	w.queued += int64(len(w.buf) - from)
	if cap(w.block.b) > h2Idle {
		w.block.b = nil
	}
	if more {
		return nil
	}
	return w.flushTo(w.queued)
}

// data writes content, which flow control has let pass.
func (w *h2Writer) data(stream uint32, p []byte, end bool) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waitForRoom()
	if w.err != nil {
		return w.err
	}
	from := len(w.buf)
	for first := true; first || len(p) > 0; first = false {
		piece := p[:min(len(p), h2MaxFrame)]
		p = p[len(piece):]
		flags := uint8(0)
		if end && len(p) == 0 {
			flags = h2EndStream
		}
		w.buf = append(appendFrame(w.buf, h2Data, flags, stream, len(piece)), piece...)
	}
	w.queued += int64(len(w.buf) - from)
	return w.flushTo(w.queued)
}

// put puts the frames that f appends in the queue, without waiting. They go out with the next write, or with
// flush. It returns how many bytes that came so are waiting.
func (w *h2Writer) put(f func(b []byte) []byte) (waiting int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	from := len(w.buf)
	w.buf = f(w.buf)
	w.queued += int64(len(w.buf) - from)
	w.control += len(w.buf) - from
	return w.control
}

// pending reports whether frames wait that nobody is about to write.
func (w *h2Writer) pending() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.buf) > 0 && w.err == nil
}

// flush writes what is queued.
func (w *h2Writer) flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flushTo(w.queued)
}

// waitForRoom waits while much is queued.
func (w *h2Writer) waitForRoom() {
	for w.writing && len(w.buf) > h2MaxQueued && w.err == nil {
		w.cond.Wait()
	}
}

// flushTo returns once what was queued up to upTo is written.
func (w *h2Writer) flushTo(upTo int64) error {
	for w.written < upTo && w.err == nil {
		if w.writing {
			w.cond.Wait()
			continue
		}
		b := w.buf
		w.buf, w.spare, w.control, w.writing = w.spare[:0], nil, 0, true
		w.mu.Unlock()
		_, err := w.dst.Write(b)
		w.mu.Lock()
		w.writing, w.spare, w.written = false, b, w.written+int64(len(b))
		if err != nil && w.err == nil {
			w.err = err
		}
		w.cond.Broadcast()
	}
	return w.err
}

// shrink gives memory back while the connection is idle.
func (w *h2Writer) shrink() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writing && len(w.buf) == 0 {
		w.buf, w.spare = nil, nil
	}
}

// limitTable holds the encoder's table to what the client keeps.
func (w *h2Writer) limitTable(n uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enc.SetMaxDynamicTableSizeLimit(n)
}

// stop makes every write fail.
func (w *h2Writer) stop(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = err
	}
	w.cond.Broadcast()
}
