package audit

import (
	"crypto/sha256"
	"strconv"
	"time"
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

// appendName begins a member that is not the first one.
func appendName(b []byte, name string) []byte {
	b = append(b, ',', '"')
	b = append(b, name...)
	return append(b, '"', ':')
}

// appendPair appends a member with a string value, or nothing if that is empty.
func appendPair(b []byte, name, value string) []byte {
	return appendClipped(b, name, value, maxLine)
}

// appendClipped is appendPair for a value of which at most room bytes are kept, as they are written.
func appendClipped(b []byte, name, value string, room int) []byte {
	if value == "" {
		return b
	}
	b = append(appendName(b, name), '"')
	b = appendEscaped(b, value, room)
	return append(b, '"')
}

// appendNumber appends a member with a number.
func appendNumber(b []byte, name string, n int64) []byte {
	return strconv.AppendInt(appendName(b, name), n, 10)
}

// appendCount is appendNumber, or nothing if n is zero.
func appendCount(b []byte, name string, n int64) []byte {
	if n == 0 {
		return b
	}
	return appendNumber(b, name, n)
}

// appendFlag appends a member that is true, or nothing.
func appendFlag(b []byte, name string, set bool) []byte {
	if !set {
		return b
	}
	return append(appendName(b, name), "true"...)
}

const hexDigits = "0123456789abcdef"

func appendHex(b, raw []byte) []byte {
	for _, c := range raw {
		b = append(b, hexDigits[c>>4], hexDigits[c&15])
	}
	return b
}
