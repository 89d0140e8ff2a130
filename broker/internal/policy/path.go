package policy

import (
	"slices"
	"strings"

	"torno.internal/protocol"
)

// maxDecodings bounds how often a path may be percent-encoded over. Beyond that nobody means well.
const maxDecodings = 3

// cutPath returns the path alone, without its query, and why the two cannot be sent, if they cannot:
// bytes that end a request line or that parsers read in several ways.
func cutPath(target string) (string, protocol.Reason) {
	if len(target) > protocol.MaxPath {
		return "", protocol.ReasonBadRequest
	}
	for i := range len(target) {
		if c := target[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return "", protocol.ReasonBadRequest
		}
	}
	path, _, _ := strings.Cut(target, "?")
	if path == "" || path[0] != '/' {
		return "", protocol.ReasonBadRequest
	}
	return path, protocol.ReasonNone
}

// isClean reports whether every server reads path the same way, so that it has one form only.
func isClean(path string) bool {
	for i := range len(path) {
		switch path[i] {
		case '%', ';', '\\', '*':
			return false
		case '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		}
	}
	return true
}

// readings returns the paths that some server may understand when it gets path: as sent; decoded
// once, twice and so on; each with dot segments removed, with and without empty segments merged
// first; and each again with path parameters (";x") cut off and "\" taken for "/". In every reading
// percent-encoding is upper case, and a byte that cannot stand plainly in a rule is encoded.
func readings(path string) ([]string, protocol.Reason) {
	path = upperTriplets(path)
	all := []string{path}
	for range maxDecodings + 1 {
		all = appendResolved(all, path)
		next, ok := decode(path)
		if !ok {
			return nil, protocol.ReasonBadRequest
		}
		if next == path {
			return all, protocol.ReasonNone
		}
		path = next
	}
	return nil, protocol.ReasonAmbiguousPath
}

func appendResolved(all []string, path string) []string {
	for _, form := range []string{path, withoutParameters(path)} {
		for _, merge := range []bool{false, true} {
			if f := resolve(form, merge); !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all
}

// resolve removes dot segments (RFC 3986 §5.2.4), after merging empty segments if merge is set, as
// some servers do and others don't: "/a//../b" is "/a/b" to the one and "/b" to the other.
func resolve(path string, merge bool) string {
	parts := strings.Split(path[1:], "/")
	kept := parts[:0]
	for i, part := range parts {
		last := i == len(parts)-1
		switch {
		case part == "..":
			kept = kept[:max(len(kept)-1, 0)]
		case part == ".":
		case part == "" && merge:
		default:
			kept = append(kept, part)
			continue
		}
		if last {
			kept = append(kept, "")
		}
	}
	return "/" + strings.Join(kept, "/")
}

// withoutParameters cuts each segment at its first ";" and takes "\" for "/".
func withoutParameters(path string) string {
	if !strings.ContainsAny(path, `;\`) {
		return path
	}
	b := make([]byte, 0, len(path))
	parameter := false
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/' || c == '\\':
			parameter = false
			b = append(b, '/')
		case c == ';':
			parameter = true
		case !parameter:
			b = append(b, c)
		}
	}
	return string(b)
}

// decode undoes one layer of percent-encoding, where the byte can stand plainly. A percent sign is
// decoded only where it begins another triplet, and encoded where it begins none; so is "*", which
// in a rule is no literal. decode reports false for NUL, CR and LF, which no path is sent with.
func decode(path string) (string, bool) {
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '*' {
			b.WriteString("%2A")
			continue
		}
		if c != '%' {
			b.WriteByte(c)
			continue
		}
		v, ok := triplet(path[i:])
		switch {
		case !ok:
			b.WriteString("%25")
			continue
		case v == 0 || v == '\r' || v == '\n':
			return "", false
		case isPlain(v), v == '%' && isHexPair(path[i+3:]):
			b.WriteByte(v)
		default:
			b.WriteString(path[i : i+3])
		}
		i += 2
	}
	return upperTriplets(b.String()), true
}

// isPlain reports whether c stands for itself in the path of a rule: visible ASCII but "%", "*", "?"
// and "#".
func isPlain(c byte) bool {
	return ' ' < c && c < 0x7f && c != '%' && c != '*' && c != '?' && c != '#'
}

// upperTriplets spells the hexadecimal digits of percent-encoding in upper case.
func upperTriplets(s string) string {
	i := strings.IndexByte(s, '%')
	if i < 0 {
		return s
	}
	b := []byte(s)
	for ; i < len(b); i++ {
		if b[i] == '%' && isHexPair(s[i+1:]) {
			b[i+1], b[i+2] = upperHex(b[i+1]), upperHex(b[i+2])
			i += 2
		}
	}
	return string(b)
}

// triplet returns the byte that s, which begins with "%", encodes.
func triplet(s string) (byte, bool) {
	if !isHexPair(s[1:]) {
		return 0, false
	}
	return hexDigit(s[1])<<4 | hexDigit(s[2]), true
}

func isHexPair(s string) bool { return len(s) >= 2 && isHex(s[0]) && isHex(s[1]) }

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f'
}

func upperHex(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 'A'
	}
	return c
}

func hexDigit(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
