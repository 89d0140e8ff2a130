package redact

import (
	"encoding/binary"
	"math/bits"
)

// A span is a piece of text.
type span struct{ from, to int }

// scan appends to found the runs in b that are long enough to count, as far as they go within b.
func (m *Matcher) scan(found []span, b []byte) []span {
	if len(m.streams) == 0 || len(b) < m.gram {
		return found
	}
	v := verifier{m: m, b: b, found: found}
	i, hits := 0, lanes(0)
	for {
		if m.step == wideStep {
			i, hits = m.grams.wide(b, i)
		} else {
			i, hits = m.grams.narrow(b, i)
		}
		if hits == 0 {
			break
		}
		for k := range 4 {
			if hits>>k&1 != 0 {
				v.look(i+k*m.step, binary.LittleEndian.Uint64(b[i+k*m.step:])&m.grams.mask)
			}
		}
		i += 4 * m.step
	}
	for ; i+m.gram <= len(b); i += m.step {
		if gram := load(b[i : i+m.gram]); m.grams.may(gram) {
			v.look(i, gram)
		}
	}
	return v.found
}

// The steps between grams that are looked up. They are constants so that the loops over them need no checks.
const (
	wideStep   = 7 // where all runs that count are as long as maxRun
	narrowStep = 4
)

// lanes says which of four neighbouring grams may have entries, the first in the lowest bit.
type lanes uint8

// wide looks at four grams at a time, in steps of wideStep, from i on. It returns the first four of which some may
// have entries, or where near the end of b to go on.
func (g *grams) wide(b []byte, i int) (at int, hits lanes) {
	const step = wideStep
	mask, filter := g.mask, g.filter
	for ; i+3*step+8 <= len(b); i += 4 * step {
		w := b[i : i+3*step+8 : i+3*step+8]
		h0 := hash(binary.LittleEndian.Uint64(w) & mask)
		h1 := hash(binary.LittleEndian.Uint64(w[step:]) & mask)
		h2 := hash(binary.LittleEndian.Uint64(w[2*step:]) & mask)
		h3 := hash(binary.LittleEndian.Uint64(w[3*step:]) & mask)
		f0, f1, f2, f3 := filter[h0>>filterShift], filter[h1>>filterShift], filter[h2>>filterShift], filter[h3>>filterShift]
		var hits lanes
		if f0>>(h0>>firstBit&63)&1 != 0 && f0>>(h0>>secondBit&63)&1 != 0 {
			hits = 1
		}
		if f1>>(h1>>firstBit&63)&1 != 0 && f1>>(h1>>secondBit&63)&1 != 0 {
			hits |= 2
		}
		if f2>>(h2>>firstBit&63)&1 != 0 && f2>>(h2>>secondBit&63)&1 != 0 {
			hits |= 4
		}
		if f3>>(h3>>firstBit&63)&1 != 0 && f3>>(h3>>secondBit&63)&1 != 0 {
			hits |= 8
		}
		if hits != 0 {
			return i, hits
		}
	}
	return i, 0
}

// narrow is wide with steps of narrowStep.
func (g *grams) narrow(b []byte, i int) (at int, hits lanes) {
	const step = narrowStep
	mask, filter := g.mask, g.filter
	for ; i+3*step+8 <= len(b); i += 4 * step {
		w := b[i : i+3*step+8 : i+3*step+8]
		h0 := hash(binary.LittleEndian.Uint64(w) & mask)
		h1 := hash(binary.LittleEndian.Uint64(w[step:]) & mask)
		h2 := hash(binary.LittleEndian.Uint64(w[2*step:]) & mask)
		h3 := hash(binary.LittleEndian.Uint64(w[3*step:]) & mask)
		f0, f1, f2, f3 := filter[h0>>filterShift], filter[h1>>filterShift], filter[h2>>filterShift], filter[h3>>filterShift]
		var hits lanes
		if f0>>(h0>>firstBit&63)&1 != 0 && f0>>(h0>>secondBit&63)&1 != 0 {
			hits = 1
		}
		if f1>>(h1>>firstBit&63)&1 != 0 && f1>>(h1>>secondBit&63)&1 != 0 {
			hits |= 2
		}
		if f2>>(h2>>firstBit&63)&1 != 0 && f2>>(h2>>secondBit&63)&1 != 0 {
			hits |= 4
		}
		if f3>>(h3>>firstBit&63)&1 != 0 && f3>>(h3>>secondBit&63)&1 != 0 {
			hits |= 8
		}
		if hits != 0 {
			return i, hits
		}
	}
	return i, 0
}

