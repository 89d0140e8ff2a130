package upstream

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// h2Record is how many bytes of frames leave at once: the content of one TLS record.
const h2Record = 16 << 10

// An h2Request is the request that is being written. It belongs to who writes.
type h2Request struct {
	next    uint32 // the stream that the next request opens
	enc     *hpack.Encoder
	section h2Out  // an encoded field section
	out     h2Out  // whole frames that have not left
	begun   bool   // a request was begun and has not ended
	opened  bool   // the frames of its head are in out, or have left
	ending  int    // where in out the flags stand of the last frame, if it can end the stream; else 0
	unsent  int64  // bytes of content still to be written, -1 if unknown
	asked   string // the method
}

func (r *h2Request) init() {
	r.next = 1
	r.enc = hpack.NewEncoder(&r.section)
	r.enc.SetMaxDynamicTableSizeLimit(0) // no field of one request is kept for the next
}

// Confide has the head that comes next wiped from the buffers when it has left, as http1.Writer does.
func (h *h2conn) Confide() { h.section.secret = true }

// WriteRequest begins a request, as http1.Writer does; target is in origin form or *.
func (h *h2conn) WriteRequest(method, target, host string, f protocol.Fields, length int64) error {
	if err := h.usable(); err != nil {
		return err
	}
	if !protocol.IsToken(method) || target != "*" && !protocol.IsPath(target) {
		return h2Mistake("method or path")
	}
	for i := range f {
		if err := checkLine(f[i]); err != nil {
			return err
		}
	}
	h.asked, h.begun, h.opened, h.unsent = method, true, false, length
	h.encode(":method", method)
	h.encode(":scheme", "https")
	h.encode(":authority", host)
	h.encodePath(target)
	for i := range f {
		if f[i].Name != "content-length" {
			h.encode(f[i].Name, f[i].Value)
		}
	}
	if length > 0 || length == 0 && wantsLength(method) {
		h.encode("content-length", strconv.FormatInt(length, 10))
	}
	return nil
}

// wantsLength reports whether a server may want to be told that there is no content (RFC 9110 §8.6).
func wantsLength(method string) bool {
	switch method {
	case "GET", "HEAD", "OPTIONS", "DELETE":
		return false
	}
	return true
}

// open opens the stream with the head that was just written.
func (h *h2conn) open(flags http2.Flags) error {
	h.mu.Lock()
	if err := h.writeErr; err != nil || h.goneAway {
		h.mu.Unlock()
		if err == nil {
			err = errGoneAway
		}
		return err
	}
	h.h2Stream = h2Stream{
		id: h.next, method: h.asked, sendStream: int64(h.window), recvStream: h.held,
		heads: h.heads[:0], spare: h.spare, content: h.content,
	}
	h.mu.Unlock()
	h.next += 2
	h.opened = true
	h.putSection(flags)
	return nil
}

// Write writes content, as http1.Writer does, and waits for room in the windows.
func (h *h2conn) Write(p []byte) (int, error) {
	switch {
	case !h.begun:
		return 0, errEnded
	case len(p) == 0:
		return 0, nil
	case h.unsent >= 0 && int64(len(p)) > h.unsent:
		return 0, http1.ErrLong
	case !h.opened:
		if err := h.open(0); err != nil {
			return 0, err
		}
	}
	for rest := p; len(rest) > 0; {
		n, err := h.reserve(min(len(rest), h2Record-h2FrameHeader))
		if err != nil {
			return len(p) - len(rest), err
		}
		if len(h.out.b)+h2FrameHeader+n > h2Record {
			if err := h.flush(); err != nil {
				return len(p) - len(rest), err
			}
		}
		h.out.grow(h2FrameHeader + n)
		h.ending = len(h.out.b) + 4
		h.out.b = appendFrameHeader(h.out.b, n, http2.FrameData, 0, h.next-2)
		h.out.b = append(h.out.b, rest[:n]...)
		rest = rest[n:]
		if h.unsent > 0 {
			h.unsent -= int64(n)
		}
	}
	if len(h.out.b) >= h2Record {
		return len(p), h.flush()
	}
	return len(p), nil
}

// reserve takes at most n bytes from both windows. Before it waits for them it sends what there is.
func (h *h2conn) reserve(n int) (int, error) {
	if got, err := h.tryReserve(n); got > 0 || err != nil {
		return got, err
	}
	if err := h.flush(); err != nil {
		return 0, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	stalled := time.AfterFunc(protocol.IdleTimeout, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		if min(h.sendConn, h.sendStream) <= 0 {
			h.failWrite(fmt.Errorf("http/2: waiting for the other side's window: %w", os.ErrDeadlineExceeded))
		}
	})
	defer stalled.Stop()
	for h.writeErr == nil && min(h.sendConn, h.sendStream) <= 0 {
		h.writable.Wait()
	}
	return h.takeWindow(n)
}

func (h *h2conn) tryReserve(n int) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.takeWindow(n)
}

// takeWindow takes what there is; mu is held.
func (h *h2conn) takeWindow(n int) (int, error) {
	if h.writeErr != nil {
		return 0, h.writeErr
	}
	got := max(0, min(int64(n), h.sendConn, h.sendStream))
	h.sendConn -= got
	h.sendStream -= got
	h.sent += got
	return int(got), nil
}

// Flush sends what is buffered, and the head if it was just begun. After an error it only wipes.
func (h *h2conn) Flush() error {
	if h.begun && !h.opened {
		if err := h.open(0); err != nil {
			h.section.reset()
			h.out.reset()
			return err
		}
	}
	return h.flush()
}

func (h *h2conn) flush() error {
	if len(h.out.b) == 0 {
		return nil
	}
	h.ending = 0
	err := h.write(h.out.b)
	h.out.reset()
	return err
}

// Close ends the request with its trailer section, which may be empty, and flushes. It returns ErrShort
// if content is missing.
func (h *h2conn) Close(trailer protocol.Fields) error {
	switch {
	case !h.begun:
		return errEnded
	case h.unsent > 0:
		return http1.ErrShort
	}
	for i := range trailer {
		if err := checkLine(trailer[i]); err != nil {
			return err
		}
	}
	if !h.opened {
		if err := h.open(0); err != nil {
			return err
		}
	}
	switch {
	case len(trailer) > 0:
		for i := range trailer {
			h.encode(trailer[i].Name, trailer[i].Value)
		}
		h.putSection(http2.FlagHeadersEndStream)
	case h.ending > 0:
		h.out.b[h.ending] |= byte(http2.FlagDataEndStream) // the same bit as of HEADERS
	default:
		h.out.grow(h2FrameHeader)
		h.out.b = appendFrameHeader(h.out.b, 0, http2.FrameData, http2.FlagDataEndStream, h.next-2)
	}
	h.begun = false
	h.mu.Lock()
	h.done = true
	h.mu.Unlock()
	return h.flush()
}
