package bhttp

import (
	"torno.internal/protocol"
)

// A Message is one message of RFC 9292 in memory, in any of its four forms. It is the RFC's codec, not
// the stream's: it takes what the profile leaves out, such as an empty authority beside a host field.
// Exactly one of Request and Response is set.
type Message struct {
	Request  *protocol.Request
	Interim  []protocol.Response // informational responses before Response
	Response *protocol.Response
	Content  []byte
	Trailer  protocol.Fields

	Known   bool // known-length form (RFC 9292 §3.1), else indeterminate-length (§3.2)
	Padding int  // zero bytes after the message (§3.8)
}

// DecodeMessage decodes b, which holds one message and its padding. Sections that the RFC lets a sender
// leave out at the end (§3.8) come out empty. The errors are ErrMalformed and ErrTooLarge; the message
// is nil then. Content is a copy, of at most len(b) bytes.
func DecodeMessage(b []byte) (*Message, error) {
	d := decoder{b: b}
	m := &Message{}
	indicator, err := d.integer()
	if err != nil {
		return nil, err
	}
	m.Known = indicator == knownRequest || indicator == knownResponse
	d.known = m.Known
	switch indicator {
	case knownRequest, indeterminateRequest:
		m.Request, err = d.request()
	case knownResponse, indeterminateResponse:
		err = d.responses(m)
	default:
		return nil, malformed("framing indicator %d", indicator)
	}
	if err != nil {
		return nil, err
	}
	if m.Content, err = d.content(); err != nil {
		return nil, err
	}
	if m.Trailer, err = d.fields(true); err != nil {
		return nil, err
	}
	m.Padding = len(d.b) - d.pos
	for _, c := range d.b[d.pos:] {
		if c != 0 {
			return nil, malformed("byte %#02x in the padding", c)
		}
	}
	return m, nil
}

// A decoder walks over a whole message. Every length is held against what is left before it is used.
type decoder struct {
	b      []byte
	pos    int
	known  bool
	pseudo bool // the next section may begin with fieldProtocol
}

// integer reads an integer in any of its lengths, as the RFC allows.
func (d *decoder) integer() (uint64, error) {
	v, n := readVarint(d.b[d.pos:])
	if n == 0 {
		return 0, malformed("message ends within an integer")
	}
	d.pos += n
	return v, nil
}

// bytes reads a length and as many bytes.
func (d *decoder) bytes() ([]byte, error) {
	n, err := d.integer()
	if err != nil {
		return nil, err
	}
	if n > uint64(len(d.b)-d.pos) {
		return nil, malformed("length %d where %d bytes are left", n, len(d.b)-d.pos)
	}
	d.pos += int(n)
	return d.b[d.pos-int(n) : d.pos], nil
}

func (d *decoder) string(what string, limit int) (string, error) {
	b, err := d.bytes()
	if err == nil && len(b) > limit {
		err = tooLarge(what, limit)
	}
	return string(b), err
}

// ended reports whether the sender left out what follows.
func (d *decoder) ended() bool { return d.pos == len(d.b) }

func (d *decoder) request() (*protocol.Request, error) {
	r := &protocol.Request{}
	var err error
	for i, s := range []*string{&r.Method, &r.Scheme, &r.Authority, &r.Path} {
		if *s, err = d.string(requestParts[i], messageLimits[i]); err != nil {
			return nil, err
		}
	}
	d.pseudo = true
	if r.Fields, err = d.fields(true); err != nil {
		return nil, err
	}
	d.pseudo = false
	if len(r.Fields) > 0 && r.Fields[0].Name == fieldProtocol {
		r.Protocol, r.Fields = r.Fields[0].Value, r.Fields[1:]
		if r.Protocol == "" {
			return nil, malformed("empty %s", fieldProtocol)
		}
	}
	return r, checkMessageRequest(r)
}

// messageLimits are requestLimits with room for schemes that torno does not carry.
var messageLimits = [controlRequest]int{protocol.MaxMethod, protocol.MaxMethod, protocol.MaxAuthority, protocol.MaxPath}

func (d *decoder) responses(m *Message) error {
	for {
		status, err := d.integer()
		if err != nil {
			return err
		}
		if status < 100 || status > 599 {
			return malformed("status %d", status)
		}
		r := protocol.Response{Status: int(status)}
		if r.Fields, err = d.fields(!r.Interim()); err != nil {
			return err
		}
		if !r.Interim() {
			m.Response = &r
			return nil
		}
		if len(m.Interim) == protocol.MaxInterim {
			return tooLarge("number of interim responses", protocol.MaxInterim)
		}
		m.Interim = append(m.Interim, r)
	}
}

// fields reads a field section in the message's form.
func (d *decoder) fields(mayBeAbsent bool) (protocol.Fields, error) {
	if d.ended() && mayBeAbsent {
		return nil, nil
	}
	if !d.known {
		return d.lines()
	}
	b, err := d.bytes()
	if err != nil {
		return nil, err
	}
	section := decoder{b: b, known: true, pseudo: d.pseudo}
	return section.lines()
}

// lines reads field lines up to the terminator, or to the end of a known-length section.
func (d *decoder) lines() (protocol.Fields, error) {
	var f protocol.Fields
	start := d.pos
	for !d.known || !d.ended() {
		name, err := d.string("field name", protocol.MaxFieldName)
		if err != nil {
			return nil, err
		}
		if name == "" && !d.known {
			return f, nil
		}
		value, err := d.string("field value", protocol.MaxFieldValue)
		switch {
		case err != nil:
			return nil, err
		case len(f) == protocol.MaxFields:
			return nil, tooLarge("number of field lines", protocol.MaxFields)
		case d.pos-start > protocol.MaxHead:
			return nil, tooLarge("field section", protocol.MaxHead)
		}
		if name != fieldProtocol || !d.pseudo || len(f) > 0 {
			if err := checkLine(name, value); err != nil {
				return nil, err
			}
		}
		f = append(f, protocol.Field{Name: name, Value: value})
	}
	return f, nil
}

func (d *decoder) content() ([]byte, error) {
	var content []byte
	for !d.ended() {
		b, err := d.bytes()
		if err != nil {
			return nil, err
		}
		content = append(content, b...)
		if d.known || len(b) == 0 {
			return content, nil
		}
	}
	if content != nil {
		return nil, malformed("content without its terminator")
	}
	return nil, nil
}

func checkMessageRequest(r *protocol.Request) error {
	for i := range len(r.Path) {
		if c := r.Path[i]; c <= ' ' || c == 0x7f {
			return malformed("byte %#02x in the path", c)
		}
	}
	switch {
	case !protocol.IsToken(r.Method):
		return malformed("method %q", r.Method)
	case r.Authority != "" && !isAuthority(r.Authority):
		return malformed("authority %q", r.Authority)
	case r.Scheme != "" && !protocol.IsToken(r.Scheme):
		return malformed("scheme %q", r.Scheme)
	case r.Protocol != "" && (r.Method != "CONNECT" || !protocol.IsToken(r.Protocol)):
		return malformed("%s %q of %s", fieldProtocol, r.Protocol, r.Method)
	}
	return nil
}
