package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// MaxFile is the size of the largest file that is read, in bytes.
const MaxFile = 256 << 10

// A document is a parsed file and all that has been found wrong with it so far.
type document struct {
	lines    positions
	problems []Problem
}

// A table is one table of a document. Keys are known once they have been asked for; done reports the
// others. The library's own decoding into structs would stop at the first wrong type and match keys
// without regard to case.
type table struct {
	doc   *document
	path  []string
	tree  map[string]any
	known []string
}

// open parses b. If it is no TOML at all, the error is final.
func open(file string, b []byte) (*table, error) {
	if len(b) > MaxFile {
		return nil, newErrors(file, []Problem{{0, fmt.Sprintf("file of %d bytes, at most %d fit", len(b), MaxFile)}})
	}
	if !utf8.Valid(b) {
		return nil, newErrors(file, []Problem{{0, "file is not UTF-8"}})
	}
	lines, problem := scan(string(b))
	if problem != nil {
		return nil, newErrors(file, []Problem{*problem})
	}
	t := &table{doc: &document{lines: lines}}
	if _, err := toml.Decode(string(b), &t.tree); err != nil {
		var pe toml.ParseError
		if errors.As(err, &pe) {
			return nil, newErrors(file, []Problem{{pe.Position.Line, pe.Message}})
		}
		return nil, newErrors(file, []Problem{{0, err.Error()}})
	}
	return t, nil
}

// at returns the path of key in t.
func (t *table) at(key string) []string { return append(t.path[:len(t.path):len(t.path)], key) }

// fail notes a problem at key, or at an element below it.
func (t *table) fail(path []string, format string, args ...any) {
	line := 0
	for n := len(path); n > 0 && line == 0; n-- {
		line = t.doc.lines[pathKey(path[:n])]
	}
	t.doc.problems = append(t.doc.problems, Problem{line, fmt.Sprintf(format, args...)})
}

// value returns what stands at key, and whether anything does; of any other type than T is a problem.
func value[T any](t *table, key, want string) (T, bool) {
	t.known = append(t.known, key)
	var zero T
	v, ok := t.tree[key]
	if !ok {
		return zero, false
	}
	if typed, ok := v.(T); ok {
		return typed, true
	}
	t.fail(t.at(key), "%s must be %s", dotted(t.at(key)), want)
	return zero, false
}

func (t *table) text(key string) string {
	s, _ := value[string](t, key, "a string")
	return s
}

// choice returns the text at key, which must be one of those allowed.
func (t *table) choice(key string, allowed ...string) (string, bool) {
	s, ok := value[string](t, key, "a string")
	if ok && !slices.Contains(allowed, s) {
		t.fail(t.at(key), "%s is %q, not one of %q", dotted(t.at(key)), s, allowed)
		return "", false
	}
	return s, ok
}

func (t *table) truth(key string) bool {
	b, _ := value[bool](t, key, "true or false")
	return b
}

// port returns the number at key, or 0 if there is none.
func (t *table) port(key string) uint16 {
	n, ok := value[int64](t, key, "a port number")
	if ok && (n < 1 || n > 65535) {
		t.fail(t.at(key), "%s is %d, not a port from 1 to 65535", dotted(t.at(key)), n)
		return 0
	}
	return uint16(n)
}

// maxCount bounds every limit of a file.
const maxCount = 1 << 20

// count returns the number at key, which must be from 1 to maxCount, or 0 if there is none.
func (t *table) count(key string) int {
	n, ok := value[int64](t, key, "a number")
	if ok && (n < 1 || n > maxCount) {
		t.fail(t.at(key), "%s is %d, not from 1 to %d", dotted(t.at(key)), n, maxCount)
		return 0
	}
	return int(n)
}

// rate returns the number at key, which may have a fraction and must be from minRate to maxCount, or 0 if there is none.
func (t *table) rate(key string) float64 {
	if n, ok := t.tree[key].(int64); ok {
		t.tree[key] = float64(n)
	}
	n, ok := value[float64](t, key, "a number")
	if ok && (!(n >= minRate) || n > maxCount) {
		t.fail(t.at(key), "%s is %v, not from %v to %d", dotted(t.at(key)), n, minRate, maxCount)
		return 0
	}
	return n
}

// minRate is the smallest rate of a file: about one a day.
const minRate = 1e-5

// eachText calls f with every string of the array at key, and where it stands.
func (t *table) eachText(key string, f func(at []string, s string)) {
	list, _ := value[[]any](t, key, "an array of strings")
	for i, v := range list {
		at := append(t.at(key), strconv.Itoa(i))
		if s, ok := v.(string); ok {
			f(at, s)
		} else {
			t.fail(at, "%s must be an array of strings", dotted(t.at(key)))
		}
	}
}

// texts returns the strings of the array at key.
func (t *table) texts(key string) []string {
	var out []string
	t.eachText(key, func(_ []string, s string) { out = append(out, s) })
	return out
}

// table returns the table at key; an absent one is empty.
func (t *table) table(key string) *table {
	tree, _ := value[map[string]any](t, key, "a table")
	return &table{doc: t.doc, path: t.at(key), tree: tree}
}

// has reports whether key is written.
func (t *table) has(key string) bool { return t.tree[key] != nil }

// keys returns the table's keys, sorted; each counts as known.
func (t *table) keys() []string {
	keys := slices.Sorted(maps.Keys(t.tree))
	t.known = append(t.known, keys...)
	return keys
}

// tables returns the elements of the array of tables at key.
func (t *table) tables(key string) []*table {
	t.known = append(t.known, key)
	var trees []map[string]any
	switch v := t.tree[key].(type) {
	case nil:
	case []map[string]any:
		trees = v
	default:
		t.fail(t.at(key), "%s must be an array of tables, as in [[%[1]s]]", dotted(t.at(key)))
	}
	out := make([]*table, len(trees))
	for i, tree := range trees {
		out[i] = &table{doc: t.doc, path: append(t.at(key), strconv.Itoa(i)), tree: tree}
	}
	return out
}

// done reports the keys that nobody asked for.
func (t *table) done() {
	for _, key := range slices.Sorted(maps.Keys(t.tree)) {
		if slices.Contains(t.known, key) {
			continue
		}
		message := fmt.Sprintf("unknown key %q", dotted(t.at(key)))
		if near := nearest(key, t.known); near != "" {
			message += fmt.Sprintf(" (did you mean %q?)", dotted(t.at(near)))
		}
		t.fail(t.at(key), "%s", message)
	}
}

// dotted prints a path as the file writes it.
func dotted(path []string) string {
	parts := make([]string, len(path))
	for i, p := range path {
		parts[i] = p
		if p == "" || strings.ContainsFunc(p, func(r rune) bool { return r >= 0x80 || !isBareKey(byte(r)) }) {
			parts[i] = strconv.Quote(p)
		}
	}
	return strings.Join(parts, ".")
}
