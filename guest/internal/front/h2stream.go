package front

import (
	"context"
	"errors"
	"sync"

	"torno.internal/protocol"
)

// errClientReset means that the client takes no more interest in a stream.
var errClientReset = errors.New("reset by the client")

// An h2Stream is one stream: what its reader has read, and the exchange that it is for.
type h2Stream struct {
	h      *h2Conn
	id     uint32
	x      *conn // its exchange
	cancel context.CancelFunc

	// Guarded by h.mu.
	arrived *sync.Cond // signalled when content comes or the stream ends
	content []byte     // arrived and not yet used
	spare   []byte     // memory for more
	send    int64      // bytes that may be sent
	recv    int64      // bytes that may come
	unsaid  int64      // bytes used up and not yet given back
	left    int64      // bytes still to come of the announced length; negative: unknown
	ended   bool       // the client has sent its end
	trailer protocol.Fields
	sent    bool  // the response's end is on its way, or the next to go
	unread  bool  // nobody reads the content any more
	err     error // why the stream ended early
}

// onHeaders begins a request or ends one with trailers.
func (h *h2Conn) onHeaders(ctx context.Context, f *h2Frame) error {
	if f.stream%2 == 0 {
		return connError(h2ProtocolError, "HEADERS on stream %d", f.stream)
	}
	end, id := f.has(h2EndStream), f.stream
	dependsOnItself, err := h.strip(f)
	if err != nil {
		return err
	}
	var head h2Head
	h.mu.Lock()
	st := h.streams[id]
	closed, known := h.how(id)
	h.mu.Unlock()
	head.trailer = st != nil
	if err := h.section(f, &head); err != nil {
		return err
	}
	switch {
	case st != nil:
		return st.onTrailer(&head, end)
	case known && closed.ours:
		return nil // sent before the client knew
	case known:
		return connError(h2StreamClosed, "HEADERS on closed stream %d", id)
	case id <= h.lastID:
		return connError(h2ProtocolError, "stream %d behind %d", id, h.lastID)
	}
	h.lastID = id
	if dependsOnItself {
		return streamError(id, h2ProtocolError, "depends on itself")
	}
	return h.open(ctx, id, &head, end)
}

// strip takes padding and priority away from HEADERS.
func (h *h2Conn) strip(f *h2Frame) (dependsOnItself bool, err error) {
	if err := f.unpad(); err != nil {
		return false, err
	}
	if !f.has(h2HasPriority) {
		return false, nil
	}
	if len(f.payload) < h2PriorityFieldsSize {
		return false, connError(h2FrameSizeError, "HEADERS of %d bytes with a priority", len(f.payload))
	}
	dependsOnItself = dependency(f.payload) == f.stream
	f.payload = f.payload[h2PriorityFieldsSize:]
	return dependsOnItself, nil
}

// open opens a stream.
func (h *h2Conn) open(ctx context.Context, id uint32, head *h2Head, end bool) error {
	malformed := head.finish(end)
	if malformed != nil {
		if err := h.spend(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	st := &h2Stream{h: h, id: id, x: h.c.forStream(), cancel: cancel, ended: end, recv: h2DefaultWindow, left: head.ContentLength}
	st.arrived = sync.NewCond(&h.mu)
	h.mu.Lock()
	if len(h.streams) >= h2MaxStreams || h.busy >= h2MaxBusy {
		h.mu.Unlock()
		cancel()
		return streamError(id, h2RefusedStream, "too many streams")
	}
	st.send = h.initial
	if len(h.streams) == 0 {
		h.c.setIdle(never)
		_ = h.nc.SetReadDeadline(never)
	}
	h.streams[id] = st
	h.busy++
	h.mu.Unlock()
	h.work.Go(func() {
		defer cancel()
		h.leave(st, st.serve(ctx, head, malformed))
		h.mu.Lock()
		h.busy--
		h.mu.Unlock()
	})
	return nil
}

// leave takes a stream off the open ones. The content that nobody has read is given back.
func (h *h2Conn) leave(st *h2Stream, ours bool) {
	h.mu.Lock()
	_, open := h.streams[st.id]
	var back int64
	if open {
		delete(h.streams, st.id)
		h.remember(st.id, ours)
		back = h.use(int64(len(st.content)))
		st.content = nil
	}
	h.mu.Unlock()
	if back > 0 {
		h.w.put(func(b []byte) []byte { return appendWord(b, h2WindowUpdate, 0, uint32(back)) })
		h.flushSoon()
	}
	if open {
		h.rest()
	}
}

// onTrailer ends a request's content.
func (st *h2Stream) onTrailer(head *h2Head, end bool) error {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	switch {
	case st.ended && st.sent:
		return connError(h2StreamClosed, "HEADERS on closed stream %d", st.id)
	case st.ended:
		return streamError(st.id, h2StreamClosed, "HEADERS behind the end")
	case !end:
		return streamError(st.id, h2ProtocolError, "HEADERS within content")
	}
	if err := head.finish(end); err != nil {
		return streamError(st.id, h2ProtocolError, "trailers: %v", err)
	}
	st.trailer = head.Fields
	return st.end()
}

// end notes the end of the request. h.mu is held.
func (st *h2Stream) end() error {
	if st.left > 0 {
		return streamError(st.id, h2ProtocolError, "content ends %d bytes early", st.left)
	}
	st.ended = true
	st.arrived.Broadcast()
	return nil
}

// fail ends a stream early: whatever waits for it goes on, and the broker hears of it at once.
func (st *h2Stream) fail(err error) {
	h := st.h
	h.mu.Lock()
	first := st.err == nil
	if first {
		st.err = err
		st.arrived.Broadcast()
		h.room.Broadcast()
	}
	h.mu.Unlock()
	if first {
		st.cancel()
		st.x.cut()
	}
}
