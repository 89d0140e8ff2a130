package control

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Escape makes hostile text safe to print on a terminal: whatever Unicode does not call
// printable is written as Go would write it. That covers C0 with tab and newline, DEL, C1, bidirectional
// and zero-width controls, line separators and every space but the ASCII one. Bytes that are not
// UTF-8 become \xNN. Printable text, also outside ASCII, stays as it is.
func Escape(s string) string {
	clean := true
	for i := 0; i < len(s) && clean; i++ {
		clean = ' ' <= s[i] && s[i] < 0x7f
	}
	if clean {
		return s
	}
	var b strings.Builder
	for s != "" {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0]), 16)) // never below 0x80: two digits
		case strconv.IsPrint(r):
			b.WriteString(s[:n])
		default:
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
		s = s[n:]
	}
	return b.String()
}
