package upstream

import (
	"fmt"
	"strings"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
	"torno.internal/protocol/http1"
)

// An h2Block is one field section while its frames come in.
type h2Block struct {
	stream    uint32
	end       bool // END_STREAM
	frames    int  // CONTINUATION frames so far
	encoded   int  // bytes so far
	size      int  // as SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 §6.5.2)
	trailer   bool // it stands behind content
	status    int  // 0 before :status
	fields    protocol.Fields
	malformed error
}

func (h *h2conn) onHeaders(f *http2.HeadersFrame) error {
	h.mu.Lock()
	trailer, open := h.final, f.StreamID == h.id && !h.ended
	h.mu.Unlock()
	if !open {
		return h2Bad("HEADERS on stream %d, which expects none", f.StreamID)
	}
	h.block = h2Block{stream: f.StreamID, end: f.StreamEnded(), trailer: trailer, fields: h.block.fields[:0]}
	h.dec.SetEmitEnabled(true)
	return h.decode(f.HeaderBlockFragment(), f.HeadersEnded())
}

// onContinuation goes on; the Framer has checked that it belongs there.
func (h *h2conn) onContinuation(f *http2.ContinuationFrame) error {
	if h.block.frames++; h.block.frames > h2MaxContinuations {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("more than %d CONTINUATION frames", h2MaxContinuations)}
	}
	return h.decode(f.HeaderBlockFragment(), f.HeadersEnded())
}

func (h *h2conn) decode(fragment []byte, last bool) error {
	b := &h.block
	if b.encoded += len(fragment); b.encoded > protocol.MaxHead {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("field section over %d bytes", protocol.MaxHead)}
	}
	_, err := h.dec.Write(fragment)
	if err == nil && last {
		err = h.dec.Close()
	}
	if err != nil {
		return &h2Error{http2.ErrCodeCompression, err.Error()}
	}
	if b.malformed != nil || !last {
		return b.malformed
	}
	h.spent = 0
	if err := h.finish(b); err != nil {
		return err
	}
	clear(b.fields)
	return nil
}

// emit takes one decoded field. The first that is wrong stops the decoder, and with it what a small
// block could expand to.
func (h *h2conn) emit(f hpack.HeaderField) {
	if err := h.block.add(f); err != nil {
		h.block.malformed = err
		h.dec.SetEmitEnabled(false)
	}
}

func (b *h2Block) add(f hpack.HeaderField) error {
	if b.malformed != nil {
		return b.malformed
	}
	if b.size += int(f.Size()); b.size > protocol.MaxHead {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("field section over %d bytes", protocol.MaxHead)}
	}
	if f.IsPseudo() {
		return b.addPseudo(f)
	}
	if len(b.fields) >= protocol.MaxFields {
		return &h2Error{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("more than %d field lines", protocol.MaxFields)}
	}
	// What a peer sent in the wrong place may be a credential: details quote nothing that is malformed.
	if !protocol.IsToken(f.Name) || len(f.Name) > protocol.MaxFieldName || f.Name != strings.ToLower(f.Name) {
		return h2Bad("malformed field name")
	}
	value := strings.Trim(f.Value, " \t")
	if !protocol.IsFieldValue(value) {
		return h2Bad("control byte in the value of field %q", f.Name)
	}
	if isHopField(f.Name) || b.trailer && f.Name == "content-length" {
		return h2Bad("field %q, which has no place there", f.Name)
	}
	b.fields = append(b.fields, protocol.Field{Name: f.Name, Value: value})
	return nil
}

// isHopField reports whether the field called name makes a message malformed (RFC 9113 §8.2.2).
func isHopField(name string) bool { return name != "host" && protocol.IsConnectionField(name) }

// addPseudo takes :status, once and before all others (RFC 9113 §8.3.2).
func (b *h2Block) addPseudo(f hpack.HeaderField) error {
	if f.Name != ":status" || b.status != 0 || b.trailer || len(b.fields) > 0 {
		return h2Bad("pseudo-field other than one :status at the front")
	}
	if len(f.Value) != 3 {
		return h2Bad("status of %d bytes", len(f.Value))
	}
	for _, c := range []byte(f.Value) {
		if c < '0' || c > '9' {
			return h2Bad("byte %#02x in the status", c)
		}
		b.status = b.status*10 + int(c-'0')
	}
	if b.status < 100 || b.status > 599 || b.status == 101 { // nothing is upgraded here (RFC 9113 §8.6)
		return h2Bad("status %d", b.status)
	}
	return nil
}

// finish hands a whole field section to who reads.
func (h *h2conn) finish(b *h2Block) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b.trailer {
		if !b.end {
			return h2Bad("trailers that do not end the stream")
		}
		h.trailer = b.fields.Clone()
		h.readable.Signal()
		return h.endResponse()
	}
	if b.status == 0 {
		return h2Bad("response without :status")
	}
	if b.status < 200 {
		if h.interims++; h.interims > protocol.MaxInterim {
			return h2Bad("more than %d interim responses", protocol.MaxInterim)
		}
		if b.end {
			return h2Bad("interim response that ends the stream")
		}
	} else if err := h.beginContent(b); err != nil {
		return err
	}
	h.heads = append(h.heads, h2Head{b.status, append(h.spare, b.fields...), b.end})
	h.spare = nil
	h.readable.Signal()
	return nil
}

// beginContent takes note of how much content follows a final head; mu is held.
func (h *h2conn) beginContent(b *h2Block) error {
	length, ok, err := http1.ContentLength(b.fields)
	if err != nil {
		return h2Bad("%v", err)
	}
	h.final, h.left = true, -1
	switch {
	case protocol.NoContent(h.method, b.status): // whatever it announces (RFC 9113 §8.1.1)
		h.left = 0
	case ok:
		h.left = length
	}
	if b.end {
		return h.endResponse()
	}
	return nil
}