// A verifier compares text with streams where a gram of both agrees.
type verifier struct {
	m     *Matcher
	b     []byte
	found []span

	// The last run that was measured, too short or not: grams inside it on the same diagonal belong to it.
	diagonal int
	end      int
}

// look finds the runs that the gram at b[i:] is part of.
func (v *verifier) look(i int, gram uint64) {
	for _, e := range v.m.grams.find(gram) {
		if i >= v.end || i-int(e.at) != v.diagonal {
			v.measure(i, int(e.at), &v.m.streams[e.stream&^last])
		}
		if e.stream&last != 0 {
			return
		}
	}
}

// measure extends the agreement of b[i:] and texts[at:] within the stream, at both ends.
func (v *verifier) measure(i, at int, s *stream) {
	text, b, gram := v.m.texts, v.b, v.m.gram
	from, to := i, i+gram
	if before := min(i, at-s.from); before >= 8 || i >= 8 && at >= 8 { // most often the first eight bytes decide
		x := binary.LittleEndian.Uint64(b[i-8:]) ^ binary.LittleEndian.Uint64(text[at-8:])
		n := min(bits.LeadingZeros64(x)/8, before)
		if from -= n; n == 8 {
			from -= sameEnd(b[:i-8], text[s.from:at-8])
		}
	} else {
		from -= sameEnd(b[:i], text[s.from:at])
	}
	if behind := min(len(b)-to, s.to-at-gram); behind >= 8 || to+8 <= len(b) && at+gram+8 <= len(text) {
		x := binary.LittleEndian.Uint64(b[to:]) ^ binary.LittleEndian.Uint64(text[at+gram:])
		n := min(bits.TrailingZeros64(x)/8, behind)
		if to += n; n == 8 {
			to += sameStart(b[to:], text[at+gram+8:s.to])
		}
	} else {
		to += sameStart(b[to:], text[at+gram:s.to])
	}
	v.diagonal, v.end = i-at, to
	if to-from >= s.width {
		v.found = append(v.found, span{from, to})
	}
}

// sameStart returns how many bytes a and b have in common at their beginning.
func sameStart(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// sameEnd returns how many bytes a and b have in common at their end.
func sameEnd(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		x := binary.LittleEndian.Uint64(a[len(a)-i-8:]) ^ binary.LittleEndian.Uint64(b[len(b)-i-8:])
		if x != 0 {
			return i + bits.LeadingZeros64(x)/8
		}
	}
	for i < n && a[len(a)-1-i] == b[len(b)-1-i] {
		i++
	}
	return i
}

// scanEscaped appends to found the runs in b that hold at least one escape. odd means that an odd number of
// backslashes stands before b.
func (s *Scanner) scanEscaped(found []span, b []byte, odd bool) []span {
	m := s.m
	for k := range m.escapes {
		h := &m.escapes[k]
		start := 0
		if odd && h.mark == '\\' {
			start = 1
		}
		at, behind := h.next(b, min(start, len(b)))
		for at < len(b) {
			from, last := inStep(h, b, start, max(start, at-m.reach)), at
			for { // what else is near belongs to it
				if at, behind = h.next(b, behind); at >= len(b) || at-last > m.reach {
					break
				}
				last = at
			}
			found = s.scanUndone(found, &h.Escape, b, from, min(len(b), last+m.reach))
		}
	}
	return found
}

// inStep returns a place at or just behind from at which no pair of backslashes is cut. Other escapes cannot be
// misread for want of what stands before them.
func inStep(h *hunter, b []byte, start, from int) int {
	i := from
	for h.stride == 2 && i > start && b[i-1] == h.mark {
		i--
	}
	return from + (from-i)%2
}

// undoneSize is how much undone text is searched at a time.
const undoneSize = 4096 // bytes

// scanUndone searches b[from:to] with its escapes undone.
func (s *Scanner) scanUndone(found []span, e *Escape, b []byte, from, to int) []span {
	if s.undone == nil {
		s.undone = make([]byte, 0, undoneSize)
	}
	overlap := s.m.reach / longestEntity // a run that began in one piece ends in the next
	for {
		text, turns, behind := e.undo(s.undone[:0], s.turns[:0], b, from, to, undoneSize)
		s.turns = turns
		s.runs = s.m.scan(s.runs[:0], text)
		for _, r := range s.runs {
			if a, z := origin(turns, r.from), origin(turns, r.to); z-a != r.to-r.from {
				found = append(found, span{a, z})
			}
		}
		if behind >= to {
			return found
		}
		from = origin(turns, len(text)-overlap)
	}
}
