package control

import (
	"bytes"
	"math"
)

// Floors of a secret that is inside the guarantee.
const (
	MinRandom  = 16 // bytes after the public prefix
	minBits    = 64 // estimated
	minVariety = 6  // different bytes
)

// IsWeak reports whether value is too short or too simple for the guarantee that no part of it reaches
// the workload: masking so few bytes would mask ordinary text, and finding them would mean nothing.
// prefixes are the public beginnings that its preset knows, which are no part of the secret. The
// estimate counts kinds of characters; it knows no dictionary.
func IsWeak(value []byte, prefixes []string) bool {
	random := RandomPart(value, prefixes)
	if len(random) < MinRandom {
		return true
	}
	var seen [256]bool
	variety := 0
	for _, c := range random {
		if !seen[c] {
			seen[c] = true
			variety++
		}
	}
	return variety < minVariety || float64(len(random))*math.Log2(alphabet(&seen)) < minBits
}

// IsWeak reports whether the value of the secret that m describes, or a part of it that is a secret by itself, is weak; see the
// function of that name. A secret that is exposed is never called so.
func (m Meta) IsWeak(value []byte, prefixes []string) bool {
	if m.Expose != ExposeNone {
		return false
	}
	if m.Inject.Scheme == SchemeHMAC {
		if h, err := ParseHMAC(m.Inject); err == nil {
			return h.isWeak(value)
		}
	}
	return IsWeak(value, m.publicPrefixes(value, prefixes))
}

// RandomPart returns the part of value that is secret: without the longest of prefixes, without the scheme
// of a URL and without the armour lines of PEM. It shares value's memory.
func RandomPart(value []byte, prefixes []string) []byte {
	longest := 0
	for _, p := range prefixes {
		if bytes.HasPrefix(value, []byte(p)) {
			longest = max(longest, len(p))
		}
	}
	value = value[longest:]
	if i := bytes.Index(value, []byte("://")); i > 0 && i <= maxScheme && isScheme(value[:i]) {
		value = value[i+len("://"):]
	}
	if bytes.HasPrefix(value, []byte("-----BEGIN ")) {
		if i := bytes.IndexByte(value, '\n'); i > 0 {
			value = value[i+1:]
		}
		if i := bytes.Index(value, []byte("-----END ")); i > 0 {
			value = bytes.TrimRight(value[:i], "\r\n")
		}
	}
	return value
}

const maxScheme = 32 // bytes of a URL's scheme

// isScheme reports whether b is a URL's scheme (RFC 3986 §3.1).
func isScheme(b []byte) bool {
	for i, c := range b {
		if !isAlnum(c) && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}

// alphabet estimates how many characters the bytes in seen were drawn from.
func alphabet(seen *[256]bool) float64 {
	classes := []struct {
		size  float64
		holds func(c int) bool
	}{
		{10, func(c int) bool { return '0' <= c && c <= '9' }},
		{6, func(c int) bool { return 'a' <= c && c <= 'f' }},
		{6, func(c int) bool { return 'A' <= c && c <= 'F' }},
		{20, func(c int) bool { return 'g' <= c && c <= 'z' }},
		{20, func(c int) bool { return 'G' <= c && c <= 'Z' }},
		{32, func(c int) bool { return c > ' ' && c < 0x7f && !isAlnum(byte(c)) }},
		{128, func(c int) bool { return c <= ' ' || c >= 0x7f }},
	}
	size := 0.0
	for _, class := range classes {
		for c := range seen {
			if seen[c] && class.holds(c) {
				size += class.size
				break
			}
		}
	}
	return size
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}
