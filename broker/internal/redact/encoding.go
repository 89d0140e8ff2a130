package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"strings"
)

// An Encoding is one way in which text may hold bytes of a secret. It has Streams, or an Escape.
type Encoding struct {
	Name string

	// Streams returns what value looks like where it stands in longer text, one stream for each way it can
	// come to stand there: only characters that value alone determines. Nil for escapes.
	Streams func(value []byte) [][]byte
	// Width returns how many bytes of a stream any run of r bytes of the value determines, at least.
	Width func(r int) int

	// Escape spells single characters in another way wherever it likes. It is undone on a copy, which is then
	// searched for all streams. Nil for encodings with streams.
	Escape *Escape
}

// Encodings is what is recognised: by the scrubbing of answers, by the scan of a VM's memory and by the
// tests of both. The caller owns the result.
func Encodings() []Encoding {
	base64Width := func(r int) int { return (8*r - 4) / 6 }
	return []Encoding{
		{Name: "raw", Width: func(r int) int { return r }, Streams: one(func(v []byte) []byte { return append([]byte(nil), v...) })},
		// The names of fields and hosts are spelled in lower case by whoever reads them, ourselves included.
		{Name: "lower case", Width: func(r int) int { return r }, Streams: one(func(v []byte) []byte { return bytes.ToLower(v) })},
		{Name: "base64", Width: base64Width, Streams: base64Streams(base64.RawStdEncoding)},
		{Name: "base64url", Width: base64Width, Streams: base64Streams(base64.RawURLEncoding)},
		{Name: "hex", Width: func(r int) int { return 2 * r }, Streams: one(func(v []byte) []byte { return hex.AppendEncode(nil, v) })},
		{Name: "hex, upper case", Width: func(r int) int { return 2 * r }, Streams: one(func(v []byte) []byte {
			return []byte(strings.ToUpper(hex.EncodeToString(v)))
		})},
		// Little and big endian are the same bytes, one further.
		{Name: "utf-16", Width: func(r int) int { return 2*r - 1 }, Streams: one(utf16)},
		{Name: "percent", Escape: &percentEscape},
		{Name: "json", Escape: &jsonEscape},
		{Name: "html", Escape: &htmlEscape},
	}
}

func one(f func([]byte) []byte) func([]byte) [][]byte {
	return func(v []byte) [][]byte { return [][]byte{f(v)} }
}

// base64Streams returns the three streams of a value: one for each place in a group of three at which it
// may begin. Characters that hold bits of neighbours are left out.
func base64Streams(enc *base64.Encoding) func([]byte) [][]byte {
	return func(v []byte) [][]byte {
		streams := make([][]byte, 3)
		for before := range streams {
			padded := append(make([]byte, before, before+len(v)+2), v...)
			first := (8*before + 5) / 6 // the first character with bits of v alone
			last := 8 * len(padded) / 6 // behind the last one
			text := enc.AppendEncode(nil, padded)
			streams[before] = text[min(first, last):last]
		}
		return streams
	}
}

// utf16 spells the bytes of v as UTF-16, which is what text in Latin-1 becomes.
func utf16(v []byte) []byte {
	s := make([]byte, 0, 2*len(v)+1)
	for _, c := range v {
		s = append(s, 0, c)
	}
	return append(s, 0)
}
