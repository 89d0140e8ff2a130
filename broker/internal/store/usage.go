package store

import (
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// A Counter counts the requests that one version of a secret is used for. Counting touches memory alone;
// FlushUsage writes what was counted. It is safe for concurrent use.
type Counter struct {
	name    string
	version int

	uses atomic.Uint64
	last atomic.Int64 // nanoseconds since 1970; 0: never

	written uint64 // uses as they are on disk; guarded by usage.mu
}

// Used counts one use.
func (c *Counter) Used(now time.Time) {
	c.uses.Add(1)
	c.last.Store(now.UnixNano())
}

// usage holds the counters of agents, in memory once an agent's were asked for. On disk each agent has a page of them,
// which the manifest of a ledger of their own authenticates. That costs a commit each time they are written and nothing
// when they are counted. Nothing is decided by them: an agent whose page was changed outside of torno counts anew.
type usage struct {
	ledger ledger

	mu     sync.Mutex
	agents map[string]*tally
}

// A tally is what was counted of one agent's secrets, in the order of names and versions.
type tally struct {
	counters []*Counter
	dirty    bool // a name was forgotten since it was written
}

// from returns where the versions of a name from version on stand.
func (t *tally) from(name string, version int) int {
	i, _ := slices.BinarySearchFunc(t.counters, count{name: name, version: version}, func(c *Counter, want count) int {
		return count{name: c.name, version: c.version}.compare(want)
	})
	return i
}

func (t *tally) counter(name string, version int) *Counter {
	i := t.from(name, version)
	if i < len(t.counters) && t.counters[i].name == name && t.counters[i].version == version {
		return t.counters[i]
	}
	c := &Counter{name: name, version: version}
	t.counters = slices.Insert(t.counters, i, c)
	return c
}

// changed reports whether there is something to write.
func (t *tally) changed() bool {
	return t.dirty || slices.ContainsFunc(t.counters, func(c *Counter) bool { return c.uses.Load() != c.written })
}

// sum sums up the counts of the versions of a name from first to last.
func (t *tally) sum(name string, first, last int) (uses uint64, at time.Time) {
	latest := int64(0)
	for _, c := range t.counters[t.from(name, first):] {
		if c.name != name || c.version > last {
			break
		}
		uses += c.uses.Load()
		latest = max(latest, c.last.Load())
	}
	if latest != 0 {
		at = time.Unix(0, latest).UTC()
	}
	return uses, at
}

// forget drops the counters of a name that is deleted, from the disk when they are written next.
func (t *tally) forget(name string) {
	n := len(t.counters)
	t.counters = slices.DeleteFunc(t.counters, func(c *Counter) bool { return c.name == name })
	t.dirty = t.dirty || len(t.counters) < n
}

// take takes over what was written.
func (t *tally) take(counts []count) {
	all := make([]Counter, len(counts))
	t.counters = make([]*Counter, len(counts))
	for i, c := range counts {
		all[i].name, all[i].version, all[i].written = c.name, c.version, c.uses
		all[i].uses.Store(c.uses)
		all[i].last.Store(c.last)
		t.counters[i] = &all[i]
	}
}

// counts returns what is to be written.
func (t *tally) counts() []count {
	all := make([]count, 0, len(t.counters))
	for _, c := range t.counters {
		if uses := c.uses.Load(); uses > 0 {
			all = append(all, count{c.name, c.version, uses, c.last.Load()})
		}
	}
	return all
}

// with calls f with an agent's tally, which nobody else changes meanwhile. v is a view of the usage's ledger; it is read
// where the agent was not asked for before.
func (u *usage) with(v *view, agent string, f func(*tally)) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := u.agents[agent]
	if t == nil {
		counts, err := v.counts(prefixUsage + agent)
		if err != nil && !errors.Is(err, ErrTampered) {
			return err
		}
		t = &tally{}
		t.take(counts)
		if u.agents == nil {
			u.agents = map[string]*tally{}
		}
		u.agents[agent] = t
	}
	f(t)
	return nil
}

