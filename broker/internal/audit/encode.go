package audit

import (
	"crypto/sha256"
	"strconv"
	"time"
	"unicode/utf8"
)

// appendHead begins a line: {"seq":N,"time":"…","prev":"…","type":"…"
func appendHead(b []byte, seq uint64, now time.Time, prev *[32]byte, kind string) []byte {
	b = append(b, `{"seq":`...)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, `,"time":"`...)
	b = now.UTC().AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","prev":"`...)
	b = appendHex(b, prev[:])
	b = append(b, `","type":"`...)
	b = append(b, kind...)
	return append(b, '"')
}

// lineHash is the hash that the next line carries, of a line without its end.
func lineHash(line []byte) [32]byte { return sha256.Sum256(line) }

// appendPair appends a member with a string value, or nothing if that is empty.
func appendPair(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':', '"')
	b = appendEscaped(b, value)
	return append(b, '"')
}

func appendNumber(b []byte, name string, n int64) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	b = append(b, '"', ':')
	return strconv.AppendInt(b, n, 10)
}

const hexDigits = "0123456789abcdef"

func appendHex(b, raw []byte) []byte {
	for _, c := range raw {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}

// appendEscaped appends s as the inside of a JSON string (RFC 8259 §7) in which nothing can end the
// line, move a terminal's cursor or change the direction of text. A byte that is not UTF-8 becomes the
// lone surrogate U+DC00 plus its value.
func appendEscaped(b []byte, s string) []byte {
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= 0x20 && c != '"' && c != '\\' && c != 0x7f {
				b = append(b, c)
			} else if c == '"' || c == '\\' {
				b = append(b, '\\', c)
			} else {
				b = appendUnit(b, uint16(c))
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			b = appendUnit(b, 0xdc00+uint16(c))
		case hidden(r):
			b = appendUnit(b, uint16(r))
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return b
}

// hidden reports whether a rune beyond ASCII controls a terminal or the direction or layout of text.
func hidden(r rune) bool {
	return r < 0xa0 || r == 0xad || r == 0x61c || r >= 0x200b && r <= 0x200f || r >= 0x2028 && r <= 0x202e ||
		r >= 0x2060 && r <= 0x206f || r == 0xfeff || r >= 0xfff9 && r <= 0xfffb
}

func appendUnit(b []byte, u uint16) []byte {
	return append(b, '\\', 'u', hexDigits[u>>12], hexDigits[u>>8&15], hexDigits[u>>4&15], hexDigits[u&15])
}
