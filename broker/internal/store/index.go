package store

import (
	"context"
	"sync"

	"torno.internal/protocol/control"
)

// An index keeps what lists show of each agent in memory, some 600 bytes a secret, so that an entry is read and compared
// once, and not by every list. It holds as long as nobody but us writes to the file; then all is read anew.
type index struct {
	mu     sync.Mutex
	age    uint64 // counts how often somebody else wrote to the file
	agents map[string]*shelf
}

// A shelf is what lists show of one agent. It is not changed.
type shelf struct {
	page   digest // of the page that it was made of: with it, of each entry
	latest []listed
}

// A listed is the latest version of a name.
type listed struct {
	Version
	first int // the oldest version that is there
}

// forget makes the index empty.
func (x *index) forget() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.age++
	x.agents = nil
}

func (x *index) now() uint64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.age
}

// get returns an agent's shelf if it was made of a page; nil: there is none.
func (x *index) get(agent string, page digest) *shelf {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.agents[agent]; f != nil && f.page == page {
		return f
	}
	return nil
}

// put keeps a shelf that was read when the index was of an age.
func (x *index) put(agent string, f *shelf, age uint64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if age != x.age {
		return
	}
	if x.agents == nil {
		x.agents = map[string]*shelf{}
	}
	x.agents[agent] = f
}

// Secrets describes the latest version of each of an agent's secrets, or of everybody's for "", by agent and
// name, revoked ones too, and beside them what was changed outside of torno. Their Uses and Last are those of
// all versions of the name. What a Meta points to is shared: nobody changes it.
func (s *Store) Secrets(agent string) ([]Version, []*TamperedError, error) {
	var latest []Version
	var broken []*TamperedError
	age := s.index.now()
	err := s.view(&s.agents, func(v *view) error {
		agents := []string{agent}
		if agent == "" {
			agents = v.inOrder().agents()
		}
		shelves, n := make([]*shelf, len(agents)), 0
		for i, a := range agents {
			f, bad, err := s.shelf(v, a, age)
			if err != nil {
				return err
			}
			shelves[i], broken, n = f, append(broken, bad...), n+len(f.latest)
		}
		usage, err := newView(&s.usage.ledger, v.tx, v.keys)
		latest = make([]Version, 0, n)
		for i, f := range shelves {
			if err != nil {
				break
			}
			err = s.usage.with(usage, agents[i], func(t *tally) { latest = f.appendTo(latest, t) })
		}
		return err
	})
	return latest, broken, err
}

// appendTo appends what lists show, with how often it was used.
func (f *shelf) appendTo(latest []Version, t *tally) []Version {
	for i := range f.latest {
		ver := &f.latest[i]
		latest = append(latest, ver.Version)
		if len(t.counters) > 0 {
			last := &latest[len(latest)-1]
			last.Uses, last.Last = t.sum(ver.Name, ver.first, ver.Version.Meta.Version)
		}
	}
	return latest
}

// shelf returns what lists show of an agent, out of the index or out of the file, and what was changed outside of torno.
func (s *Store) shelf(v *view, agent string, age uint64) (*shelf, []*TamperedError, error) {
	sum, known := v.m.pages[prefixAgents+agent]
	if f := s.index.get(agent, sum); f != nil && known {
		return f, nil, nil
	}
	var broken []*TamperedError
	p, err := v.page(prefixAgents + agent)
	if err != nil {
		err = collect(&broken, err)
		return &shelf{}, broken, err
	}
	f := &shelf{page: sum, latest: make([]listed, 0, len(p.entries))}
	for i := range p.entries {
		en := &p.entries[i]
		if !control.ValidKey(en.name) || en.state == stateDeleted {
			continue
		}
		ver, err := v.version(agent, en, en.last())
		if err == nil {
			f.latest = append(f.latest, listed{ver, en.first})
		} else if err := collect(&broken, err); err != nil {
			return nil, nil, err
		}
	}
	if len(broken) == 0 {
		s.index.put(agent, f, age)
	}
	return f, broken, nil
}

// Warm reads and compares each entry once, agent by agent, so that the first list need not, and returns what was changed
// outside of torno.
func (s *Store) Warm(ctx context.Context) (broken []*TamperedError, err error) {
	var agents []string
	if err := s.view(&s.agents, func(v *view) error { agents = v.agents(); return nil }); err != nil {
		return nil, err
	}
	for _, a := range agents {
		if err := ctx.Err(); err != nil {
			return broken, err
		}
		_, bad, err := s.Secrets(a)
		if err != nil {
			return broken, err
		}
		broken = append(broken, bad...)
	}
	return broken, nil
}