// usageOf is usage.with in the transaction of v.
func (s *Store) usageOf(v *view, agent string, f func(*tally)) error {
	w, err := newView(&s.usage.ledger, v.tx, v.keys)
	if err != nil {
		return err
	}
	return s.usage.with(w, agent, f)
}

// Counter returns the counter of one version, with what was counted before. Where that can't be read it counts from
// nothing, and is not written.
func (s *Store) Counter(agent, name string, version int) *Counter {
	c := &Counter{}
	_ = s.view(&s.usage.ledger, func(v *view) error {
		return s.usage.with(v, agent, func(t *tally) { c = t.counter(name, version) })
	})
	return c
}

// FlushUsage writes what was counted since it was last called; where nothing was, it touches no disk.
func (s *Store) FlushUsage() error {
	changed := s.usage.changed()
	if len(changed) == 0 {
		return nil
	}
	err := s.change(&s.usage.ledger, func(e *edit) ([]Change, error) {
		for agent, counts := range changed {
			e.other[prefixUsage+agent] = encodeCounts(counts)
		}
		return nil, nil
	})
	s.usage.wrote(changed, err == nil)
	return err
}

// changed returns what is to be written, by agent.
func (u *usage) changed() map[string][]count {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := map[string][]count{}
	for agent, t := range u.agents {
		if t.changed() {
			t.dirty, all[agent] = false, t.counts()
		}
	}
	return all
}

// wrote notes that counts were written, or that they were not and are to be written again.
func (u *usage) wrote(all map[string][]count, done bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for agent, counts := range all {
		t := u.agents[agent]
		t.dirty = t.dirty || !done
		for _, c := range counts {
			if i := t.from(c.name, c.version); done && i < len(t.counters) && t.counters[i].name == c.name && t.counters[i].version == c.version {
				t.counters[i].written = c.uses
			}
		}
	}
}

// changedUsage names the agents whose counts were changed outside of torno.
func (s *Store) changedUsage() (findings []error, err error) {
	err = s.view(&s.usage.ledger, func(v *view) error {
		for key := range v.m.pages {
			if _, err := v.raw(key); err != nil {
				findings = append(findings, err)
			}
		}
		return nil
	})
	return findings, err
}

// A count is what was counted of one version.
//
//	format (1) | count | counts, in order: name | version | uses | last (8, nanoseconds since 1970)
type count struct {
	name    string
	version int
	uses    uint64 // at least 1
	last    int64
}

const countsFormat = 3

var errCounts = errors.New("the counts are malformed")

func (c count) compare(d count) int {
	if n := strings.Compare(c.name, d.name); n != 0 {
		return n
	}
	return c.version - d.version
}

// encodeCounts returns counts, which are in order, as a page; nil: none.
func encodeCounts(all []count) []byte {
	if len(all) == 0 {
		return nil
	}
	b := binary.AppendUvarint([]byte{countsFormat}, uint64(len(all)))
	for _, c := range all {
		b = binary.AppendUvarint(appendText(b, c.name), uint64(c.version))
		b = binary.AppendUvarint(b, c.uses)
		b = binary.BigEndian.AppendUint64(b, uint64(c.last))
	}
	return b
}

// decodeCounts reads what encodeCounts wrote, and nothing else.
func decodeCounts(b []byte) ([]count, error) {
	r := reader{b: b}
	if r.octet() != countsFormat {
		return nil, errCounts
	}
	const least = 1 + 1 + 1 + 8 // bytes of one
	all := make([]count, 0, r.number(min(maxEntries, uint64(len(r.b)/least))))
	for range cap(all) {
		c := count{name: r.text(), version: int(r.number(maxVersion)), uses: r.number(1<<63 - 1)}
		if last := r.take(8); last != nil {
			c.last = int64(binary.BigEndian.Uint64(last))
		}
		if r.bad || c.uses == 0 || len(all) > 0 && all[len(all)-1].compare(c) >= 0 {
			return nil, errCounts
		}
		all = append(all, c)
	}
	if r.bad || len(r.b) > 0 || len(all) == 0 {
		return nil, errCounts
	}
	return all, nil
}
