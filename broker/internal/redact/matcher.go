package redact

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"torno.internal/protocol/secret"
)

// A Matcher finds the runs of a set of secrets. It is immutable and safe for concurrent use, except for
// Wipe.
//
// Every run that counts is at least W bytes long, so of all grams of g bytes that stand at multiples of
// W-g+1 in the text, one lies wholly within it. Only those are looked up: in a bitmap that fits the cache,
// then in a table. What is found there is compared byte by byte.
type Matcher struct {
	texts   []byte   // all streams, one behind the other
	streams []stream // where they stand
	grams   grams
	gram    int // bytes of one
	step    int // bytes between two that are looked up
	escapes []hunter
	wanted  [256]bool // bytes of the streams: escapes of others are no part of a run
	reach   int       // the most bytes that the shortest run that counts takes, however it is spelled
	weak    [][]byte  // whole values, masked as JSON strings and as whole fields alone
	mask    byte
}

// A stream is one spelling of one secret.
type stream struct {
	from, to int // in texts
	width    int // the shortest run that counts
}

// NewMatcher returns a Matcher for secrets. With none it matches nothing.
func NewMatcher(secrets []Secret) *Matcher {
	m := &Matcher{}
	for _, s := range secrets {
		s.random(m.add)
	}
	m.mask = m.chooseMask()
	m.compile()
	return m
}

// add adds the streams of one secret.
func (m *Matcher) add(random []byte, weak bool) {
	if weak {
		if len(random) > 0 {
			m.weak = append(m.weak, bytes.Clone(random))
		}
		return
	}
	r := Run(len(random))
	for _, e := range Encodings() {
		if e.Streams == nil {
			continue
		}
		width := e.Width(r)
		m.reach = max(m.reach, width)
		for _, text := range e.Streams(random) {
			if len(text) >= width && !m.has(text, width) {
				m.streams = append(m.streams, stream{len(m.texts), len(m.texts) + len(text), width})
				m.texts = append(m.texts, text...)
			}
			secret.Wipe(text)
		}
	}
}

// has reports whether text is a stream already.
func (m *Matcher) has(text []byte, width int) bool {
	return slices.ContainsFunc(m.streams, func(s stream) bool {
		return s.width <= width && bytes.Contains(m.texts[s.from:s.to], text)
	})
}

// chooseMask returns a character that no stream holds, so that what is masked matches nothing.
func (m *Matcher) chooseMask() byte {
	for _, c := range []byte("*#~x.") {
		if bytes.IndexByte(m.texts, c) < 0 {
			return c
		}
	}
	return '*'
}

// compile makes the tables.
func (m *Matcher) compile() {
	if len(m.streams) == 0 {
		return
	}
	shortest := m.streams[0].width
	for _, s := range m.streams {
		shortest = min(shortest, s.width)
	}
	if m.step = wideStep; shortest < maxRun {
		m.step = narrowStep
	}
	m.gram = shortest - m.step + 1
	for _, c := range m.texts {
		m.wanted[c] = true
	}
	for _, e := range Encodings() {
		if e.Escape != nil {
			m.escapes = append(m.escapes, newHunter(*e.Escape, &m.wanted))
		}
	}
	m.reach *= longestEntity
	m.texts = append(m.texts, make([]byte, 8)...) // so that every gram can be loaded whole
	var all []entry
	for i, s := range m.streams {
		// A longer run holds several of the grams that are looked up: one of them is enough.
		every := (s.width - m.gram + 1) / m.step
		for at := s.from; at+m.gram <= s.to; at++ {
			if (at-s.from)/m.step%every == 0 {
				all = append(all, entry{uint32(at), uint32(i)})
			}
		}
	}
	m.grams = newGrams(all, m.texts, m.gram)
}

// Empty reports whether m matches nothing, so that nothing need be looked at.
func (m *Matcher) Empty() bool { return len(m.streams) == 0 && len(m.weak) == 0 }

// Wipe overwrites what m knows of the secrets. No Scanner of m may be in use or be used after it.
func (m *Matcher) Wipe() {
	secret.Wipe(m.texts)
	m.grams.wipe()
	for _, w := range m.weak {
		secret.Wipe(w)
	}
}

// An entry is one place of one stream at which a gram stands.
type entry struct {
	at     uint32 // in texts
	stream uint32 // and last, if no other entry of the gram follows
}

const last = 1 << 31

// grams finds the entries of a gram. The zero value finds none.
type grams struct {
	mask    uint64              // of a gram in 8 loaded bytes
	filter  *[filterSize]uint64 // two bits of one word for each gram: most text is dismissed here
	slots   []uint32            // where in entries a gram begins, plus 1; open addressing, at most half full
	entries []entry             // by gram
	texts   []byte              // the matcher's
}

// gram returns the gram at which e stands.
func (g *grams) gram(e entry) uint64 { return binary.LittleEndian.Uint64(g.texts[e.at:]) & g.mask }

// The filter fits the first-level cache and dismisses 99 of 100 other grams while there are 15,000, as 40
// secrets have. Its word's number stands at the top of a hash, those of its bits further down.
const (
	filterLog   = 12
	filterSize  = 1 << filterLog // words
	filterShift = 64 - filterLog
	firstBit    = 30
	secondBit   = 36
)

func newGrams(all []entry, texts []byte, size int) grams {
	g := grams{
		mask:    1<<(8*size) - 1,
		filter:  new([filterSize]uint64),
		slots:   make([]uint32, 1<<(bits.Len(uint(len(all)))+1)),
		entries: all,
		texts:   texts,
	}
	slices.SortFunc(all, func(a, b entry) int { return cmp.Or(cmp.Compare(g.gram(a), g.gram(b)), cmp.Compare(a.at, b.at)) })
	for i := 0; i < len(all); {
		j := i + 1
		gram := g.gram(all[i])
		for j < len(all) && g.gram(all[j]) == gram {
			j++
		}
		h := hash(gram)
		g.filter[h>>filterShift] |= 1<<(h>>firstBit&63) | 1<<(h>>secondBit&63)
		k := g.home(gram)
		for g.slots[k] != 0 {
			k = (k + 1) & (len(g.slots) - 1)
		}
		g.slots[k] = uint32(i) + 1
		all[j-1].stream |= last
		i = j
	}
	return g
}

// may reports whether a gram may have entries.
func (g *grams) may(gram uint64) bool {
	h := hash(gram)
	w := g.filter[h>>filterShift]
	return w>>(h>>firstBit&63)&1 != 0 && w>>(h>>secondBit&63)&1 != 0
}

// find returns the entries from the first of a gram on, up to its last and beyond.
func (g *grams) find(gram uint64) []entry {
	for k := g.home(gram); ; k = (k + 1) & (len(g.slots) - 1) {
		at := g.slots[k]
		if at == 0 {
			return nil
		}
		if e := g.entries[at-1:]; g.gram(e[0]) == gram {
			return e
		}
	}
}

func (g *grams) home(gram uint64) int { return int(hash(gram)>>24) & (len(g.slots) - 1) }

func (g *grams) wipe() {
	if g.filter != nil {
		clear(g.filter[:])
	}
	clear(g.slots)
	clear(g.entries)
}

func hash(gram uint64) uint64 { return gram * 0x9e3779b97f4a7c15 }

// load returns up to 8 bytes as a number, as a longer load and a mask would.
func load(b []byte) uint64 {
	var w [8]byte
	copy(w[:], b)
	return binary.LittleEndian.Uint64(w[:])
}
