package redact

import (
	"encoding/binary"
	"math/bits"
	"sort"
)

// undoneSize is how much undone text is searched at a time.
const undoneSize = 4096 // bytes

// undone is a piece of text with its escapes undone.
type undone struct {
	room  *[undoneSize + 8]byte
	text  []byte // of room
	turns []turn
}

// A turn is a place in undone text that lies right behind an escape, and the place in the text that it corresponds
// to. Up to the next one both advance together.
type turn struct{ to, from int }

// origin returns the place in the text that the undone text's i-th byte comes from.
func (u *undone) origin(i int) int {
	k := sort.Search(len(u.turns), func(k int) bool { return u.turns[k].to > i }) - 1
	return u.turns[k].from + i - u.turns[k].to
}

// fill undoes b from from on, where no escape is cut, up to end or some bytes more, or until it is full. Each
// escape of interest moves end to margin bytes behind it. It returns how far it came, and end.
func (u *undone) fill(h *hunter, b []byte, from, end, margin int) (behind, newEnd int) {
	if u.room == nil {
		u.room = new([undoneSize + 8]byte)
	}
	room, turns, n := u.room, append(u.turns[:0], turn{0, from}), uint(0)
	for from < end && n < undoneSize {
		if b[from] != h.mark {
			if from+8 > len(b) {
				room[n] = b[from]
				n, from = n+1, from+1
				continue
			}
			w := binary.LittleEndian.Uint64(b[from : from+8])
			binary.LittleEndian.PutUint64(room[n:n+8], w)
			x := w ^ h.marks
			if x = (x - ones) &^ x & highs; x == 0 {
				n, from = n+8, from+8 // guessed right most often, so that the next eight need not wait
				continue
			}
			plain := bits.TrailingZeros64(x) / 8
			n, from = n+uint(plain), from+plain
		}
		var c byte
		var length int
		if from+8 <= len(b) {
			w := b[from : from+8 : from+8]
			switch h.mark { // calls that are inlined, and know how long w is
			case '%':
				c, length = percentAt(w)
			case '\\':
				c, length = jsonAt(w)
			default:
				c, length = htmlTwo(w)
			}
		}
		if length == 0 { // a longer one, or none
			c, length = h.at(b[from:])
		}
		if length == 0 {
			room[n] = h.mark
			n, from = n+1, from+1
			continue
		}
		room[n] = c
		n, from = n+1, from+length
		turns = append(turns, turn{int(n), from})
		if h.wanted[c] {
			end = min(from+margin, len(b))
		}
	}
	u.text, u.turns = room[:n], turns
	return from, end
}

// scanEscaped appends to found the runs in b that hold at least one escape. odd means that an odd number of
// backslashes stands before b.
func (s *Scanner) scanEscaped(found []span, b []byte, odd bool) []span {
	for done := 0; done < len(b); {
		var from, to int
		if from, to, done = s.m.stretch(b, done); from == to {
			break
		}
		for k := range s.m.escapes {
			h := &s.m.escapes[k]
			start := 0
			if odd && h.mark == jsonEscape.mark {
				start = 1
			}
			for at := max(start, from); ; {
				if at = h.next(b[:to], at); at >= to {
					break
				}
				found, at = s.scanUndone(found, h, b, start, at)
			}
		}
	}
	return found
}

// scanUndone searches b around the escape of interest at b[at:], with that and those near it undone. It returns how
// far it came.
func (s *Scanner) scanUndone(found []span, h *hunter, b []byte, start, at int) ([]span, int) {
	u, margin := &s.undone, s.m.widest-1 // the most plain bytes beside the last escape of a run that counts
	from, end := h.inStep(b, start, max(start, at-margin)), min(len(b), at+1+margin)
	for {
		from, end = u.fill(h, b, from, end, margin)
		s.runs = s.m.scan(s.runs[:0], u.text)
		for _, r := range s.runs {
			if a, z := u.origin(r.from), u.origin(r.to); z-a != r.to-r.from {
				found = append(found, span{a, z})
			}
		}
		if from >= end {
			return found, from
		}
		from = u.origin(len(u.text) - margin) // a run that began in this piece ends in the next
	}
}
