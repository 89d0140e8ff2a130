package store

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// A page is the part of the manifest that is about one agent, or about some of the sessions: its entries
// by name, in order.
//
//	format (1) | count | entries
//	entry: name | state (1) | changed (8, nanoseconds since 1970) | first | count | SHA-256 of each version
type page struct{ entries []entry }

const pageFormat = 1

// States of an entry.
const (
	statePresent    = 1
	stateDeleted    = 2
	stateRolledBack = 3 // the audit has it otherwise than the store
)

// Bounds on a page, which is authenticated before it is read.
const (
	maxEntries = 1 << 20
	maxVersion = 1 << 30
)

// An entry says which versions of a name are there. A name that was deleted keeps its entry, so that no
// version number is used twice.
type entry struct {
	name    string
	state   byte
	changed int64    // when the newest version was made, or the name deleted
	first   int      // the oldest version that is there
	digests []digest // of the stored bytes of versions first, first+1, …
}

// last is the newest version that the name ever had; 0: none.
func (e *entry) last() int { return e.first + len(e.digests) - 1 }

// digest returns the digest of a version; ok is false if the version is not there.
func (e *entry) digest(version int) (sum digest, ok bool) {
	if version < e.first || version > e.last() {
		return sum, false
	}
	return e.digests[version-e.first], true
}

// close ends every version of the name.
func (e *entry) close(state byte, last int, changed int64) {
	e.state, e.first, e.digests, e.changed = state, last+1, nil, max(changed, e.changed)
}

// find returns the entry of name, or nil.
func (p *page) find(name string) *entry {
	i, ok := p.search(name)
	if !ok {
		return nil
	}
	return &p.entries[i]
}

// entry returns the entry of name, which it makes if there is none.
func (p *page) entry(name string) *entry {
	i, ok := p.search(name)
	if !ok {
		p.entries = slices.Insert(p.entries, i, entry{name: name, state: stateDeleted, first: 1})
	}
	return &p.entries[i]
}

func (p *page) remove(name string) {
	if i, ok := p.search(name); ok {
		p.entries = slices.Delete(p.entries, i, i+1)
	}
}

func (p *page) search(name string) (int, bool) {
	return slices.BinarySearchFunc(p.entries, name, func(e entry, name string) int { return strings.Compare(e.name, name) })
}

func (p *page) encode() []byte {
	b := binary.AppendUvarint([]byte{pageFormat}, uint64(len(p.entries)))
	for i := range p.entries {
		e := &p.entries[i]
		b = append(appendText(b, e.name), e.state)
		b = binary.BigEndian.AppendUint64(b, uint64(e.changed))
		b = binary.AppendUvarint(b, uint64(e.first))
		b = binary.AppendUvarint(b, uint64(len(e.digests)))
		for _, d := range e.digests {
			b = append(b, d[:]...)
		}
	}
	return b
}

var errPage = errors.New("the page is malformed")

// decodePage reads what encode wrote, and nothing else.
func decodePage(b []byte) (*page, error) {
	r := reader{b: b}
	if r.octet() != pageFormat {
		return nil, errPage
	}
	const least = 1 + 1 + 8 + 1 + 1 // bytes of an entry
	n := r.number(min(maxEntries, uint64(len(r.b)/least)))
	p := &page{entries: make([]entry, 0, n)}
	for range n {
		e := entry{name: r.text(), state: r.octet()}
		if changed := r.take(8); changed != nil {
			e.changed = int64(binary.BigEndian.Uint64(changed))
		}
		e.first = int(r.number(maxVersion))
		e.digests = make([]digest, r.number(uint64(len(r.b)/sha256.Size)))
		for i := range e.digests {
			copy(e.digests[i][:], r.take(sha256.Size))
		}
		if r.bad || e.first < 1 || e.state < statePresent || e.state > stateRolledBack {
			return nil, errPage
		}
		if k := len(p.entries); k > 0 && p.entries[k-1].name >= e.name {
			return nil, errPage
		}
		p.entries = append(p.entries, e)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errPage
	}
	return p, nil
}
