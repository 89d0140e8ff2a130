package credential

import (
	"encoding/base64"
	"strings"

	"torno.internal/broker/internal/spelling"
	"torno.internal/protocol/control"
)

// shortestView is the length of text below which no placeholder fits into it, in any encoding.
const shortestView = minShape

// maxViews is how many encodings may lie over one another: Basic credentials of a percent-encoded password in a
// JSON string of a query, say.
const maxViews = 3

// marks calls f with the text from each placeholder mark on, and with the text before it, wherever value
// holds one: as it stands, percent-encoded, with JSON escapes, in base64 of either alphabet (as in Basic, RFC
// 7617), and in these inside one another. It stops when f returns false.
func marks(value string, f func(before, from string) bool) { look(value, maxViews, f) }

func look(text string, views int, f func(before, from string) bool) bool {
	if len(text) < shortestView {
		return true
	}
	if !marksIn(text, f) {
		return false
	}
	if views == 0 {
		return true
	}
	if strings.IndexByte(text, '%') >= 0 {
		if plain := spelling.Unescape(text, "%"); len(plain) < len(text) && !look(plain, views-1, f) {
			return false
		}
	}
	if strings.Contains(text, `\u`) {
		if plain := spelling.Unescape(text, `\u00`); len(plain) < len(text) && !look(plain, views-1, f) {
			return false
		}
	}
	for word := range strings.FieldsFuncSeq(text, isSeparator) {
		for i := range min(4, max(0, len(word)-shortestView)) { // what stands before it may look like a part of it
			if decoded, ok := decodeBase64(word[i:]); ok && !look(decoded, views-1, f) {
				return false
			}
		}
	}
	return true
}

func marksIn(text string, f func(before, from string) bool) bool {
	for start := 0; ; {
		i := strings.Index(text[start:], control.PlaceholderMark)
		if i < 0 {
			return true
		}
		i += start
		if !f(text[:i], text[i:]) {
			return false
		}
		start = i + len(control.PlaceholderMark)
	}
}

// isSeparator reports whether r cannot be part of base64 in either alphabet. Padding is no part either:
// what follows it is decoded on its own.
func isSeparator(r rune) bool {
	return r >= 0x80 || base64Alphabet[byte(r)] == 0
}

var base64Alphabet = func() (t [256]byte) {
	for i := range len(base62) {
		t[base62[i]] = 1
	}
	t['+'], t['/'], t['-'], t['_'] = 1, 1, 1, 1
	return t
}()

// decodeBase64 decodes as much of word as is whole, in the standard or the URL alphabet. Servers differ
// in what they make of an odd end; the placeholder stands before it.
func decodeBase64(word string) (string, bool) {
	if len(word) < shortestView {
		return "", false
	}
	word = base64URL.Replace(word)
	if len(word)%4 == 1 {
		word = word[:len(word)-1]
	}
	b, err := base64.RawStdEncoding.DecodeString(word)
	return string(b), err == nil
}

var base64URL = strings.NewReplacer("-", "+", "_", "/")
