// Package spelling knows in how many ways servers read names that a request holds: percent-encoded (RFC 3986 §2.1) once
// or over, in another case, or with other punctuation. Whoever sets a parameter removes all that some server may
// take for it.
package spelling

import "strings"

// MaxDecodings is how often over something may be percent-encoded.
const MaxDecodings = 3

// DropParameter returns target, a path and a query, without the parameters that some server may take for the one called
// name, and leaves all others as they are.
func DropParameter(target, name string) string {
	path, rest, found := strings.Cut(target, "?")
	if !found {
		return target
	}
	var kept []string
	for pair := range strings.SplitSeq(rest, "&") {
		// Some servers part parameters by semicolons as well: then all of them go together.
		own := false
		for part := range strings.SplitSeq(pair, ";") {
			own = own || IsParameter(part, name)
		}
		if !own {
			kept = append(kept, pair)
		}
	}
	if len(kept) == 0 {
		return path
	}
	return path + "?" + strings.Join(kept, "&")
}

// IsParameter reports whether some server may take the parameter pair for the one called name: encoded once or over, in another
// case, with an underscore for a hyphen or a dot, or, as PHP and Rails have it, with an index or white space around it.
func IsParameter(pair, name string) bool {
	own, _, _ := strings.Cut(pair, "=")
	for range MaxDecodings {
		own = strings.ReplaceAll(Unescape(own, "%"), "+", " ")
	}
	own, _, _ = strings.Cut(own, "=")
	own, _, _ = strings.Cut(strings.TrimLeft(own, " \t\r\n\x00"), "[")
	own, _, _ = strings.Cut(own, "\x00")
	return foldParameter(strings.TrimRight(own, " ")) == foldParameter(name)
}

var punctuation = strings.NewReplacer("-", "_", ".", "_", " ", "_")

func foldParameter(name string) string { return punctuation.Replace(strings.ToLower(name)) }

// Unescape replaces lead and two hexadecimal digits by the byte that they mean and leaves everything else alone.
func Unescape(s, lead string) string {
	if !strings.Contains(s, lead) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if rest := s[i:]; len(rest) >= len(lead)+2 && strings.HasPrefix(rest, lead) {
			hi, lo := hexDigit(rest[len(lead)]), hexDigit(rest[len(lead)+1])
			if hi >= 0 && lo >= 0 {
				b = append(b, byte(hi<<4|lo))
				i += len(lead) + 1
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}
