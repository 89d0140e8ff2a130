package redact

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// gramSize is how many bytes of text are looked up at once: few, so that there may be many between two that are
// looked up, and enough for words and numbers to be rare among those of random values.
const gramSize = 4 // bytes

// An entry is one place of one stream at which a gram stands. at is never 0: an entry where it is stands for none.
type entry struct {
	gram   uint32
	at     uint32 // in texts
	stream uint32
	next   uint32 // the next one in the same bucket, 0: none
}

// grams finds the entries of a gram. The zero value finds none.
type grams struct {
	filter  []uint64 // two bits of one word for each gram: most text is dismissed here
	entries []entry  // the first of each bucket, then all others
	shift   int      // of a hash, for its bucket
}

// newGrams makes the tables of all entries, of which there is at least one. There are one to two for each word of the
// filter, which lets one of 200 other grams pass, and for each bucket.
func newGrams(all []entry, m *Matcher) grams {
	log := max(minLog, bits.Len(uint(len(all)))-1)
	g := grams{filter: make([]uint64, 1<<log), entries: make([]entry, 1<<log, 1<<log+len(all)/2), shift: 64 - log}
	for _, e := range all {
		h := hash(e.gram)
		g.filter[h>>wordShift&uint64(len(g.filter)-1)] |= 1<<(h>>firstShift) | 1<<(h>>secondShift&63)
		g.add(e, m)
	}
	return g
}

// add adds an entry, unless one that is there already finds every run that it finds: what stands around both,
// as far as the shortest run that counts could go, is the same. Base64 and its form for URLs share much of their
// text, and a value that repeats itself must not cost a look at each repetition.
func (g *grams) add(e entry, m *Matcher) {
	k := g.bucket(e.gram)
	if g.entries[k].at == 0 {
		g.entries[k] = e
		return
	}
	for o := g.entries[k]; ; o = g.entries[o.next] {
		if o.gram == e.gram && m.alike(o, e) {
			return
		}
		if o.next == 0 {
			break
		}
	}
	g.entries = grow(g.entries, 1)
	e.next, g.entries[k].next = g.entries[k].next, uint32(len(g.entries))
	g.entries = append(g.entries, e)
}

// alike reports whether the same stands around the places of a and b, as far as runs of their streams' width can go.
func (m *Matcher) alike(a, b entry) bool {
	beforeA, behindA := m.around(a)
	beforeB, behindB := m.around(b)
	return m.streams[a.stream].width == m.streams[b.stream].width && bytes.Equal(beforeA, beforeB) && bytes.Equal(behindA, behindB)
}

func (m *Matcher) around(e entry) (before, behind []byte) {
	s, at := m.streams[e.stream], int(e.at)
	return m.texts[max(s.from, at+gramSize-s.width):at], m.texts[at:min(s.to, at+s.width)]
}

// bucket returns where in entries the first of a gram's bucket stands.
func (g *grams) bucket(gram uint32) uint32 { return uint32(hash(gram) >> g.shift) }

func (g *grams) wipe() {
	clear(g.filter)
	clear(g.entries[:cap(g.entries)])
}

// Of a hash, the lower bits of its upper half give the word of the filter, two groups of six further up the bits in it.
// The bucket of the table is what stands at the very top.
const (
	minLog      = 8 // of the number of words and buckets
	wordShift   = 32
	firstShift  = 58
	secondShift = 52
)

// hash spreads a gram over 64 bits, of which the upper half depends on all of it.
func hash(gram uint32) uint64 { return uint64(gram) * 6364136223846793005 }

// may reports whether a gram may have entries.
func (g *grams) may(gram uint32) bool {
	h := hash(gram)
	w := g.filter[h>>wordShift&uint64(len(g.filter)-1)]
	return w>>(h>>firstShift)&(w>>(h>>secondShift&63))&1 != 0
}

// next looks at four grams of b at a time, step bytes apart, from i on. It returns the place of the first four
// of which some may have entries, and which, the first in the lowest bit; or 0, and where near the end of b to go on.
//
// The four places are those at one index of four slices of one length, so that nothing need be checked; nor
// is anything decided before all four bits are known, since that would be guessed wrong too often.
func (g *grams) next(b []byte, i, step int) (at int, hits uint64) {
	n, filter := len(b)-3*step, g.filter
	if n <= 0 || len(filter) == 0 {
		return i, 0
	}
	b0, b1, b2, b3 := b[:n], b[step:step+n], b[2*step:2*step+n], b[3*step:3*step+n]
	b1, b2, b3 = b1[:len(b0)], b2[:len(b0)], b3[:len(b0)]
	mask := uint64(len(filter) - 1)
	for ; i >= 0 && i+gramSize <= len(b0); i += 4 * step {
		h0 := hash(binary.LittleEndian.Uint32(b0[i : i+gramSize]))
		h1 := hash(binary.LittleEndian.Uint32(b1[i : i+gramSize]))
		h2 := hash(binary.LittleEndian.Uint32(b2[i : i+gramSize]))
		h3 := hash(binary.LittleEndian.Uint32(b3[i : i+gramSize]))
		w0, w1 := filter[h0>>wordShift&mask], filter[h1>>wordShift&mask]
		w2, w3 := filter[h2>>wordShift&mask], filter[h3>>wordShift&mask]
		w0 = w0 >> (h0 >> firstShift) & (w0 >> (h0 >> secondShift & 63))
		w1 = w1 >> (h1 >> firstShift) & (w1 >> (h1 >> secondShift & 63))
		w2 = w2 >> (h2 >> firstShift) & (w2 >> (h2 >> secondShift & 63))
		w3 = w3 >> (h3 >> firstShift) & (w3 >> (h3 >> secondShift & 63))
		if (w0|w1|w2|w3)&1 != 0 {
			return i, w0&1 | w1&1<<1 | w2&1<<2 | w3&1<<3
		}
	}
	return i, 0
}
