package credential

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"slices"
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

// A Replacer reads content in which a secret's placeholder, spelled as it was given out, is replaced by the
// value, escaped so that it stays within the string or parameter that it stands in. It holds back only what
// may be the beginning of a placeholder. Close it when done.
type Replacer struct {
	from        io.Reader
	placeholder []byte
	value       []byte // escaped

	in  []byte // read, and not looked at to its end
	out []byte // to be given out, in room
	err error  // what from said last

	room []byte
}

// readSize is how much a Replacer reads at once, in bytes.
const readSize = 16 << 10

// Replacer returns a Replacer of content that stands in place.
func (u *Use) Replacer(place control.Place, content io.Reader) *Replacer {
	r := &Replacer{from: content, placeholder: []byte(u.secret.Placeholder)}
	if place == control.PlaceJSON {
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
	if need := r.needed(); need > cap(r.room) {
		r.room = make([]byte, 0, need)
	}
	r.room = r.room[:0]
	rest := r.in
	for {
		before, after, found := bytes.Cut(rest, r.placeholder)
		if !found {
			break
		}
		r.room = append(append(r.room, before...), r.value...)
		rest = after
	}
	kept := 0
	if err == nil {
		kept = r.begun(rest)
	}
	r.room = append(r.room, rest[:len(rest)-kept]...)
	r.out = r.room
	r.in = append(r.in[:0], rest[len(rest)-kept:]...)
}

// needed is how much room what was read takes with every placeholder in it replaced, so that room never grows
// and leaves a copy behind.
func (r *Replacer) needed() int {
	return len(r.in) + bytes.Count(r.in, r.placeholder)*len(r.value)
}

// begun returns how many bytes at the end of b may be the beginning of a placeholder.
func (r *Replacer) begun(b []byte) int {
	for n := min(len(b), len(r.placeholder)-1); n > 0; n-- {
		if bytes.HasPrefix(r.placeholder, b[len(b)-n:]) {
			return n
		}
	}
	return 0
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
