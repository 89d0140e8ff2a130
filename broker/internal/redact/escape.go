package redact

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"sort"
)

// An Escape is a way to spell single characters that may be used for each of them or for none.
type Escape struct {
	mark    byte
	at      func(b []byte) (c byte, n int) // what the escape at the beginning of b stands for, and its length; 0: none
	begun   func(b []byte) bool            // whether all of b, behind the mark, may be the beginning of one
	longest int                            // bytes of one escape
}

// open reports whether b is an escape that has begun and not ended.
func (e *Escape) open(b []byte) bool {
	if len(b) == 0 || len(b) >= e.longest || b[0] != e.mark || !e.begun(b[1:]) {
		return false
	}
	_, n := e.at(b)
	return n == 0
}

// A turn is a place in undone text that lies right behind an escape, and the place in the text that it
// corresponds to. Up to the next one both advance together.
type turn struct{ to, from int }

// undo appends to dst what src[from:to] spells, at most room bytes, and to turns how the two correspond. It
// returns how far it came, which is behind to where an escape reaches over it.
func (e *Escape) undo(dst []byte, turns []turn, src []byte, from, to, room int) ([]byte, []turn, int) {
	turns = append(turns, turn{len(dst), from})
	for from < to && len(dst) < room {
		limit := min(to, from+room-len(dst))
		n := bytes.IndexByte(src[from:limit], e.mark)
		if n < 0 {
			n = limit - from
		}
		dst = append(dst, src[from:from+n]...)
		if from += n; from >= limit {
			continue
		}
		c, n := e.at(src[from:])
		if n == 0 {
			c, n = e.mark, 1
		}
		dst, from = append(dst, c), from+n
		if n > 1 {
			turns = append(turns, turn{len(dst), from})
		}
	}
	return dst, turns, from
}

// origin returns the place in the text that undone text's i-th byte comes from.
func origin(turns []turn, i int) int {
	k := sort.Search(len(turns), func(k int) bool { return turns[k].to > i }) - 1
	return turns[k].from + i - turns[k].to
}

// A hunter finds the escapes of one kind that spell bytes of interest.
type hunter struct {
	Escape
	pattern uint64 // the mark, eight times
	stride  int    // how far an escape of no interest is skipped: pairs of backslashes must not be cut
	wanted  *[256]bool
	second  [256]bool // what may stand behind the mark
	pairs   []uint64  // what may, where that is little: eight times each; the mark need not be looked at alone
}

func newHunter(e Escape, wanted *[256]bool) hunter {
	h := hunter{Escape: e, pattern: ones * uint64(e.mark), stride: 1, wanted: wanted}
	if e.mark == '\\' {
		h.stride = 2
	}
	for c := range 256 {
		_, n := e.at([]byte{e.mark, byte(c)})
		h.second[c] = n > 0 && wanted[unescaped(byte(c))] || n == 0 && e.begun([]byte{byte(c)})
	}
	for c, ok := range h.second {
		if ok {
			h.pairs = append(h.pairs, ones*uint64(c))
		}
	}
	if len(h.pairs) > maxPairs {
		h.pairs = nil
	}
	return h
}

// maxPairs is how many second bytes are searched for together with the mark: JSON text is full of escapes, and
// most secrets hold nothing that is spelled by those.
const maxPairs = 2

