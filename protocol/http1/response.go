package http1

import (
	"strings"

	"torno.internal/protocol"
)

// A ResponseHead is the status line and field section of a response and what they say of its framing.
type ResponseHead struct {
	Status int    // 100–599
	Reason string // may be empty
	Proto  string // "HTTP/1.1" or "HTTP/1.0"
	Fields protocol.Fields

	ContentLength  int64 // bytes of content to come, -1 if Chunked or CloseDelimited
	Chunked        bool  // Transfer-Encoding: chunked
	CloseDelimited bool  // content ends with the connection
	KeepAlive      bool  // the connection may carry another exchange once the content has been read
}

// Interim reports whether another response follows this one in the same exchange. 101 is final: it
// ends HTTP on the connection.
func (h *ResponseHead) Interim() bool { return h.Status < 200 && h.Status != 101 }

// ReadResponse reads the next response head, interim ones too, into h, reusing the memory of h.Fields.
// The method of the request says whether content follows. It returns io.EOF if the source ended
// before the first byte. After 101, and after 2xx to CONNECT, the connection is a tunnel: Read is
// refused, what was read ahead is had by TakeBuffered.
func (r *Reader) ReadResponse(h *ResponseHead, method string) error {
	*h = ResponseHead{Fields: h.Fields[:0]}
	r.response = true
	if err := r.begin(); err != nil {
		return err
	}
	head, err := r.section(scan{startLine: true})
	if err != nil {
		return err
	}
	if err := h.parse(head, method); err != nil {
		*h = ResponseHead{}
		return r.fail(err)
	}
	if h.Interim() {
		if r.interims++; r.interims > protocol.MaxInterim {
			*h = ResponseHead{}
			return r.fail(bad("more than %d interim responses", protocol.MaxInterim))
		}
		return nil
	}
	r.interims = 0
	r.enter(h.Chunked, h.ContentLength, h.CloseDelimited)
	if h.Status == 101 || method == "CONNECT" && h.Status/100 == 2 {
		r.state = tunnel
	}
	return nil
}

func (h *ResponseHead) parse(head, method string) error {
	line, rest := cutLine(head)
	if err := h.parseLine(line); err != nil {
		return err
	}
	f, err := cutFields(h.Fields, rest)
	if err != nil {
		return err
	}
	h.Fields = f
	return h.parseFraming(method)
}

// parseLine accepts a status line without the space after the code, which many servers leave out.
func (h *ResponseHead) parseLine(line string) error {
	proto, rest, _ := strings.Cut(line, " ")
	if err := checkProto(proto); err != nil {
		return err
	}
	if len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return bad("status line without a code of three digits")
	}
	for _, c := range []byte(rest[:3]) {
		if !isDigit(c) {
			return bad("byte %#02x in the status", c)
		}
		h.Status = h.Status*10 + int(c-'0')
	}
	if h.Status < 100 || h.Status > 599 {
		return bad("status %d", h.Status)
	}
	h.Proto, h.Reason = proto, strings.TrimPrefix(rest[3:], " ")
	if !protocol.IsFieldValue(trimSpace(h.Reason)) {
		return bad("control byte in the status line")
	}
	return nil
}

// parseFraming follows RFC 9112 §6.3.
func (h *ResponseHead) parseFraming(method string) error {
	length, hasLength, err := ContentLength(h.Fields)
	if err != nil {
		return err
	}
	coding, hasCoding, err := transferEncoding(h.Fields)
	switch {
	case err != nil:
		return err
	case hasCoding && hasLength:
		return bad("Transfer-Encoding and Content-Length")
	case hasCoding && h.Proto == "HTTP/1.0":
		return bad("Transfer-Encoding on HTTP/1.0")
	case hasCoding && !equalFold(coding, "chunked"):
		return bad("Transfer-Encoding other than chunked")
	}
	h.KeepAlive = h.Proto == "HTTP/1.1" && !HasOption(h.Fields, "close")
	switch {
	case method == "HEAD" || h.Status == 304:
	case h.Status < 200 || h.Status == 204 || method == "CONNECT" && h.Status/100 == 2:
		// These have no content whatever they announce; who announces some may send it, too.
		h.KeepAlive = h.KeepAlive && !hasCoding && length == 0
	case hasCoding:
		h.Chunked, h.ContentLength = true, -1
	case hasLength:
		h.ContentLength = length
	default:
		h.CloseDelimited, h.KeepAlive, h.ContentLength = true, false, -1
	}
	return nil
}
