package upstream

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/secret"
)

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

// encodePath appends the target. One that holds a credential nobody may put into a table, and the Encoder, which
// keeps what it wrote last, does not see it.
func (h *h2conn) encodePath(target string) {
	if !h.section.secret {
		h.encode(":path", target)
		return
	}
	appendLiteral(h, ":path", target)
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
		appendLiteral(h, name, b)
		return nil
	})
}

// appendLiteral appends a field that is not indexed, to a section that is wiped.
func appendLiteral[T string | []byte](h *h2conn, name string, value T) {
	h.section.grow(len(name) + len(value) + 16)
	h.section.secret = true
	p := append(h.section.b, neverIndexed)
	p = append(appendPrefixed(p, len(name)), name...)
	h.section.b = append(appendPrefixed(p, len(value)), value...)
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
