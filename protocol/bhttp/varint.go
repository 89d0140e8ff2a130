package bhttp

import "math/bits"

// maxVarint is the largest value of a variable-length integer (RFC 9000 §16).
const maxVarint = 1<<62 - 1

// appendVarint appends v, which is at most maxVarint, in as few bytes as it takes.
func appendVarint(b []byte, v uint64) []byte {
	switch varintLen(v) {
	case 1:
		return append(b, byte(v))
	case 2:
		return append(b, 0x40|byte(v>>8), byte(v))
	case 4:
		return append(b, 0x80|byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
	}
	return append(b, 0xc0|byte(v>>56), byte(v>>48), byte(v>>40), byte(v>>32),
		byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// varintLen returns the fewest bytes that v takes: 1, 2, 4 or 8.
func varintLen(v uint64) int {
	switch n := bits.Len64(v); {
	case n <= 6:
		return 1
	case n <= 14:
		return 2
	case n <= 30:
		return 4
	}
	return 8
}

// readVarint reads an integer at the front of b and returns it and its length, which is 0 when b ends
// within it. The caller decides whether it must be minimal.
func readVarint(b []byte) (v uint64, n int) {
	if len(b) == 0 {
		return 0, 0
	}
	n = 1 << (b[0] >> 6)
	if len(b) < n {
		return 0, 0
	}
	v = uint64(b[0] & 0x3f)
	for _, c := range b[1:n] {
		v = v<<8 | uint64(c)
	}
	return v, n
}

// readMinimal is readVarint that refuses longer forms than needed.
func readMinimal(b []byte) (v uint64, n int, err error) {
	v, n = readVarint(b)
	if n > 1 && varintLen(v) != n {
		return 0, 0, malformed("integer %d in %d bytes", v, n)
	}
	return v, n, nil
}
