package front

import (
	"cmp"
	"errors"

	"torno.internal/guest/internal/relay"
)

// errUnread ends the content of a request whose exchange is over.
var errUnread = errors.New("no longer read")

// onData takes content in.
func (h *h2Conn) onData(f *h2Frame) error {
	if f.stream == 0 {
		return connError(h2ProtocolError, "DATA of the connection")
	}
	size := int64(len(f.payload))
	if err := f.unpad(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.recv -= size; h.recv < 0 {
		return connError(h2FlowControlError, "content beyond the connection's window")
	}
	st := h.streams[f.stream]
	unread := size // padding, and content that nobody will read
	defer func() {
		if back := h.use(unread); back > 0 {
			h.w.put(func(b []byte) []byte { return appendWord(b, h2WindowUpdate, 0, uint32(back)) })
		}
	}()
	if st == nil {
		if e, known := h.how(f.stream); known && e.ours {
			return nil
		}
		if err := h.idle(f); err != nil {
			return err
		}
		return streamError(f.stream, h2StreamClosed, "DATA on a closed stream")
	}
	if st.err != nil || st.unread {
		return nil
	}
	if st.ended {
		return streamError(f.stream, h2StreamClosed, "DATA behind the end")
	}
	if st.recv -= size; st.recv < 0 {
		return streamError(f.stream, h2FlowControlError, "content beyond the stream's window")
	}
	n := int64(len(f.payload))
	if st.left >= 0 {
		if st.left -= n; st.left < 0 {
			return streamError(f.stream, h2ProtocolError, "content longer than announced")
		}
	}
	st.content = append(st.content, f.payload...)
	st.unsaid += size - n
	unread = size - n
	st.arrived.Broadcast()
	if f.has(h2EndStream) {
		return st.end()
	}
	return nil
}

// use notes that n bytes of content are used up, and returns how many to give back. h.mu is held.
func (h *h2Conn) use(n int64) int64 {
	h.unsaid += n
	if h.unsaid < h2ConnWindow/4 {
		return 0
	}
	back := h.unsaid
	h.unsaid, h.recv = 0, h.recv+back
	return back
}

// next returns the content that has arrived, waiting for some, and whether it is the last. give must follow.
func (st *h2Stream) next() (p []byte, last bool, err error) {
	st.h.mu.Lock()
	defer st.h.mu.Unlock()
	for len(st.content) == 0 && !st.ended && st.err == nil && !st.unread {
		st.arrived.Wait()
	}
	if st.err != nil || st.unread {
		return nil, false, cmp.Or(st.err, errUnread)
	}
	p, st.content, st.spare = st.content, st.spare, nil
	return p, st.ended, nil
}

// give gives the memory of p back, and lets the client send as much.
func (st *h2Stream) give(p []byte) {
	h := st.h
	h.mu.Lock()
	if cap(p) <= h2Idle {
		st.spare = p[:0]
	}
	ofConn, ofStream := h.use(int64(len(p))), int64(0)
	if st.unsaid += int64(len(p)); st.unsaid >= h2DefaultWindow/2 && !st.ended {
		ofStream = st.unsaid
		st.recv, st.unsaid = st.recv+ofStream, 0
	}
	h.mu.Unlock()
	if ofConn == 0 && ofStream == 0 {
		return
	}
	h.w.put(func(b []byte) []byte {
		if ofConn > 0 {
			b = appendWord(b, h2WindowUpdate, 0, uint32(ofConn))
		}
		if ofStream > 0 {
			b = appendWord(b, h2WindowUpdate, st.id, uint32(ofStream))
		}
		return b
	})
	h.flushSoon()
}

// upload carries the content and the trailers. When the client fails the stream is cut, or the broker would
// wait for the rest; when the broker fails it is not, since an answer may have come before.
func (st *h2Stream) upload(s *relay.Stream) error {
	for {
		p, last, err := st.next()
		if err != nil {
			s.Cut()
			return err
		}
		if _, err = s.Write(p); err == nil && !last {
			err = s.Flush()
		}
		st.give(p)
		if err != nil {
			return err
		}
		if last {
			return closeUpload(s, st.trailer)
		}
	}
}
