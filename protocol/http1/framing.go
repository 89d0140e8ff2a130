package http1

import (
	"strconv"
	"strings"

	"torno.internal/protocol"
)

// maxLengthDigits keeps every Content-Length within an int64.
const maxLengthDigits = 18

// ContentLength returns the value of the Content-Length field of a message, and whether it has one. It
// refuses a repeated one, also if equal, and every spelling but digits.
func ContentLength(f protocol.Fields) (n int64, ok bool, err error) {
	for i := range f {
		if f[i].Name != "content-length" {
			continue
		}
		if ok {
			return 0, false, bad("repeated Content-Length")
		}
		if n, err = parseLength(f[i].Value); err != nil {
			return 0, false, err
		}
		ok = true
	}
	return n, ok, nil
}

func parseLength(s string) (int64, error) {
	if s == "" || len(s) > maxLengthDigits {
		return 0, bad("Content-Length of %d bytes is not a number in digits", len(s))
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, bad("Content-Length of %d bytes is not a number in digits", len(s))
		}
	}
	return strconv.ParseInt(s, 10, 64)
}

// transferEncoding returns the value of the Transfer-Encoding field and whether there is one.
func transferEncoding(f protocol.Fields) (coding string, ok bool, err error) {
	for i := range f {
		if f[i].Name != "transfer-encoding" {
			continue
		}
		if ok {
			return "", false, bad("repeated Transfer-Encoding")
		}
		coding, ok = f[i].Value, true
	}
	return coding, ok, nil
}

func (h *RequestHead) parseFraming() error {
	length, hasLength, err := ContentLength(h.Fields)
	if err != nil {
		return err
	}
	coding, hasCoding, err := transferEncoding(h.Fields)
	switch {
	case err != nil:
		return err
	case hasCoding && hasLength:
		return bad("Transfer-Encoding and Content-Length")
	case hasCoding && h.Proto == "HTTP/1.0":
		return bad("Transfer-Encoding on HTTP/1.0")
	case hasCoding && coding != "chunked": // other cases of the word too: no client sends them
		return badStatus(501, "Transfer-Encoding other than chunked")
	case h.Method == "CONNECT" && (hasCoding || length > 0):
		return bad("CONNECT with content")
	}
	h.Chunked, h.ContentLength = hasCoding, length
	if hasCoding {
		h.ContentLength = -1
	}
	h.KeepAlive = h.Proto == "HTTP/1.1" && !HasOption(h.Fields, "close")
	if HasOption(h.Fields, "upgrade") && h.Proto == "HTTP/1.1" {
		h.Upgrade = lowerASCII(h.Fields.Get("upgrade"))
	}
	return h.parseExpect()
}

func (h *RequestHead) parseExpect() error {
	expect, ok := h.Fields.Lookup("expect")
	switch {
	case !ok:
		return nil
	case h.Proto == "HTTP/1.0": // RFC 9110 §10.1.1: it is ignored there, and would come to life where we write HTTP/1.1
		h.Fields = h.Fields.Del("expect")
		return nil
	}
	if !equalFold(expect, "100-continue") || h.Fields.Count("expect") > 1 {
		return badStatus(417, "Expect other than one 100-continue")
	}
	h.ExpectContinue = h.Chunked || h.ContentLength > 0
	return nil
}

// HasOption reports whether a Connection field lists the lower-case option.
func HasOption(f protocol.Fields, option string) bool {
	for i := range f {
		if f[i].Name == "connection" && hasToken(f[i].Value, option) {
			return true
		}
	}
	return false
}

// hasToken reports whether the comma-separated list holds token, in any case.
func hasToken(list, token string) bool {
	for list != "" {
		var item string
		item, list, _ = strings.Cut(list, ",")
		if equalFold(trimSpace(item), token) {
			return true
		}
	}
	return false
}

// equalFold compares s with a word in lower case. Case is that of ASCII: strings.EqualFold has two more
// letters, ſ and the Kelvin sign, and would read words where no other parser does.
func equalFold(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if lowerByte(s[i]) != lower[i] {
			return false
		}
	}
	return true
}

func lowerByte(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		b[i] = lowerByte(c)
	}
	return string(b)
}

// StripConnection removes, in place, what ends at this hop: the connection-specific fields and Host
// (protocol.ConnectionFields) and every field that Connection nominates (RFC 9110 §7.6.1). What is left
// may stand in a protocol.Request or protocol.Response. Names are lower case, as a Reader gives them.
func StripConnection(f protocol.Fields) protocol.Fields {
	nominated := make([]string, 0, 4)
	for i := range f {
		if f[i].Name == "connection" {
			nominated = append(nominated, f[i].Value)
		}
	}
	return f.DelFunc(func(l protocol.Field) bool {
		if protocol.IsConnectionField(l.Name) {
			return true
		}
		for _, list := range nominated {
			if hasToken(list, l.Name) && l.Name != "content-length" {
				return true
			}
		}
		return false
	})
}
