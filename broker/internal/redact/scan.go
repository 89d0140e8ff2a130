package redact

import "encoding/binary"

// A span is a piece of text.
type span struct{ from, to int }

// scan appends to found the runs in b that are long enough to count, as far as they go within b.
func (m *Matcher) scan(found []span, b []byte) []span {
	if len(m.streams) == 0 || len(b) < m.gram {
		return found
	}
	v := verifier{m: m, b: b, found: found}
	for i := 0; ; i += m.step {
		if m.step == wideStep {
			i = m.grams.wide(b, i)
		} else {
			i = m.grams.narrow(b, i)
		}
		if i+m.gram > len(b) {
			return v.found
		}
		if gram := load(b[i:min(i+8, len(b))]) & m.grams.mask; m.grams.may(gram) {
			v.look(i, gram)
		}
	}
}

// The steps between grams that are looked up. They are constants so that the loops over them need no checks.
const (
	wideStep   = 7 // where all runs that count are as long as maxRun
	narrowStep = 4
)

// wide returns the first place from i on, in steps of wideStep, at which a gram of b may have entries, or one
// near the end of b.
func (g *grams) wide(b []byte, i int) int {
	const step = wideStep
	mask, filter := g.mask, g.filter
	for ; i+3*step+8 <= len(b); i += 4 * step {
		w := b[i : i+3*step+8 : i+3*step+8]
		h0 := hash(binary.LittleEndian.Uint64(w) & mask)
		h1 := hash(binary.LittleEndian.Uint64(w[step:]) & mask)
		h2 := hash(binary.LittleEndian.Uint64(w[2*step:]) & mask)
		h3 := hash(binary.LittleEndian.Uint64(w[3*step:]) & mask)
		f0, f1, f2, f3 := filter[h0>>filterShift], filter[h1>>filterShift], filter[h2>>filterShift], filter[h3>>filterShift]
		switch {
		case f0>>(h0>>firstBit&63)&1 != 0 && f0>>(h0>>secondBit&63)&1 != 0:
			return i
		case f1>>(h1>>firstBit&63)&1 != 0 && f1>>(h1>>secondBit&63)&1 != 0:
			return i + step
		case f2>>(h2>>firstBit&63)&1 != 0 && f2>>(h2>>secondBit&63)&1 != 0:
			return i + 2*step
		case f3>>(h3>>firstBit&63)&1 != 0 && f3>>(h3>>secondBit&63)&1 != 0:
			return i + 3*step
		}
	}
	return i
}

// narrow is wide with steps of narrowStep.
func (g *grams) narrow(b []byte, i int) int {
	const step = narrowStep
	mask, filter := g.mask, g.filter
	for ; i+3*step+8 <= len(b); i += 4 * step {
		w := b[i : i+3*step+8 : i+3*step+8]
		h0 := hash(binary.LittleEndian.Uint64(w) & mask)
		h1 := hash(binary.LittleEndian.Uint64(w[step:]) & mask)
		h2 := hash(binary.LittleEndian.Uint64(w[2*step:]) & mask)
		h3 := hash(binary.LittleEndian.Uint64(w[3*step:]) & mask)
		f0, f1, f2, f3 := filter[h0>>filterShift], filter[h1>>filterShift], filter[h2>>filterShift], filter[h3>>filterShift]
		switch {
		case f0>>(h0>>firstBit&63)&1 != 0 && f0>>(h0>>secondBit&63)&1 != 0:
			return i
		case f1>>(h1>>firstBit&63)&1 != 0 && f1>>(h1>>secondBit&63)&1 != 0:
			return i + step
		case f2>>(h2>>firstBit&63)&1 != 0 && f2>>(h2>>secondBit&63)&1 != 0:
			return i + 2*step
		case f3>>(h3>>firstBit&63)&1 != 0 && f3>>(h3>>secondBit&63)&1 != 0:
			return i + 3*step
		}
	}
	return i
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
		if i < v.end && i-int(e.at) == v.diagonal {
			continue
		}
		v.measure(i, int(e.at), &v.m.streams[e.stream])
	}
}

// measure extends the agreement of b[i:] and the stream's text at both ways.
func (v *verifier) measure(i, at int, s *stream) {
	text, b := v.m.texts[s.from:s.to], v.b
	at -= s.from
	back := 0
	for n := min(i, at); back < n && b[i-1-back] == text[at-1-back]; {
		back++
	}
	on := v.m.gram
	for n := min(len(b)-i, len(text)-at); on < n && b[i+on] == text[at+on]; {
		on++
	}
	v.diagonal, v.end = i-at-s.from, i+on
	if back+on >= s.width {
		v.found = append(v.found, span{i - back, i + on})
	}
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
