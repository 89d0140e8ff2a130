package redact

import (
	"bytes"
	"encoding/binary"
	"slices"

	"torno.internal/protocol/secret"
)

// A Matcher finds the runs of a set of secrets. It is immutable and safe for concurrent use, except for
// Wipe.
//
// Every run that counts is at least W bytes long, so of all grams that stand at multiples of W-3 in the text
// one lies wholly within it. Only those are looked up: in a bitmap that fits the cache, then in a table. What is
// found there is compared byte by byte.
//
// Of secrets of 40 characters, one takes 12 KiB and a tenth of a millisecond to make, 8 take 80 KiB and 50 take
// 560 KiB and 3 ms.
type Matcher struct {
	texts    []byte   // all streams, one behind the other, between pads
	streams  []stream // where they stand
	grams    grams
	shortest int // the least width of a stream
	widest   int // the largest
	step     int // bytes between two grams that are looked up
	escapes  []hunter
	wanted   [256]bool // bytes of the streams: escapes of others are no part of a run
	spelled  [256]bool // bytes that a run may consist of, escapes and all
	ascii    bool      // they are all ASCII
	weak     [][]byte  // whole values, masked as JSON strings and as whole fields alone
	mask     byte
}

// pad is how many zeros stand before and behind the streams, so that as many bytes around a gram can be loaded.
const pad = 16

// A stream is one spelling of one secret.
type stream struct {
	from, to int // in texts
	width    int // the shortest run that counts
}

// NewMatcher returns a Matcher for secrets. With none it matches nothing.
func NewMatcher(secrets []Secret) *Matcher {
	m := &Matcher{texts: make([]byte, pad)}
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
		for _, text := range e.Streams(random) {
			if len(text) >= width && !m.has(text, width) {
				m.streams = append(m.streams, stream{len(m.texts), len(m.texts) + len(text), width})
				m.texts = append(grow(m.texts, len(text)), text...)
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

// grow makes room for n more in s. It overwrites what it leaves behind, which is of secrets.
func grow[T any](s []T, n int) []T {
	if cap(s)-len(s) >= n {
		return s
	}
	bigger := append(make([]T, 0, len(s)+max(n, len(s)/2)), s...)
	clear(s)
	return bigger
}

// compile makes the tables.
func (m *Matcher) compile() {
	for _, w := range m.weak {
		m.spell(`"`)
		m.spell(string(w))
	}
	if len(m.streams) == 0 {
		return
	}
	m.shortest = m.streams[0].width
	for _, s := range m.streams {
		m.shortest, m.widest = min(m.shortest, s.width), max(m.widest, s.width)
	}
	m.step = m.shortest - gramSize + 1
	for _, c := range m.texts[pad:] {
		m.wanted[c], m.spelled[c] = true, true
	}
	for _, e := range Encodings() {
		if e.Escape != nil {
			m.escapes = append(m.escapes, newHunter(*e.Escape, &m.wanted))
			m.spell(lettersDigits + e.Escape.alphabet)
		}
	}
	m.ascii = !slices.Contains(m.spelled[0x80:], true)
	m.texts = append(grow(m.texts, pad), make([]byte, pad)...)
	all := make([]entry, 0, len(m.texts))
	for i, s := range m.streams {
		// A longer run holds several of the grams that are looked up: one of them is enough.
		every := (s.width - gramSize + 1) / m.step
		for at := s.from; at+gramSize <= s.to; at++ {
			if (at-s.from)/m.step%every == 0 {
				all = append(all, entry{gram: binary.LittleEndian.Uint32(m.texts[at:]), at: uint32(at), stream: uint32(i)})
			}
		}
	}
	m.grams = newGrams(all, m)
	clear(all)
}

const lettersDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// spell adds to what runs may consist of.
func (m *Matcher) spell(s string) {
	for i := range len(s) {
		m.spelled[s[i]] = true
	}
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
