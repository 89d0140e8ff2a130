package redact

import "bytes"

// PageSize is the size of the pieces that memory consists of, in bytes.
const PageSize = 4096

// Pages looks for runs that a program holds in one piece while the machine that it runs on does not: the
// first bytes end one page of its memory, the others begin another, and the two lie anywhere. It knows
// the streams of a Matcher, as they are and with the escapes in them undone, but for an escape that is cut
// itself. It is not safe for concurrent use.
//
// For every place in every stream it keeps how many bytes before that place some page ended with, and how
// many from there on some page began with. Where both together are as long as a run that counts there is
// one. Short agreement is by chance and everywhere, so of the shorter side, if that has fewer than edge
// bytes, only is kept which ends and beginnings there were at all.
type Pages struct {
	m      *Matcher
	before []uint16         // by place in texts: the longest end of a page that stands right before it
	behind []uint16         // the longest beginning of one that stands right behind it
	ends   map[uint32][]int // places behind each gram of edge bytes
	starts map[uint32][]int // places before it
	spell  int              // bytes at a page's edge that a run may reach, as the longest escapes spell it
	undone []byte           // of such bytes, undone

	shortEnds, shortStarts short
}

// edge is how many bytes must agree for a place to be looked at.
const edge = 4

// short says which sequences of one to three bytes there were.
type short struct {
	one   [1 << 8]bool
	two   [1 << 16]bool
	three []uint64 // one bit each
}

func (s *short) add(one, two, three uint32) {
	s.one[one], s.two[two] = true, true
	s.three[three/64] |= 1 << (three % 64)
}

// Pages returns a Pages that has seen nothing yet.
func (m *Matcher) Pages() *Pages {
	p := &Pages{
		m: m, before: make([]uint16, len(m.texts)+1), behind: make([]uint16, len(m.texts)+1),
		ends: map[uint32][]int{}, starts: map[uint32][]int{}, spell: min(m.widest*longestEntity, PageSize),
	}
	p.shortEnds.three, p.shortStarts.three = make([]uint64, 1<<24/64), make([]uint64, 1<<24/64)
	for _, s := range m.streams {
		for at := s.from; at+edge <= s.to; at++ {
			g := gram4(m.texts[at:])
			p.starts[g] = append(p.starts[g], at)
			p.ends[g] = append(p.ends[g], at+edge)
		}
	}
	return p
}

func gram4(b []byte) uint32 {
	return uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16 | uint32(b[3])<<24
}

// Add looks at the edges of one page of PageSize bytes.
func (p *Pages) Add(page []byte) {
	p.addStart(page)
	p.addEnd(page)
	first, last := page[:p.spell], page[PageSize-p.spell:]
	for i := range p.m.escapes {
		e := &p.m.escapes[i].Escape
		if b := p.undo(e, first); len(b) >= edge {
			p.addStart(b)
		}
		if b := p.undo(e, last); len(b) >= edge {
			p.addEnd(b)
		}
	}
}

// undo returns what b spells, or nothing if there is no escape in it.
func (p *Pages) undo(e *Escape, b []byte) []byte {
	p.undone = p.undone[:0]
	escaped := false
	for len(b) > 0 {
		n := bytes.IndexByte(b, e.mark)
		if n < 0 {
			n = len(b)
		}
		p.undone = append(p.undone, b[:n]...)
		if b = b[n:]; len(b) == 0 {
			break
		}
		c, n := e.at(b)
		escaped = escaped || n > 0
		if n == 0 {
			c, n = e.mark, 1
		}
		p.undone, b = append(p.undone, c), b[n:]
	}
	if !escaped {
		return nil
	}
	return p.undone
}

// addStart looks at what a page begins with.
func (p *Pages) addStart(b []byte) {
	first := gram4(b)
	p.shortStarts.add(first&0xff, first&0xffff, first&0xffffff)
	for _, at := range p.starts[first] {
		n := edge + sameStart(b[edge:], p.m.texts[at+edge:p.m.end(at)])
		p.behind[at] = max(p.behind[at], uint16(n))
	}
}

// addEnd looks at what a page ends with.
func (p *Pages) addEnd(b []byte) {
	last := gram4(b[len(b)-edge:])
	p.shortEnds.add(last>>24, last>>16, last>>8)
	for _, at := range p.ends[last] {
		n := edge + sameEnd(b[:len(b)-edge], p.m.texts[p.m.start(at-1):at-edge])
		p.before[at] = max(p.before[at], uint16(n))
	}
}

// start and end return where the stream that holds texts[at] begins and ends.
func (m *Matcher) start(at int) int { return m.streamAt(at).from }
func (m *Matcher) end(at int) int   { return m.streamAt(at).to }

func (m *Matcher) streamAt(at int) stream {
	low, high := 0, len(m.streams)
	for high-low > 1 {
		if mid := (low + high) / 2; m.streams[mid].from <= at {
			low = mid
		} else {
			high = mid
		}
	}
	return m.streams[low]
}

// Straddling returns at how many places runs are cut by the borders of pages.
func (p *Pages) Straddling() int {
	n := 0
	for _, s := range p.m.streams {
		for at := s.from + 1; at < s.to; at++ {
			if p.cut(s, at) {
				n++
			}
		}
	}
	return n
}

// cut reports whether a run that counts is cut at a place.
func (p *Pages) cut(s stream, at int) bool {
	before, behind := int(p.before[at]), int(p.behind[at])
	switch text := p.m.texts; {
	case before > 0 && behind > 0:
		return before+behind >= s.width
	case before > 0: // and fewer than edge bytes behind
		n := max(1, s.width-before)
		return n < edge && at+n <= s.to && p.shortStarts.has(text[at:at+n])
	case behind > 0:
		n := max(1, s.width-behind)
		return n < edge && at-n >= s.from && p.shortEnds.has(text[at-n:at])
	}
	return false
}

func (s *short) has(b []byte) bool {
	switch len(b) {
	case 1:
		return s.one[b[0]]
	case 2:
		return s.two[uint32(b[0])|uint32(b[1])<<8]
	}
	three := uint32(b[0]) | uint32(b[1])<<8 | uint32(b[2])<<16
	return s.three[three/64]>>(three%64)&1 != 0
}

// Wipe overwrites what p knows of the secrets.
func (p *Pages) Wipe() {
	clear(p.before)
	clear(p.behind)
	clear(p.undone[:cap(p.undone)])
	clear(p.ends)
	clear(p.starts)
}

// Streams returns how many spellings m looks for, beside those with escapes.
func (m *Matcher) Streams() int { return len(m.streams) }

// Windows returns how many runs of exactly the shortest length that counts there are in them.
func (m *Matcher) Windows() int {
	n := 0
	for _, s := range m.streams {
		n += s.to - s.from - s.width + 1
	}
	return n
}

// Strong returns those of secrets that are long enough for the guarantee, and how many are not.
func Strong(secrets []Secret) (strong []Secret, weak int) {
	for _, s := range secrets {
		s.random(func(_ []byte, isWeak bool) {
			if isWeak {
				weak++
			} else {
				strong = append(strong, s)
			}
		})
	}
	return strong, weak
}
