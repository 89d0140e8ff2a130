package redact

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// A span is a piece of text.
type span struct{ from, to int }

// scan appends to found the runs in b that are long enough to count, as far as they go within b.
func (m *Matcher) scan(found []span, b []byte) []span {
	if len(m.streams) == 0 || len(b) < m.shortest {
		return found
	}
	v := verifier{m: m, b: b, found: found}
	i, hits := 0, uint64(0)
	for {
		if i, hits = m.grams.next(b, i, m.step); hits == 0 {
			break
		}
		for ; hits != 0; hits &= hits - 1 {
			v.look(i + bits.TrailingZeros64(hits)*m.step)
		}
		i += 4 * m.step
	}
	for ; i+gramSize <= len(b); i += m.step {
		if m.grams.may(binary.LittleEndian.Uint32(b[i:])) {
			v.look(i)
		}
	}
	return v.found
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
func (v *verifier) look(i int) {
	m, gram := v.m, binary.LittleEndian.Uint32(v.b[i:])
	for k := m.grams.bucket(gram); ; {
		e := &m.grams.entries[k]
		if e.gram == gram && e.at != 0 {
			v.compare(i, int(e.at), &m.streams[e.stream])
		}
		if k = e.next; k == 0 {
			return
		}
	}
}

// compare adds the run, if there is one, in which b[i:] and texts[at:] agree within the stream.
func (v *verifier) compare(i, at int, s *stream) {
	if i >= pad && i+pad <= len(v.b) && agree(v.b[i-pad:i+pad], v.m.texts[at-pad:at+pad]) < s.width {
		return // so it is most often
	}
	if i < v.end && i-at == v.diagonal {
		return
	}
	from := i - sameEnd(v.b[:i], v.m.texts[s.from:at])
	to := i + sameStart(v.b[i:], v.m.texts[at:s.to])
	v.diagonal, v.end = i-at, to
	if to-from >= s.width {
		v.found = append(v.found, span{from, to})
	}
}

// agree returns in how many bytes around their middle a and b agree. Where that may be more than they hold it is as good
// as endless.
func agree(a, b []byte) int {
	a, b = a[:2*pad], b[:2*pad]
	before := bits.LeadingZeros64(binary.LittleEndian.Uint64(a[8:])^binary.LittleEndian.Uint64(b[8:])) / 8
	if before == 8 {
		before += bits.LeadingZeros64(binary.LittleEndian.Uint64(a)^binary.LittleEndian.Uint64(b)) / 8
	}
	behind := bits.TrailingZeros64(binary.LittleEndian.Uint64(a[16:])^binary.LittleEndian.Uint64(b[16:])) / 8
	if behind == 8 {
		behind += bits.TrailingZeros64(binary.LittleEndian.Uint64(a[24:])^binary.LittleEndian.Uint64(b[24:])) / 8
	}
	if before == pad || behind == pad {
		return math.MaxInt
	}
	return before + behind
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
