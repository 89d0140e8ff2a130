package front

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// h2TableSize is the client's part of the compression state, in bytes: the default.
const h2TableSize = 4096

// h2MaxContinuations is how many CONTINUATION frames one head may have.
const h2MaxContinuations = 32

// An h2Head is one decoded field section.
type h2Head struct {
	http1.RequestHead
	trailer bool
	size    int   // as SETTINGS_MAX_HEADER_LIST_SIZE counts, in bytes
	large   bool  // more than fits
	cookie  int   // 1 + where the cookie stands in Fields
	err     error // why the section is malformed (RFC 9113 §8.1.1)
}

var (
	errHeadLarge   = protocol.Refuse(protocol.ReasonBadRequest, errors.New("head too large"))
	errNoAuthority = errors.New("neither :authority nor host")
)

// add is called with each field of a section.
func (h *h2Head) add(f hpack.HeaderField) {
	h.size += int(f.Size())
	if h.large = h.large || h.size > protocol.MaxHead || len(h.Fields) == protocol.MaxFields; h.large {
		return
	}
	if h.err == nil {
		h.err = h.addField(f)
	}
}

func (h *h2Head) addField(f hpack.HeaderField) error {
	if !protocol.IsFieldValue(f.Value) {
		return fmt.Errorf("value of field %q", f.Name)
	}
	if strings.HasPrefix(f.Name, ":") {
		return h.addPseudo(f)
	}
	switch {
	case !protocol.IsToken(f.Name) || strings.ToLower(f.Name) != f.Name:
		return fmt.Errorf("field name %q", f.Name)
	case f.Name == "host" && !h.trailer:
		if h.Host != "" || f.Value == "" {
			return errors.New("two hosts, or an empty one")
		}
		h.Host = f.Value
		return nil
	case protocol.IsConnectionField(f.Name):
		return fmt.Errorf("connection-specific field %q", f.Name)
	case f.Name == "te" && f.Value != "trailers":
		return fmt.Errorf("te of %q", f.Value)
	case f.Name == "cookie" && h.cookie > 0: // in crumbs (RFC 9113 §8.2.3)
		h.Fields[h.cookie-1].Value += "; " + f.Value
		return nil
	case f.Name == "cookie":
		h.cookie = len(h.Fields) + 1
	}
	h.Fields = append(h.Fields, protocol.Field{Name: f.Name, Value: f.Value})
	return nil
}

func (h *h2Head) addPseudo(f hpack.HeaderField) error {
	var to *string
	switch f.Name {
	case ":method":
		to = &h.Method
	case ":scheme":
		to = &h.Scheme
	case ":authority":
		to = &h.Authority
	case ":path":
		to = &h.Path
	}
	switch {
	case to == nil || h.trailer:
		return fmt.Errorf("pseudo-field %q", f.Name)
	case *to != "":
		return fmt.Errorf("two of %q", f.Name)
	case f.Value == "":
		return fmt.Errorf("empty %q", f.Name)
	case len(h.Fields) > 0 || h.Host != "":
		return fmt.Errorf("%q behind a field", f.Name)
	}
	*to = f.Value
	return nil
}

// finish judges a request's head once it is whole.
func (h *h2Head) finish(end bool) error {
	switch {
	case h.err != nil:
		return h.err
	case h.large:
		return errHeadLarge
	case h.trailer:
		return nil
	case h.Method == "CONNECT" && (h.Scheme != "" || h.Path != ""):
		return errors.New("CONNECT with a scheme or a path")
	case h.Method == "" || h.Method != "CONNECT" && (h.Scheme == "" || h.Path == ""):
		return errors.New("a pseudo-field is missing")
	case h.Authority == "" && h.Host == "":
		return errNoAuthority
	}
	if h.Host == "" {
		h.Host = h.Authority
	}
	h.Proto, h.KeepAlive = "HTTP/2.0", true
	n, ok, err := http1.ContentLength(h.Fields)
	if err != nil {
		return err
	}
	h.ContentLength = -1
	if ok {
		h.ContentLength = n
	}
	if end {
		if h.ContentLength > 0 {
			return fmt.Errorf("content of 0 bytes, %d announced", h.ContentLength)
		}
		h.ContentLength = 0
	}
	expect, ok := h.Fields.Lookup("expect")
	h.ExpectContinue = ok && !end && strings.EqualFold(expect, "100-continue")
	return nil
}

// section reads the field section that begins with the HEADERS frame f.
func (h *h2Conn) section(f *h2Frame, head *h2Head) error {
	block := f.payload
	if !f.has(h2EndHeaders) {
		var err error
		if block, err = h.continued(f); err != nil {
			return err
		}
	}
	h.dec.SetEmitFunc(head.add)
	if _, err := h.dec.Write(block); err != nil {
		return connError(h2CompressionError, "%v", err)
	}
	if err := h.dec.Close(); err != nil {
		return connError(h2CompressionError, "%v", err)
	}
	return nil
}

// continued reads the CONTINUATION frames behind f: nothing else may come between (RFC 9113 §6.10).
func (h *h2Conn) continued(f *h2Frame) ([]byte, error) {
	stream := f.stream
	block := append([]byte(nil), f.payload...)
	for range h2MaxContinuations {
		var next h2Frame
		if err := h.r.read(&next); err != nil {
			return nil, err
		}
		if next.kind != h2Continuation || next.stream != stream {
			return nil, connError(h2ProtocolError, "frame %d within a head", next.kind)
		}
		if len(block)+len(next.payload) > protocol.MaxHead {
			break
		}
		block = append(block, next.payload...)
		if next.has(h2EndHeaders) {
			return block, nil
		}
	}
	return nil, connError(h2EnhanceYourCalm, "endless head")
}
