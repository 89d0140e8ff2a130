package audit

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// appendEscaped appends s as the inside of a JSON string (RFC 8259 §7) in which nothing can end the
// line, move a terminal's cursor or change the direction of text. A byte that is not UTF-8 becomes the
// lone surrogate U+DC00 plus its value, so that what was there can be read back byte for byte. It stops before
// the first character that no longer fits into room bytes.
func appendEscaped(b []byte, s string, room int) []byte {
	for end := len(b) + room; s != ""; {
		n := 0
		for n < len(s) && plain[s[n]] {
			n++
		}
		if n > 0 {
			if b = append(b, s[:min(n, end-len(b))]...); len(b) == end {
				return b
			}
			s = s[n:]
			continue
		}
		before := len(b)
		b, n = appendSpecial(b, s)
		if len(b) > end {
			return b[:before]
		}
		s = s[n:]
	}
	return b
}

// plain are the bytes that stand in a string as they are, whatever is beside them.
var plain = func() (p [256]bool) {
	for c := ' '; c < 0x7f; c++ {
		p[c] = c != '"' && c != '\\'
	}
	return p
}()

// appendSpecial appends the first character of s, which is not plain and takes n bytes.
func appendSpecial(b []byte, s string) (_ []byte, n int) {
	switch c := s[0]; {
	case c == '"' || c == '\\':
		return append(b, '\\', c), 1
	case c < utf8.RuneSelf:
		return appendUnit(b, uint16(c)), 1
	}
	r, n := utf8.DecodeRuneInString(s)
	return appendRune(b, r, n, s), n
}

// appendRune appends the rune beyond ASCII that s begins with and that takes n bytes of it.
func appendRune(b []byte, r rune, n int, s string) []byte {
	switch {
	case r == utf8.RuneError && n == 1:
		return appendUnit(b, notUTF8+uint16(s[0]))
	case !hidden(r):
		return append(b, s[:n]...)
	case r > 0xffff: // a surrogate pair
		r -= 0x10000
		return appendUnit(appendUnit(b, 0xd800+uint16(r>>10)), 0xdc00+uint16(r&0x3ff))
	}
	return appendUnit(b, uint16(r))
}

// notUTF8 is the code unit that stands for a zero byte, were that not UTF-8.
const notUTF8 = 0xdc00

// hiddenRunes are the ranges of runes beyond ASCII that control a terminal, or the direction or layout of text, or
// that show as nothing. The table is part of the format: a build with another Unicode writes the same lines.
var hiddenRunes = [][2]rune{
	{0x80, 0x9f}, {0xad, 0xad}, {0x34f, 0x34f}, {0x61c, 0x61c}, {0x115f, 0x1160}, {0x17b4, 0x17b5}, {0x180b, 0x180f},
	{0x200b, 0x200f}, {0x2028, 0x202e}, {0x2060, 0x206f}, {0x3164, 0x3164}, {0xfe00, 0xfe0f}, {0xfeff, 0xfeff},
	{0xffa0, 0xffa0}, {0xfff0, 0xfffb}, {0x1bca0, 0x1bca3}, {0x1d173, 0x1d17a}, {0xe0000, 0xe0fff},
}

func hidden(r rune) bool {
	for _, h := range hiddenRunes {
		if r <= h[1] {
			return r >= h[0]
		}
	}
	return false
}

func appendUnit(b []byte, u uint16) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}

// readText reads a string that appendEscaped wrote.
func readText(v *string, rest []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(rest, []byte(`"`))
	end := closing(rest)
	if !ok || end < 0 {
		return nil, errors.New("not a string")
	}
	inside := rest[:end]
	s := string(inside)
	if bytes.IndexByte(inside, '\\') >= 0 {
		s = unescape(inside)
	}
	if string(appendEscaped(nil, s, maxLine)) != string(inside) {
		return nil, errors.New("not a string as it is written here")
	}
	*v = s
	return rest[end+1:], nil
}

// closing returns where the quote stands that ends a string, or -1.
func closing(b []byte) int {
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}

// unescape reads the inside of a string. What no escaping gives becomes something that is escaped otherwise, so
// that the comparison in readText sees it.
func unescape(b []byte) string {
	out := make([]byte, 0, len(b))
	for len(b) > 0 {
		if b[0] != '\\' || len(b) < 2 {
			out = append(out, b[0])
			b = b[1:]
			continue
		}
		u, ok := unit(b)
		if !ok {
			out = append(out, b[1])
			b = b[2:]
			continue
		}
		b = b[6:]
		low, isPair := unit(b)
		switch r := utf16.DecodeRune(rune(u), rune(low)); {
		case isPair && r != utf8.RuneError:
			out = utf8.AppendRune(out, r)
			b = b[6:]
		case u >= notUTF8+0x80 && u <= notUTF8+0xff:
			out = append(out, byte(u-notUTF8))
		default:
			out = utf8.AppendRune(out, rune(u))
		}
	}
	return string(out)
}

// unit reads one \uXXXX.
func unit(b []byte) (uint16, bool) {
	if len(b) < 6 || b[0] != '\\' || b[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[2:6]), 16, 16)
	return uint16(n), err == nil
}