// unescaped returns what a short escape of JSON stands for.
func unescaped(c byte) byte {
	c, _ = jsonAt([]byte{'\\', c})
	return c
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// next returns where in b, from i on, the next escape stands that spells a byte of interest, and the place
// behind it; len(b) if there is none.
func (h *hunter) next(b []byte, i int) (at, behind int) {
	for i < len(b) {
		j := bytes.IndexByte(b[i:], h.mark)
		if j < 0 {
			break
		}
		if i += j; h.pairs != nil {
			if i = h.pair(b, i); i >= len(b) {
				break
			}
			if c, n := h.at(b[i:]); n > 0 && h.wanted[c] {
				return i, i + n
			}
			i++
			continue
		}
		for { // the next one is often near
			if i+1 >= len(b) {
				return len(b), len(b)
			}
			if h.second[b[i+1]] {
				if c, n := h.at(b[i:]); n > 0 && h.wanted[c] {
					return i, i + n
				}
			}
			i += h.stride
			near := 0
			for ; near < 4 && i+8 <= len(b); near++ {
				x := binary.LittleEndian.Uint64(b[i:]) ^ h.pattern
				if x = (x - ones) &^ x & highs; x != 0 {
					i += bits.TrailingZeros64(x) / 8
					break
				}
				i += 8
			}
			if near == 4 || i+8 > len(b) {
				break
			}
		}
	}
	return len(b), len(b)
}

// pair returns the first place from i on at which the mark stands before a byte of h.pairs, or before one that is
// not there yet; len(b) if there is none. It may take a pair of backslashes for an escape.
func (h *hunter) pair(b []byte, i int) int {
	mark, p0, p1 := h.pattern, h.pairs[0], h.pairs[len(h.pairs)-1]
	for ; i+17 <= len(b); i += 16 {
		w := b[i : i+17 : i+17]
		x0, y0 := binary.LittleEndian.Uint64(w)^mark, binary.LittleEndian.Uint64(w[1:])
		x1, y1 := binary.LittleEndian.Uint64(w[8:])^mark, binary.LittleEndian.Uint64(w[9:])
		u0, v0, u1, v1 := x0|(y0^p0), x0|(y0^p1), x1|(y1^p0), x1|(y1^p1) // a zero byte where both are there
		z0, z1 := (u0-ones)&^u0|(v0-ones)&^v0, (u1-ones)&^u1|(v1-ones)&^v1
		if (z0|z1)&highs == 0 {
			continue
		}
		if z0 &= highs; z0 != 0 {
			return i + bits.TrailingZeros64(z0)/8
		}
		return i + 8 + bits.TrailingZeros64(z1&highs)/8
	}
	for ; i+1 < len(b); i++ {
		if b[i] == h.mark && h.second[b[i+1]] {
			return i
		}
	}
	return len(b)
}

// percentAt reads %XX (RFC 3986 §2.1).
func percentAt(b []byte) (byte, int) {
	if len(b) < 3 {
		return 0, 0
	}
	hi, lo := unhex(b[1]), unhex(b[2])
	if hi > 15 || lo > 15 {
		return 0, 0
	}
	return hi<<4 | lo, 3
}

func percentBegun(b []byte) bool { return len(b) == 0 || len(b) == 1 && unhex(b[0]) <= 15 }

// jsonAt reads an escape of a JSON string (RFC 8259 §7) that stands for one byte.
func jsonAt(b []byte) (byte, int) {
	if len(b) < 2 {
		return 0, 0
	}
	switch b[1] {
	case '"', '\\', '/':
		return b[1], 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
		if len(b) >= 6 && b[2] == '0' && b[3] == '0' {
			if hi, lo := unhex(b[4]), unhex(b[5]); hi <= 15 && lo <= 15 {
				return hi<<4 | lo, 6
			}
		}
	}
	return 0, 0
}

func jsonBegun(b []byte) bool {
	const form = "u00"
	n := min(len(b), len(form))
	return string(b[:n]) == form[:n] && (len(b) <= len(form) || len(b) == len(form)+1 && unhex(b[len(form)]) <= 15)
}

// longestEntity bounds a character reference, leading zeros and semicolon included.
const longestEntity = 12 // bytes

// htmlAt reads a character reference that stands for one byte: decimal, hexadecimal, or a name of ASCII
// punctuation (HTML §13.5).
func htmlAt(b []byte) (byte, int) {
	b = b[:min(len(b), longestEntity)]
	end := bytes.IndexByte(b, ';')
	if end < 2 {
		return 0, 0
	}
	name := b[1:end]
	if name[0] != '#' {
		c, ok := entities[string(name)]
		if !ok {
			return 0, 0
		}
		return c, end + 1
	}
	base, digits := 10, name[1:]
	if len(digits) > 0 && digits[0]|0x20 == 'x' {
		base, digits = 16, digits[1:]
	}
	if len(digits) == 0 {
		return 0, 0
	}
	v := 0
	for _, d := range digits {
		x := int(unhex(d))
		if x >= base {
			return 0, 0
		}
		if v = v*base + x; v > 0xff {
			return 0, 0
		}
	}
	return byte(v), end + 1
}

func htmlBegun(b []byte) bool {
	for i, c := range b {
		if unhex(c) > 15 && (c|0x20 < 'a' || c|0x20 > 'z') && (i > 0 || c != '#') {
			return false
		}
	}
	return true
}

var entities = map[string]byte{
	"Tab": '\t', "NewLine": '\n', "nbsp": ' ', "excl": '!', "quot": '"', "QUOT": '"', "num": '#', "dollar": '$', "percnt": '%',
	"amp": '&', "AMP": '&', "apos": '\'', "lpar": '(', "rpar": ')', "ast": '*', "midast": '*', "plus": '+', "comma": ',',
	"period": '.', "sol": '/', "colon": ':', "semi": ';', "lt": '<', "LT": '<', "equals": '=', "gt": '>', "GT": '>', "quest": '?',
	"commat": '@', "lsqb": '[', "lbrack": '[', "bsol": '\\', "rsqb": ']', "rbrack": ']', "Hat": '^', "lowbar": '_', "UnderBar": '_',
	"grave": '`', "lcub": '{', "lbrace": '{', "verbar": '|', "vert": '|', "VerticalLine": '|', "rcub": '}', "rbrace": '}',
}

// unhex returns the value of a hexadecimal digit, or 255.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	}
	return 255
}
