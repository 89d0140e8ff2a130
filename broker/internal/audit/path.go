package audit

import (
	"bytes"
	"crypto/sha256"
	"strings"
)

// maskedNames are the parameters whose values are credentials, in lower case; maskedParts are what else such a name
// may hold.
var (
	maskedNames = map[string]bool{
		"access_key": true, "accesskey": true, "assertion": true, "auth": true, "authorization": true, "code": true,
		"jwt": true, "key": true, "pass": true, "pwd": true, "session": true, "sessionid": true, "sid": true, "sig": true,
		"subscription-key": true,
	}
	maskedParts = [][]byte{
		[]byte("token"), []byte("secret"), []byte("passw"), []byte("credential"), []byte("apikey"), []byte("api_key"),
		[]byte("api-key"), []byte("signature"),
	}
)

const masked = "***"

// appendPath appends the path with the query, with credentials in it masked. Of a long path the beginning is kept, and
// the SHA-256 of the whole stands beside.
func appendPath(b []byte, path string) []byte {
	if path == "" {
		return b
	}
	b = append(b, `,"path":"`...)
	before, query, found := strings.Cut(clip(path, maxPath), "?")
	b = appendMasked(b, before, '/')
	if found {
		b = appendMasked(append(b, '?'), query, '&')
	}
	b = append(b, '"')
	if len(path) > maxPath {
		sum := sha256.Sum256([]byte(path))
		b = appendNumber(b, "path_bytes", int64(len(path)))
		b = append(b, `,"path_sha256":"`...)
		b = appendHex(b, sum[:])
		b = append(b, '"')
	}
	return b
}

// appendMasked appends s, whose parts stand between separators. From the first name on that says so a part is
// a credential: some servers take a semicolon for a separator as well, others for a piece of the value.
func appendMasked(b []byte, s string, separator byte) []byte {
	for more := true; more; {
		part := s
		i := strings.IndexByte(s, separator)
		if more = i >= 0; more {
			part, s = s[:i], s[i+1:]
		}
		if strings.IndexByte(part, '=') < 0 {
			b = appendEscaped(b, part, maxLine)
		} else {
			b = appendPairs(b, part)
		}
		if more {
			b = append(b, separator)
		}
	}
	return b
}

// appendPairs appends name=value, or several of them between semicolons, up to the first that is a credential.
func appendPairs(b []byte, part string) []byte {
	for from := 0; ; {
		pair, _, more := strings.Cut(part[from:], ";")
		if name, _, ok := strings.Cut(pair, "="); ok && isMasked(name) {
			return append(appendEscaped(b, part[:from+len(name)], maxLine), "="+masked...)
		}
		if !more {
			return appendEscaped(b, part, maxLine)
		}
		from += len(pair) + 1
	}
}

// isMasked looks a parameter's name up without regard to case, and masks names that are encoded or long: a server may
// read anything into them.
func isMasked(name string) bool {
	var lower [64]byte
	if len(name) > len(lower) || strings.IndexByte(name, '%') >= 0 {
		return true
	}
	for i := range len(name) {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower[i] = c
	}
	n := lower[:len(name)]
	if maskedNames[string(n)] {
		return true
	}
	for _, part := range maskedParts {
		if bytes.Contains(n, part) {
			return true
		}
	}
	return false
}
