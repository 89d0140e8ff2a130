package http1

import (
	"strings"

	"torno.internal/protocol"
)

// A RequestHead is the start line and field section of a request and what they say of its framing.
type RequestHead struct {
	Method string
	Target string // byte for byte as sent
	Proto  string // "HTTP/1.1" or "HTTP/1.0"

	// The target's parts. Scheme is set in absolute form alone, Authority in absolute and authority
	// form; neither is parsed further. Path has the query; it is "*" in asterisk form, empty for CONNECT.
	Scheme, Authority, Path string

	Host   string          // value of the Host field; empty only if Authority is set
	Fields protocol.Fields // as received, names lower case, the connection's and Host included; no Expect on HTTP/1.0

	ContentLength  int64  // 0 without content, -1 if Chunked
	Chunked        bool   // Transfer-Encoding: chunked
	KeepAlive      bool   // the connection may carry another request; never on HTTP/1.0
	ExpectContinue bool   // the client waits for 100 before it sends content
	Upgrade        string // the Upgrade field, lower case, if Connection nominates it
}

// ReadRequest reads the head of the next request into h, reusing the memory of h.Fields. It returns
// io.EOF if the source ended before the request began. After CONNECT the connection is a tunnel: Read
// is refused, what was read ahead is had by TakeBuffered.
func (r *Reader) ReadRequest(h *RequestHead) error {
	*h = RequestHead{Fields: h.Fields[:0]}
	r.response = false
	if err := r.begin(); err != nil {
		return err
	}
	head, err := r.section(scan{startLine: true})
	if err != nil {
		return err
	}
	if err := h.parse(head); err != nil {
		*h = RequestHead{}
		return r.fail(err)
	}
	r.enter(h.Chunked, h.ContentLength, false)
	if h.Method == "CONNECT" {
		r.state = tunnel
	}
	return nil
}

// begin waits for the first byte of a head. One empty line before it is skipped (RFC 9112 §2.2).
func (r *Reader) begin() error {
	switch {
	case r.err != nil:
		return r.err
	case r.state != between:
		return errOrder
	}
	r.trailer = nil
	if err := r.Await(); err != nil {
		return err
	}
	if r.response || r.blank || r.buf[r.start] != '\r' {
		return nil
	}
	for r.Buffered() < 2 {
		if err := r.fill(); err != nil {
			return unexpected(err)
		}
	}
	if r.buf[r.start+1] != '\n' {
		return r.fail(bad("CR without LF"))
	}
	r.start += 2
	r.blank = true
	return r.Await()
}

func (h *RequestHead) parse(head string) error {
	line, rest := cutLine(head)
	if err := h.parseLine(line); err != nil {
		return err
	}
	if err := h.splitTarget(); err != nil {
		return err
	}
	f, err := cutFields(h.Fields, rest)
	if err != nil {
		return err
	}
	h.Fields = f
	if err := h.parseHost(); err != nil {
		return err
	}
	return h.parseFraming()
}

func (h *RequestHead) parseLine(line string) error {
	method, rest, ok := strings.Cut(line, " ")
	target, proto, ok2 := strings.Cut(rest, " ")
	switch {
	case !protocol.IsToken(method):
		return bad("method is not a token")
	case !ok || !ok2:
		return bad("request line has no version")
	case len(method) > protocol.MaxMethod:
		return badStatus(501, "method over %d bytes", protocol.MaxMethod)
	case method == "TRACE":
		return badStatus(501, "TRACE would show the workload what was added to its request")
	}
	if err := checkProto(proto); err != nil {
		return err
	}
	h.Method, h.Target, h.Proto = method, target, proto
	return nil
}

// checkProto accepts the two versions, and tells an unknown version from what is none.
func checkProto(s string) error {
	if s == "HTTP/1.1" || s == "HTTP/1.0" {
		return nil
	}
	if len(s) == len("HTTP/x.y") && s[:5] == "HTTP/" && isDigit(s[5]) && s[6] == '.' && isDigit(s[7]) {
		return badStatus(505, "version %s", s)
	}
	return bad("no version HTTP/x.y")
}

// splitTarget tells the four forms of RFC 9112 §3.2 apart.
func (h *RequestHead) splitTarget() error {
	t := h.Target
	for i := range len(t) {
		if c := t[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return bad("byte %#02x in the request target", c)
		}
	}
	switch {
	case h.Method == "CONNECT":
		h.Authority = t
	case strings.HasPrefix(t, "/"):
		h.Path = t
	case t == "*":
		if h.Method != "OPTIONS" {
			return bad("%s of *", h.Method)
		}
		h.Path = t
	default:
		scheme, rest, ok := strings.Cut(t, "://")
		if !ok || scheme == "" {
			return bad("request target in no known form")
		}
		i := strings.IndexAny(rest, "/?")
		if i < 0 {
			i = len(rest)
		}
		h.Scheme, h.Authority, h.Path = scheme, rest[:i], rest[i:]
		if !strings.HasPrefix(h.Path, "/") {
			h.Path = "/" + h.Path // RFC 9112 §3.2.2 and RFC 9110 §4.2.3: an empty path is "/"
		}
	}
	if len(h.Path) > protocol.MaxPath {
		return badStatus(414, "path over %d", protocol.MaxPath)
	}
	if h.Path == "" || h.Scheme != "" {
		return checkAuthority("request target", h.Authority)
	}
	return nil
}

func (h *RequestHead) parseHost() error {
	switch n := h.Fields.Count("host"); {
	case n > 1:
		return bad("%d Host fields", n)
	case n == 1:
		h.Host = h.Fields.Get("host")
		return checkAuthority("Host", h.Host)
	case h.Authority == "" || h.Proto == "HTTP/1.1":
		return bad("no Host field")
	}
	return nil
}

// checkAuthority looks for the bytes that no authority has; what it names is the broker's to parse.
func checkAuthority(where, s string) error {
	if s == "" || len(s) > protocol.MaxAuthority {
		return bad("authority of %d bytes in %s", len(s), where)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`/\?#@%,`, c) >= 0 {
			return bad("byte %#02x in the authority of %s", c, where)
		}
	}
	return nil
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
