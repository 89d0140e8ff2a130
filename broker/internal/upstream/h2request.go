package upstream

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/secret"
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

// An h2Out gathers bytes. Once it held a secret it is wiped whenever it is emptied or moved.
type h2Out struct {
	b      []byte
	secret bool
}

// Write appends p.
func (o *h2Out) Write(p []byte) (int, error) {
	o.grow(len(p))
	o.b = append(o.b, p...)
	return len(p), nil
}

func (o *h2Out) grow(n int) {
	if len(o.b)+n <= cap(o.b) {
		return
	}
	to := make([]byte, len(o.b), max(2<<10, 2*cap(o.b), len(o.b)+n))
	copy(to, o.b)
	if o.secret {
		secret.Wipe(o.b)
	}
	o.b = to
}

// reset empties o and gives a large buffer back.
func (o *h2Out) reset() {
	if o.secret {
		secret.Wipe(o.b)
		o.secret = false
	}
	if cap(o.b) > 2*h2Record+h2FrameHeader {
		o.b = nil
	}
	o.b = o.b[:0]
}

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
	h.encode(":path", target)
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

// h2Mistake is an error of what is to be sent. It never quotes a value.
func h2Mistake(format string, args ...any) error {
	return &http1.Error{Status: 400, Reason: protocol.ReasonBadRequest, Detail: fmt.Sprintf(format, args...)}
}

// checkLine looks once more for what has no place in a request.
func checkLine(l protocol.Field) error {
	switch {
	case !protocol.IsToken(l.Name) || l.Name != strings.ToLower(l.Name):
		return h2Mistake("field name %q", l.Name)
	case protocol.IsConnectionField(l.Name):
		return h2Mistake("connection-specific field %q", l.Name)
	case !protocol.IsFieldValue(l.Value):
		return h2Mistake("value of field %q", l.Name)
	}
	return nil
}

// encode appends a field to the section. What the workload itself calls a credential is not indexed by
// anybody behind us either (RFC 7541 §7.1.3).
func (h *h2conn) encode(name, value string) {
	sensitive := name == "authorization" || name == "cookie"
	_ = h.enc.WriteField(hpack.HeaderField{Name: name, Value: value, Sensitive: sensitive}) // h2Out takes all
}

// neverIndexed begins a literal field that nobody may put into a table (RFC 7541 §6.2.3).
const neverIndexed = 0x10

// AppendField appends a credential to the head. It is written here and not by the Encoder, which would
// keep a copy.
func (h *h2conn) AppendField(name string, value http1.Value) error {
	if !h.begun || h.opened {
		return errEnded
	}
	return value.Use(func(b []byte) error {
		if err := checkLine(protocol.Field{Name: name}); err != nil {
			return err
		}
		h.section.grow(len(name) + len(b) + 16)
		h.section.secret = true
		p := append(h.section.b, neverIndexed)
		p = append(appendPrefixed(p, len(name)), name...)
		h.section.b = append(appendPrefixed(p, len(b)), b...)
		return nil
	})
}

// appendPrefixed appends the length of a string that is not Huffman coded (RFC 7541 §5.1, §5.2).
func appendPrefixed(p []byte, n int) []byte {
	if n < 127 {
		return append(p, byte(n))
	}
	p = append(p, 127)
	for n -= 127; n >= 128; n >>= 7 {
		p = append(p, byte(n)|0x80)
	}
	return append(p, byte(n))
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
	h.content.trim()
	h.h2Stream = h2Stream{
		id: h.next, method: h.asked, sendStream: int64(h.window), recvStream: h2Window,
		heads: h.heads[:0], spare: h.spare, content: h.content,
	}
	h.mu.Unlock()
	h.next += 2
	h.opened = true
	h.putSection(flags)
	return nil
}

// putSection moves the section into frames, HEADERS and CONTINUATION, and wipes it.
func (h *h2conn) putSection(flags http2.Flags) {
	id := h.next - 2
	rest := h.section.b
	h.out.grow(len(rest) + h2FrameHeader*(1+len(rest)/h2FrameSize))
	h.out.secret = h.out.secret || h.section.secret
	t := http2.FrameHeaders
	for first := true; first || len(rest) > 0; first = false {
		fragment := rest[:min(len(rest), h2FrameSize)]
		rest = rest[len(fragment):]
		if len(rest) == 0 {
			flags |= http2.FlagHeadersEndHeaders
		}
		if first {
			h.ending = len(h.out.b) + 4
		}
		h.out.b = appendFrameHeader(h.out.b, len(fragment), t, flags, id)
		h.out.b = append(h.out.b, fragment...)
		t, flags = http2.FrameContinuation, 0
	}
	h.section.reset()
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
		h.failWrite(fmt.Errorf("http/2: waiting for the other side's window: %w", os.ErrDeadlineExceeded))
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
