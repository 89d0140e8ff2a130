package http1

import (
	"bytes"
	"strings"

	"torno.internal/protocol"
)

// maxStartLine is the longest start line in bytes, its CRLF included: a request in absolute form.
const maxStartLine = protocol.MaxMethod + len(" https://") + protocol.MaxAuthority + protocol.MaxPath + len(" HTTP/1.1\r\n")

// A scan finds where a head, or a trailer section, ends, line by line. It keeps its place between
// calls, so a head that comes one byte at a time is not read over and over, and it lower-cases the
// field names in place.
type scan struct {
	startLine bool // a start line comes first
	pos       int  // bytes of whole lines already passed
	seen      int  // bytes already searched for a line feed
	lines     int  // field lines already passed
}

// run looks at b, which holds the head from its first byte on, and reports whether all of it, pos
// bytes with the empty line, is there.
func (s *scan) run(b []byte) (bool, error) {
	for {
		i := bytes.IndexByte(b[s.seen:], '\n')
		if i < 0 {
			s.seen = len(b)
			return false, s.checkSize(len(b))
		}
		next := s.seen + i + 1
		if err := s.checkSize(next); err != nil {
			return false, err
		}
		line := b[s.pos:next]
		if len(line) < 2 || bytes.IndexByte(line, '\r') != len(line)-2 {
			return false, bad("line does not end in one CRLF")
		}
		line = line[:len(line)-2]
		first := s.startLine && s.pos == 0
		s.pos, s.seen = next, next
		if first {
			continue
		}
		if len(line) == 0 {
			return true, nil
		}
		if s.lines++; s.lines > protocol.MaxFields {
			return false, fieldsTooLarge("number of field lines", protocol.MaxFields)
		}
		if err := lowerName(line); err != nil {
			return false, err
		}
	}
}

// checkSize judges a head of which n bytes have arrived, the current line's included.
func (s *scan) checkSize(n int) error {
	if s.startLine && s.pos == 0 {
		if n > maxStartLine {
			return badStatus(414, "start line over %d", maxStartLine)
		}
		return nil
	}
	if n-s.pos > protocol.MaxFieldName+protocol.MaxFieldValue {
		return fieldsTooLarge("field line", protocol.MaxFieldName+protocol.MaxFieldValue)
	}
	if n > protocol.MaxHead {
		return fieldsTooLarge("head", protocol.MaxHead)
	}
	return nil
}

// lowerName checks the name of a field line and makes it lower case in place. A line that begins with
// white space (obs-fold) and white space before the colon fail here, for neither is a token character.
func lowerName(line []byte) error {
	colon := bytes.IndexByte(line, ':')
	if colon < 0 || colon > protocol.MaxFieldName {
		return bad("field line has no colon within %d bytes", protocol.MaxFieldName)
	}
	if colon == 0 {
		return bad("empty field name")
	}
	for i, c := range line[:colon] {
		l := lowerTokenChar[c]
		if l == 0 {
			return bad("byte %#02x in a field name", c)
		}
		line[i] = l
	}
	return nil
}

// lowerTokenChar maps each token character to its lower case and all else to 0.
var lowerTokenChar = func() (t [256]byte) {
	for c := range t {
		if protocol.IsToken(string([]byte{byte(c)})) {
			t[c] = lowerByte(byte(c))
		}
	}
	return t
}()

// section waits for the whole of what s scans and uses it up. The string that it returns is the one
// allocation of a head; it ends with the empty line.
func (r *Reader) section(s scan) (string, error) {
	for {
		if r.Buffered() > 0 {
			done, err := s.run(r.buf[r.start:r.end])
			if err != nil {
				return "", r.fail(err)
			}
			if done {
				break
			}
		}
		if err := r.fill(); err != nil {
			return "", unexpected(err)
		}
	}
	b := r.buf[r.start : r.start+s.pos]
	r.start += s.pos
	if len(b) == len("\r\n") {
		return "\r\n", nil
	}
	return string(b), nil
}

// cutLine returns the first line of head without its CRLF, and what follows it.
func cutLine(head string) (line, rest string) {
	i := strings.IndexByte(head, '\n')
	return head[:i-1], head[i+1:]
}

// cutFields appends the field lines of head, which a scan has passed, to f.
func cutFields(f protocol.Fields, head string) (protocol.Fields, error) {
	for {
		line, rest := cutLine(head)
		if line == "" {
			return f, nil
		}
		colon := strings.IndexByte(line, ':')
		name, value := line[:colon], trimSpace(line[colon+1:])
		if len(value) > protocol.MaxFieldValue {
			return nil, fieldsTooLarge("field value", protocol.MaxFieldValue)
		}
		if !protocol.IsFieldValue(value) {
			return nil, bad("control byte in the value of field %q", name)
		}
		f = append(f, protocol.Field{Name: name, Value: value})
		head = rest
	}
}

// trimSpace removes OWS, which is space and tab alone, from both ends.
func trimSpace(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
