package config

import (
	"strconv"
	"strings"
)

// Bounds on the shape of a file. They are checked before the TOML parser sees it, because it takes
// quadratic time over dotted keys and recurses into nested values.
const (
	maxDepth     = 8       // of arrays and inline tables within one another
	maxKeyParts  = 8       // of one dotted key
	maxKeyLen    = 128     // bytes of one part of a key
	maxPositions = 1 << 14 // keys and elements whose lines are kept
)

// A position map knows on which line each key stands. Its keys are paths: the parts of a TOML key, with
// the index of an element after the name of its array, as in upstream, 1, host.
type positions map[string]int

func pathKey(path []string) string { return strings.Join(path, "\x00") }

// A scanner finds keys and their lines, which the TOML library does not tell. On text that is no TOML
// it stops, and leaves the message to the library.
type scanner struct {
	src    string
	pos    int
	line   int
	lines  positions
	tables map[string]int // arrays of tables: how many elements so far
	err    *Problem       // a bound is exceeded
}

// scan returns the line of every key in src, which need not be valid.
func scan(src string) (positions, *Problem) {
	s := &scanner{src: strings.TrimPrefix(src, "\ufeff"), line: 1, lines: positions{}, tables: map[string]int{}}
	var prefix []string
	for s.skipBlank(true) {
		var ok bool
		if s.src[s.pos] == '[' {
			prefix, ok = s.header()
		} else {
			ok = s.pair(prefix, 0)
		}
		if !ok {
			break
		}
	}
	return s.lines, s.err
}

// skipBlank skips white space and comments, with newlines if lines is set, and reports whether
// anything is left.
func (s *scanner) skipBlank(lines bool) bool {
	for ; s.pos < len(s.src); s.pos++ {
		switch c := s.src[s.pos]; {
		case c == '#' && lines:
			n := strings.IndexByte(s.src[s.pos:], '\n')
			if n < 0 {
				s.pos = len(s.src)
				return false
			}
			s.pos += n - 1
		case c == '\n' && lines:
			s.line++
		case c != ' ' && c != '\t' && !(c == '\r' && lines):
			return true
		}
	}
	return false
}

// header reads [a.b] or [[a.b]] and returns the path that the following keys belong to.
func (s *scanner) header() ([]string, bool) {
	line := s.line
	array := strings.HasPrefix(s.src[s.pos:], "[[")
	s.pos++
	if array {
		s.pos++
	}
	key, ok := s.key()
	if !ok || !s.eat(']') || array && !s.eat(']') {
		return nil, false
	}
	var path []string
	for i, part := range key {
		path = append(path, part)
		if i < len(key)-1 || !array {
			s.record(path, line)
			if n := s.tables[pathKey(path)]; n > 0 {
				path = append(path, strconv.Itoa(n-1))
			}
		}
	}
	if array {
		n := s.tables[pathKey(path)]
		s.tables[pathKey(path)] = n + 1
		s.record(path, line)
		path = append(path, strconv.Itoa(n))
		s.record(path, line)
	}
	return path, true
}

// pair reads key = value below prefix.
func (s *scanner) pair(prefix []string, depth int) bool {
	line := s.line
	key, ok := s.key()
	if !ok || !s.eat('=') || !s.skipBlank(false) {
		return false
	}
	path := append([]string(nil), prefix...)
	for _, part := range key {
		path = append(path, part)
		s.record(path, line)
	}
	return s.value(path, depth)
}

func (s *scanner) record(path []string, line int) {
	if len(s.lines) >= maxPositions {
		return // whoever asks gets the line of the table above
	}
	if k := pathKey(path); s.lines[k] == 0 {
		s.lines[k] = line
	}
}

// eat skips blanks and then exactly c.
func (s *scanner) eat(c byte) bool {
	if s.skipBlank(false) && s.src[s.pos] == c {
		s.pos++
		return true
	}
	return false
}

// key reads a dotted key.
func (s *scanner) key() ([]string, bool) {
	var parts []string
	for s.skipBlank(false) {
		start := s.pos
		var part string
		switch c := s.src[s.pos]; c {
		case '"', '\'':
			text, ok := s.quoted(c)
			if !ok {
				return nil, false
			}
			part = text
		default:
			for s.pos < len(s.src) && isBareKey(s.src[s.pos]) {
				s.pos++
			}
			part = s.src[start:s.pos]
			if part == "" {
				return nil, false
			}
		}
		if parts = append(parts, part); len(parts) > maxKeyParts || len(part) > maxKeyLen {
			return nil, s.bound("key is longer than any that is known")
		}
		if !s.eat('.') {
			return parts, true
		}
	}
	return nil, false
}

// quoted reads a one-line string and returns what it means.
func (s *scanner) quoted(quote byte) (string, bool) {
	start := s.pos
	for s.pos++; s.pos < len(s.src) && s.src[s.pos] != '\n'; s.pos++ {
		switch c := s.src[s.pos]; {
		case c == '\\' && quote == '"':
			s.pos++
		case c == quote:
			s.pos++
			text := s.src[start:s.pos]
			if quote == '"' {
				if meaning, err := strconv.Unquote(text); err == nil { // TOML's escapes are nearly Go's
					return meaning, true
				}
			}
			return text[1 : len(text)-1], true
		}
	}
	return "", false
}

// multiline skips a string in three quotes.
func (s *scanner) multiline(quotes string) bool {
	for s.pos += 3; s.pos < len(s.src); s.pos++ {
		switch {
		case s.src[s.pos] == '\\' && quotes[0] == '"' && s.pos+1 < len(s.src) && s.src[s.pos+1] != '\n':
			s.pos++
		case s.src[s.pos] == '\n':
			s.line++
		case strings.HasPrefix(s.src[s.pos:], quotes):
			for s.pos += 3; s.pos < len(s.src) && s.src[s.pos] == quotes[0]; s.pos++ {
				// up to two quotes may stand before the closing three
			}
			return true
		}
	}
	return false
}

// value skips the value at path, recording the keys inside it.
func (s *scanner) value(path []string, depth int) bool {
	if depth > maxDepth {
		return s.bound("value is nested deeper than any that is known")
	}
	switch rest := s.src[s.pos:]; {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, "'''"):
		return s.multiline(rest[:3])
	case rest[0] == '"', rest[0] == '\'':
		_, ok := s.quoted(rest[0])
		return ok
	case rest[0] == '[':
		return s.items(']', func(n int) bool {
			element := append(path[:len(path):len(path)], strconv.Itoa(n))
			s.record(element, s.line)
			return s.value(element, depth+1)
		})
	case rest[0] == '{':
		return s.items('}', func(int) bool { return s.pair(path, depth+1) })
	}
	start := s.pos
	for s.pos < len(s.src) && strings.IndexByte(",]}#\n", s.src[s.pos]) < 0 {
		s.pos++
	}
	return s.pos > start
}

// items reads what stands between the bracket at hand and end, separated by commas.
func (s *scanner) items(end byte, item func(n int) bool) bool {
	s.pos++
	for n := 0; s.skipBlank(true); n++ {
		if s.src[s.pos] == end {
			s.pos++
			return true
		}
		if !item(n) || !s.skipBlank(true) {
			return false
		}
		if s.src[s.pos] == ',' {
			s.pos++
		} else if s.src[s.pos] != end {
			return false
		}
	}
	return false
}

func (s *scanner) bound(message string) bool {
	if s.err == nil {
		s.err = &Problem{Line: s.line, Message: message}
	}
	return false
}

func isBareKey(c byte) bool {
	return 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '_' || c == '-'
}
