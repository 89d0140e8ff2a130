package redact

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// A hunter finds the escapes of one kind that stand for bytes of interest.
type hunter struct {
	Escape
	wanted *[256]bool // bytes of interest
	second [256]bool  // what may stand behind the mark of an escape of interest

	// The same for eight bytes at once: the mark, and what all of second have in common.
	marks, common, values uint64
}

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

func newHunter(e Escape, wanted *[256]bool) hunter {
	h := hunter{Escape: e, wanted: wanted, marks: ones * uint64(e.mark)}
	every, none := byte(255), byte(255) // bits that are set in all of second, and in none
	for c := range 256 {
		if !wanted[c] {
			continue
		}
		for _, s := range []byte(e.second(byte(c))) {
			h.second[s] = true
			every, none = every&s, none&^s
		}
	}
	h.common, h.values = ones*uint64(every|none), ones*uint64(every)
	return h
}

// interesting reports whether an escape of interest stands at b[i:].
func (h *hunter) interesting(b []byte, i int) bool {
	if i+1 >= len(b) || !h.second[b[i+1]] {
		return false
	}
	c, n := h.at(b[i:])
	return n > 0 && h.wanted[c]
}

// Where marks are close to one another, as in JSON with its many escapes of no interest, they are looked for together
// with what stands behind them; where they are not, alone, which is fastest by far.
const (
	near    = 24   // bytes between marks that are close
	crowded = 2    // marks in a row that are
	crowd   = 2048 // bytes that are then taken to be like that
)

// next returns where in b, from i on, the next escape of interest stands, or something that looks like one since a
// backslash before it goes unseen; len(b) if there is none.
func (h *hunter) next(b []byte, i int) int {
	for crowding := 0; i < len(b); {
		j := bytes.IndexByte(b[i:], h.mark)
		if j < 0 {
			return len(b)
		}
		if i += j; h.interesting(b, i) {
			return i
		}
		i++
		if crowding++; j >= near {
			crowding = 0
		}
		if crowding < crowded {
			continue
		}
		crowding = 0
		for end := min(i+crowd, len(b)); ; i++ {
			if i = h.pair(b, i, end); i >= end {
				break
			}
			if h.interesting(b, i) {
				return i
			}
		}
	}
	return len(b)
}

// pair returns the first place in b from i on at which the mark stands before what may be one of second, or one
// behind which there is none before end.
func (h *hunter) pair(b []byte, i, end int) int {
	marks, common, values := h.marks, h.common, h.values
	for ; i < end && i+33 <= len(b); i += 32 {
		w := b[i : i+33 : i+33]
		x0 := binary.LittleEndian.Uint64(w) ^ marks | (binary.LittleEndian.Uint64(w[1:])&common ^ values)
		x1 := binary.LittleEndian.Uint64(w[8:]) ^ marks | (binary.LittleEndian.Uint64(w[9:])&common ^ values)
		x2 := binary.LittleEndian.Uint64(w[16:]) ^ marks | (binary.LittleEndian.Uint64(w[17:])&common ^ values)
		x3 := binary.LittleEndian.Uint64(w[24:]) ^ marks | (binary.LittleEndian.Uint64(w[25:])&common ^ values)
		z0, z1, z2, z3 := (x0-ones)&^x0, (x1-ones)&^x1, (x2-ones)&^x2, (x3-ones)&^x3 // a bit where both are there
		if (z0|z1|z2|z3)&highs == 0 {
			continue
		}
		switch z0, z1, z2, z3 = z0&highs, z1&highs, z2&highs, z3&highs; {
		case z0 != 0:
			return i + bits.TrailingZeros64(z0)/8
		case z1 != 0:
			return i + 8 + bits.TrailingZeros64(z1)/8
		case z2 != 0:
			return i + 16 + bits.TrailingZeros64(z2)/8
		}
		return i + 24 + bits.TrailingZeros64(z3)/8
	}
	for ; i < end && b[i] != h.mark; i++ {
	}
	return i
}

// inStep returns the first place in b from i on at which no escape is cut. start is one.
func (h *hunter) inStep(b []byte, start, i int) int {
	k := max(start, i-h.longest+1)
	for k > start && b[k-1] == h.mark { // where marks follow one another, only the first is known to be one
		k--
	}
	for k < i {
		if b[k] != h.mark {
			k++
		} else if _, n := h.at(b[k:]); n > 0 {
			k += n
		} else {
			k++
		}
	}
	return k
}
