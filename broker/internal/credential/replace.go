package credential

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"slices"
	"strconv"
	"strings"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Replaces reports whether u's placeholder is replaced in content of a media type (RFC 9110 §8.3.1), and as
// what that is read.
func (u *Use) Replaces(mediaType string) (control.Place, bool) {
	if u.secret.Placeholder == "" || len(u.secret.Meta.Replace) == 0 {
		return "", false
	}
	kind, _, err := mime.ParseMediaType(mediaType)
	if err != nil {
		return "", false
	}
	var place control.Place
	switch {
	case kind == "application/x-www-form-urlencoded":
		place = control.PlaceForm
	case kind == "application/json", strings.HasSuffix(kind, "+json"):
		place = control.PlaceJSON
	}
	return place, slices.Contains(u.secret.Meta.Replace, place)
}

// A Replacer reads content in which a secret's placeholder is replaced by the value, escaped so that it stays within the
// string or parameter that it stands in. The placeholder may be escaped there as well, any byte of it, in the way of the
// place: %73 in a form (WHATWG URL §5), \u0073 in JSON (RFC 8259 §7), once. It holds back only what may be the beginning of a
// placeholder. Close it when done.
type Replacer struct {
	from        io.Reader
	place       control.Place
	placeholder []byte
	starts      string // what a placeholder may begin with
	value       []byte // escaped

	in    []byte // read, and not looked at to its end
	out   []byte // to be given out, in room
	err   error  // what from said last
	found []span // placeholders in in

	room []byte
}

// A span is where a placeholder stands.
type span struct{ begin, end int }

// readSize is how much a Replacer reads at once, in bytes.
const readSize = 16 << 10

// Replacer returns a Replacer of content that stands in place.
func (u *Use) Replacer(place control.Place, content io.Reader) *Replacer {
	r := &Replacer{from: content, place: place, placeholder: []byte(u.secret.Placeholder), starts: u.secret.Placeholder[:1] + "%"}
	if place == control.PlaceJSON {
		r.starts = u.secret.Placeholder[:1] + `\\`
		r.value = appendJSON(nil, u.secret.Value)
	} else {
		r.value = appendEscaped(make([]byte, 0, 3*u.secret.Value.Len()), u.secret.Value, "")
	}
	return r
}

// Close wipes what it holds of the value.
func (r *Replacer) Close() {
	secret.Wipe(r.value)
	secret.Wipe(r.room[:cap(r.room)])
	r.out, r.err = nil, errors.New("closed")
}

func (r *Replacer) Read(p []byte) (int, error) {
	for len(r.out) == 0 {
		if r.err != nil {
			return 0, r.err
		}
		r.fill()
	}
	n := copy(p, r.out)
	r.out = r.out[n:]
	return n, nil
}

// fill reads one piece and makes what can be given out of it.
func (r *Replacer) fill() {
	had := len(r.in)
	r.in = slices.Grow(r.in, readSize)
	n, err := r.from.Read(r.in[had : had+readSize])
	r.in, r.err = r.in[:had+n], err
	secret.Wipe(r.room)
	kept := r.find()
	if need := len(r.in) + len(r.found)*len(r.value); need > cap(r.room) {
		r.room = make([]byte, 0, need) // of which none grows and leaves a copy behind
	}
	r.room = r.room[:0]
	begin := 0
	for _, f := range r.found {
		r.room = append(append(r.room, r.in[begin:f.begin]...), r.value...)
		begin = f.end
	}
	r.room = append(r.room, r.in[begin:kept]...)
	r.out = r.room
	r.in = append(r.in[:0], r.in[kept:]...)
}

// find finds the placeholders in what was read, and returns where what may be the beginning of one is, if more may come.
func (r *Replacer) find() (kept int) {
	r.found = r.found[:0]
	for at := 0; at < len(r.in); {
		next := bytes.IndexAny(r.in[at:], r.starts)
		if next < 0 {
			break
		}
		at += next
		switch n := r.match(r.in[at:]); {
		case n > 0:
			r.found = append(r.found, span{at, at + n})
			at += n
		case n < 0 && r.err == nil:
			return at
		default:
			_, n := unescape(r.place, r.in[at:])
			at += max(n, 1)
		}
	}
	return len(r.in)
}

// match returns the length of the placeholder that b begins with, 0 for none, or -1 where b is too short to tell.
func (r *Replacer) match(b []byte) int {
	n := 0
	for _, want := range r.placeholder {
		c, size := unescape(r.place, b[n:])
		switch {
		case size == 0:
			return -1
		case c != rune(want):
			return 0
		}
		n += size
	}
	return n
}

// unescape returns the character that b begins with, unescaped in the way of the place, and its length in b: 0 where b is too
// short to tell. What is no escape stands for its first byte.
func unescape(place control.Place, b []byte) (c rune, size int) {
	escape, digits := byte('%'), 1
	if place == control.PlaceJSON {
		escape, digits = '\\', 2
	}
	switch {
	case len(b) == 0:
		return 0, 0
	case b[0] != escape:
		return rune(b[0]), 1
	case place == control.PlaceJSON && len(b) > 1 && b[1] != 'u':
		if b[1] == '/' || b[1] == '"' || b[1] == '\\' {
			return rune(b[1]), 2
		}
		return -1, 2 // a control character: no placeholder has one
	}
	end := digits + map[int]int{1: 2, 2: 4}[digits]
	if len(b) < end {
		return 0, 0
	}
	n, err := strconv.ParseUint(string(b[digits:end]), 16, 16)
	if err != nil {
		return rune(b[0]), 1
	}
	return rune(n), end
}

// appendJSON appends value as it stands inside a JSON string (RFC 8259 §7).
func appendJSON(b []byte, value secret.Value) []byte {
	const digits = "0123456789abcdef"
	b = slices.Grow(b, 6*value.Len())
	_ = value.Use(func(v []byte) error {
		for _, c := range v {
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c < ' ':
				b = append(b, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
			default:
				b = append(b, c)
			}
		}
		return nil
	})
	return b
}
