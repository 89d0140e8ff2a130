package policy

import (
	"errors"
	"fmt"
	"strings"
)

// A glob is the path of a rule. The zero value is not valid.
type glob struct {
	text     string    // canonical, begins with "/"
	segments []segment // between the slashes
	open     bool      // ended in "**": the last segment matches the beginning of any rest
}

// A segment is a pattern without slashes, cut at its asterisks: k asterisks leave k+1 literals.
type segment []string

// anyPath is the path of a rule that writes none.
const anyPath = "/**"

// parseGlob reads the path of a rule, which begins with "/".
func parseGlob(s string) (glob, error) {
	text, err := canonicalGlob(s)
	if err != nil {
		return glob{}, err
	}
	g := glob{text: text}
	body, open := strings.CutSuffix(text, "**")
	g.open = open
	if strings.Contains(body, "**") || open && strings.HasSuffix(body, "*") {
		return glob{}, hint(errors.New(`"**" stands in the middle of the path`),
			`"**" is any rest and ends a rule; "*" matches within one segment`)
	}
	parts := strings.Split(body[1:], "/")
	for i, part := range parts {
		last := i == len(parts)-1
		if part == "" && !last || (part == "." || part == "..") && !(last && open) {
			return glob{}, hint(fmt.Errorf("path has the segment %q", part),
				"write the path as it is after empty and dot segments are resolved")
		}
		g.segments = append(g.segments, strings.Split(part, "*"))
	}
	return g, nil
}

// canonicalGlob refuses bytes that no path holds and spells percent-encoding in upper case.
func canonicalGlob(s string) (string, error) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '?':
			return "", hint(errors.New("path holds a query"), `the query is never matched; leave out "?" and what follows`)
		case c == '#' || c == '\\' || c <= ' ' || c >= 0x7f:
			return "", hint(fmt.Errorf("byte %q cannot be in a path", c), "write it percent-encoded")
		case c == '%':
			b, ok := triplet(s[i:])
			if !ok {
				return "", hint(errors.New(`"%" without two hexadecimal digits`), `a percent sign itself is "%25"`)
			}
			if b == 0 || b == '\r' || b == '\n' {
				return "", fmt.Errorf("path holds %s, which is never sent", s[i:i+3])
			}
			if isPlain(b) && strings.IndexByte(`/;\`, b) < 0 {
				return "", hint(fmt.Errorf("path encodes %q without need", b), fmt.Sprintf("write %q", b))
			}
		}
	}
	return upperTriplets(s), nil
}

// match reports whether g matches the whole of path, in time linear in both.
func (g *glob) match(path string) bool {
	if path == "" || path[0] != '/' {
		return false
	}
	rest, last := path[1:], len(g.segments)-1
	for _, s := range g.segments[:last] {
		head, tail, found := strings.Cut(rest, "/")
		if !found || !s.match(head) {
			return false
		}
		rest = tail
	}
	head, _, found := strings.Cut(rest, "/")
	if g.open {
		return g.segments[last].matchStart(head)
	}
	return !found && g.segments[last].match(head)
}

// everything reports whether g matches every path.
func (g *glob) everything() bool { return g.text == anyPath }

// match reports whether s matches the whole of text. Taking each literal where it first occurs is
// enough, because an asterisk matches anything: no backtracking.
func (s segment) match(text string) bool {
	end := len(s) - 1
	if end == 0 {
		return text == s[0]
	}
	if len(text) < len(s[0])+len(s[end]) || !strings.HasSuffix(text, s[end]) {
		return false
	}
	return s[:end].matchStart(text[:len(text)-len(s[end])])
}

// matchStart reports whether s matches the beginning of text.
func (s segment) matchStart(text string) bool {
	text, ok := strings.CutPrefix(text, s[0])
	if !ok {
		return false
	}
	for _, literal := range s[1:] {
		if _, text, ok = strings.Cut(text, literal); !ok {
			return false
		}
	}
	return true
}
