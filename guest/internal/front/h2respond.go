package front

import (
	"fmt"
	"io"
	"net"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// respond passes the response on whose first head stands in st.x.resp. On error it can't end, unless that is
// errAnswered.
func (st *h2Stream) respond(head *h2Head, s *relay.Stream, up *upload, reply *h2Reply) error {
	resp := &st.x.resp
	for resp.Interim() {
		if resp.Status != 100 || head.ExpectContinue {
			if err := st.h.w.head(st.id, resp.Status, resp.Fields, false, false); err != nil {
				return err
			}
		}
		if err := s.ReadResponse(resp); err != nil {
			st.join(s, up)
			if err := st.refuse(head, err, reply); err != nil {
				return err
			}
			return errAnswered
		}
	}
	length := int64(http1.Unknown)
	if protocol.NoContent(head.Method, resp.Status) {
		length = 0 // whatever its fields say
	} else if n, ok, err := http1.ContentLength(resp.Fields); err == nil && ok {
		length = n
	}
	return st.download(s, length, reply)
}

// download passes head, content and trailers on. Nothing is held back but the end, which goes out together with
// what precedes it where the length is known or both have arrived. A head with grpc-status has nothing behind it,
// and its client fails unless that head is the end.
func (st *h2Stream) download(s *relay.Stream, length int64, reply *h2Reply) error {
	resp := &st.x.resp
	_, waits := resp.Fields.Lookup("grpc-status")
	if !waits && length != 0 && s.Buffered() == 0 {
		if err := st.begin(reply, false, false); err != nil {
			return err
		}
	}
	buf := h2Buffers.Get().(*[h2CopySize]byte)
	defer h2Buffers.Put(buf)
	have, total := 0, int64(0)
	for {
		n, err := s.Read(buf[have:])
		have, total = have+n, total+int64(n)
		if length >= 0 && (total > length || total < length && err == io.EOF) {
			return fmt.Errorf("%d bytes of content, %d announced", total, length)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if have < len(buf) && (s.Buffered() > 0 || total == length) {
			continue
		}
		if err := st.begin(reply, false, true); err != nil {
			return err
		}
		if err := st.write(buf[:have], false); err != nil {
			return err
		}
		have = 0
	}
	if err := s.ReadTrailer(&st.x.trailer); err != nil {
		return err
	}
	return st.sendEnd(reply, buf[:have])
}

// sendEnd sends the last of the content, and the trailers.
func (st *h2Stream) sendEnd(reply *h2Reply, content []byte) error {
	st.h.mu.Lock()
	st.sent = true
	st.h.mu.Unlock()
	trailer := st.x.trailer
	if err := st.begin(reply, len(content) == 0 && len(trailer) == 0, len(content) > 0 || len(trailer) > 0); err != nil {
		return err
	}
	if reply.ended {
		return nil
	}
	if len(content) > 0 || len(trailer) == 0 {
		if err := st.write(content, len(trailer) == 0); err != nil {
			return err
		}
	}
	if len(trailer) > 0 {
		if err := st.h.w.head(st.id, 0, trailer, true, false); err != nil {
			return err
		}
	}
	reply.ended = true
	return nil
}

// begin sends the head, once. With more, content follows at once and takes it along.
func (st *h2Stream) begin(reply *h2Reply, end, more bool) error {
	if reply.begun {
		return nil
	}
	reply.begun = true
	err := st.h.w.head(st.id, st.x.resp.Status, st.x.resp.Fields, end, more)
	reply.ended = end && err == nil
	return err
}

// write sends content as flow control lets it pass.
func (st *h2Stream) write(p []byte, end bool) error {
	for first := true; first || len(p) > 0; first = false {
		n, err := st.take(len(p))
		if err != nil {
			return err
		}
		if err := st.h.w.data(st.id, p[:n], end && n == len(p)); err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// take waits until some of n bytes may be sent, and takes as many from the windows.
func (st *h2Stream) take(n int) (int, error) {
	h := st.h
	h.mu.Lock()
	defer h.mu.Unlock()
	for flushed := false; ; {
		switch {
		case st.err != nil:
			return 0, st.err
		case h.closed != nil:
			return 0, net.ErrClosed
		case n == 0:
			return 0, nil
		case st.send > 0 && h.send > 0:
			m := min(int64(n), st.send, h.send)
			st.send -= m
			h.send -= m
			return int(m), nil
		case !flushed: // a head may wait for this content
			flushed = true
			h.mu.Unlock()
			err := h.w.flush()
			h.mu.Lock()
			if err != nil {
				return 0, err
			}
		default:
			h.room.Wait()
		}
	}
}
