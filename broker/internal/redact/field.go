package redact

import (
	"bytes"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// Fields masks the values of one section of fields, in place, and removes fields whose name holds a run.
// It returns the section and how many runs it met.
func (m *Matcher) Fields(f protocol.Fields) (protocol.Fields, int) {
	if m.Empty() {
		return f, 0
	}
	runs := 0
	f = f.DelFunc(func(l protocol.Field) bool {
		_, n := m.Text(l.Name)
		runs += n
		return n > 0
	})
	for i := range f {
		var n int
		f[i].Value, n = m.value(f[i].Value)
		runs += n
	}
	return f, runs
}

// value masks a field's value.
func (m *Matcher) value(v string) (string, int) {
	for _, w := range m.weak {
		// all of it, or all that follows an authentication scheme
		before, ok := strings.CutSuffix(v, string(w))
		if scheme := strings.TrimSuffix(before, " "); ok && (before == "" || scheme != before && protocol.IsToken(scheme)) {
			return before + strings.Repeat(string(m.mask), len(w)), 1
		}
	}
	return m.Text(v)
}

// Text masks one short text that stands alone and returns it with the number of runs. Text without one
// comes back as it is, and costs no memory.
func (m *Matcher) Text(v string) (string, int) {
	if m.passes(v) {
		return v, 0
	}
	var room [512]byte
	b := append(room[:0], v...)
	defer clear(b)
	s := Scanner{m: m}
	s.search(b, false)
	if len(s.found) == 0 {
		return v, 0
	}
	n, _ := s.merge()
	s.cover(b)
	s.wipe()
	return string(b), n
}

// passes reports whether a glance is enough to see that v holds no run.
func (m *Matcher) passes(v string) bool {
	if len(m.streams) == 0 || len(v) < m.shortest {
		return true
	}
	for i := range m.escapes {
		if strings.IndexByte(v, m.escapes[i].mark) >= 0 {
			return false
		}
	}
	for i := 0; i+gramSize <= len(v); i += m.step {
		if m.grams.may(uint32(v[i]) | uint32(v[i+1])<<8 | uint32(v[i+2])<<16 | uint32(v[i+3])<<24) {
			return false
		}
	}
	return true
}

// describesContent names the fields that a decoded answer no longer has.
var describesContent = []string{"content-encoding", "content-length", "content-md5", "digest", "content-digest", "repr-digest", "accept-ranges"}

// DropDescriptions removes the fields that describe content byte for byte, which a decoded answer no longer
// has, and weakens its entity tag (RFC 9110 §8.8.1).
func DropDescriptions(f protocol.Fields) protocol.Fields {
	f = f.DelFunc(func(l protocol.Field) bool {
		return slices.Contains(describesContent, l.Name) || strings.HasPrefix(l.Name, "x-amz-checksum-") || l.Name == "x-goog-hash"
	})
	for i := range f {
		if f[i].Name == "etag" && bytes.HasPrefix([]byte(f[i].Value), []byte(`"`)) {
			f[i].Value = "W/" + f[i].Value
		}
	}
	return f
}
