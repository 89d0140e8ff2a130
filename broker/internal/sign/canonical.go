package sign

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// A pathRule is how a service of AWS reads the path that is signed.
type pathRule uint8

const (
	pathNormal pathRule = iota // dots and empty segments resolved, then percent-encoded once more
	pathAsSent                 // percent-encoded once more
	pathObject                 // S3: an object's name, decoded and encoded anew; dots and empty segments are part of it
)

// A parameter is one name and value of a query, percent-encoded in the one way that is signed.
type parameter struct{ name, value string }

// A canonical is a request in the form that is signed (AWS Signature Version 4, task 1).
type canonical struct {
	method, path string
	query        []parameter
	fields       []protocol.Field // by name, one line for each
	payload      string
}

// appendTo appends the canonical request to b.
func (c *canonical) appendTo(b []byte) []byte {
	b = append(b, c.method...)
	b = append(b, '\n')
	b = append(b, c.path...)
	b = append(b, '\n')
	b = appendQuery(b, c.query)
	b = append(b, '\n')
	for _, f := range c.fields {
		b = append(b, f.Name...)
		b = append(b, ':')
		b = append(b, f.Value...)
		b = append(b, '\n')
	}
	b = append(b, '\n')
	b = c.appendNames(b)
	b = append(b, '\n')
	return append(b, c.payload...)
}

// appendNames appends the names of the fields that are signed.
func (c *canonical) appendNames(b []byte) []byte {
	for i, f := range c.fields {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, f.Name...)
	}
	return b
}

// canonicalPath returns the path in the form that is signed.
func canonicalPath(path string, rule pathRule) (string, error) {
	switch rule {
	case pathNormal:
		path = normalPath(path)
	case pathObject:
		decoded, err := unescape(path, false)
		if err != nil {
			return "", err
		}
		path = decoded
	case pathAsSent:
	}
	if isUnreserved(path, true) {
		return path, nil
	}
	return string(appendEscaped(make([]byte, 0, len(path)+32), path, true)), nil
}

// normalPath resolves dots (RFC 3986 §5.2.4) and leaves empty segments out.
func normalPath(path string) string {
	if !strings.Contains(path, "//") && !strings.Contains(path, "/.") {
		return path
	}
	var kept []string
	slash := strings.HasSuffix(path, "/") || strings.HasSuffix(path, "/.") || strings.HasSuffix(path, "/..")
	for segment := range strings.SplitSeq(path, "/") {
		switch segment {
		case "", ".":
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
		default:
			kept = append(kept, segment)
		}
	}
	if len(kept) == 0 {
		return "/"
	}
	path = "/" + strings.Join(kept, "/")
	if slash {
		path += "/"
	}
	return path
}

// parseQuery reads a query as S3 does, where a plus is a space, and encodes it anew. Pairs without a name and
// value are left out.
func parseQuery(query string) ([]parameter, error) {
	if query == "" {
		return nil, nil
	}
	all := make([]parameter, 0, strings.Count(query, "&")+1)
	for pair := range strings.SplitSeq(query, "&") {
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		var p parameter
		var err error
		if p.name, err = reescape(name); err != nil {
			return nil, err
		}
		if p.value, err = reescape(value); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

// sortQuery puts parameters into the order in which they are signed.
func sortQuery(all []parameter) {
	slices.SortStableFunc(all, func(a, b parameter) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.value, b.value))
	})
}

func appendQuery(b []byte, all []parameter) []byte {
	for i, p := range all {
		if i > 0 {
			b = append(b, '&')
		}
		b = append(b, p.name...)
		b = append(b, '=')
		b = append(b, p.value...)
	}
	return b
}

// canonicalFields returns one line for each name of f that is signed, by name, and for host. Values of several
// lines are joined in their order; white space in them counts once.
func canonicalFields(f protocol.Fields, host string, signed func(name string) bool) []protocol.Field {
	lines := make([]protocol.Field, 1, len(f)+1)
	lines[0] = protocol.Field{Name: "host", Value: host}
	for _, l := range f {
		if signed(l.Name) {
			lines = append(lines, protocol.Field{Name: l.Name, Value: collapse(l.Value)})
		}
	}
	slices.SortStableFunc(lines, func(a, b protocol.Field) int { return strings.Compare(a.Name, b.Name) })
	kept := lines[:1]
	for _, l := range lines[1:] {
		if last := &kept[len(kept)-1]; last.Name == l.Name {
			last.Value += "," + l.Value
			continue
		}
		kept = append(kept, l)
	}
	return kept
}

// collapse trims s and makes each run of white space in it one space.
func collapse(s string) string {
	if !strings.Contains(s, "  ") && !strings.ContainsAny(s, "\t\r\n") {
		return strings.Trim(s, " ")
	}
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == ' ' || r == '\t' || r == '\r' || r == '\n' }), " ")
}

// reescape percent-encodes one part of a query in the one way that is signed.
func reescape(s string) (string, error) {
	if isUnreserved(s, false) {
		return s, nil
	}
	s, err := unescape(s, true)
	if err != nil {
		return "", err
	}
	return escape(s), nil
}

// escape percent-encodes one part of a query.
func escape(s string) string { return string(appendEscaped(make([]byte, 0, len(s)+16), s, false)) }

// unescape decodes percent-encoding, and a plus as a space where plus is true.
func unescape(s string, plus bool) (string, error) {
	if strings.IndexByte(s, '%') < 0 && (!plus || strings.IndexByte(s, '+') < 0) {
		return s, nil
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) || unhex(s[i+1]) < 0 || unhex(s[i+2]) < 0 {
				return "", fmt.Errorf("percent-encoding in %q", s)
			}
			b = append(b, byte(unhex(s[i+1])<<4|unhex(s[i+2])))
			i += 2
		case c == '+' && plus:
			b = append(b, ' ')
		default:
			b = append(b, c)
		}
	}
	return string(b), nil
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// appendEscaped percent-encodes all but what RFC 3986 §2.3 reserves for nothing, and slashes where slash is false.
func appendEscaped(b []byte, s string, slash bool) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; unreserved[c] || slash && c == '/' {
			b = append(b, c)
		} else {
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}

func isUnreserved(s string, slash bool) bool {
	for i := range len(s) {
		if !unreserved[s[i]] && (!slash || s[i] != '/') {
			return false
		}
	}
	return true
}

var unreserved = func() (t [256]bool) {
	for c := '0'; c <= '9'; c++ {
		t[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		t[c], t[c-'a'+'A'] = true, true
	}
	for _, c := range "-._~" {
		t[c] = true
	}
	return t
}()
