package store

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"torno.internal/protocol/control"
)

// A Commit is a change of what operators set, as the audit records it.
type Commit struct {
	Number   uint64
	Manifest digest
	Changes  []Change
}

// restored reports whether the commit is that of a backup being restored, with what was revoked again.
func (c *Commit) restored() bool { return len(c.Changes) > 0 && c.Changes[0].Event == EventRestored }

// An Anchor keeps the hash of every manifest where it can't be taken back together with the store's file:
// in the audit's chain.
type Anchor interface {
	// Record records a commit and returns when that is on disk.
	Record(Commit) error
	// Last returns the number and the manifest of the last commit that was recorded; 0 if none was.
	Last() (Commit, error)
	// Since calls f with each change that was recorded of commits after number, in order.
	Since(number uint64, f func(Change)) error
}

// SetAnchor has every later commit recorded by a, and compares: a commit that the last process did not live
// to record is recorded now. If the anchor knows of later commits than the store holds, an older store was
// put back: what was changed since is named, in the record too, and refused until it is set anew. The
// findings are for people; none means that the two agree.
func (s *Store) SetAnchor(a Anchor) (findings []error, err error) {
	s.agents.mu.Lock()
	defer s.agents.mu.Unlock()
	s.anchor = a
	older, err := s.olderSessions()
	if err != nil {
		return nil, err
	}
	counts, err := s.changedUsage()
	if err != nil {
		return nil, err
	}
	findings, err = s.compare(a)
	return slices.Concat(older, counts, findings), err
}

func (s *Store) compare(a Anchor) (findings []error, err error) {
	last, err := a.Last()
	if err != nil {
		return nil, fmt.Errorf("reading the audit for the last commit: %w", err)
	}
	head, prev, err := s.head()
	switch {
	case err != nil:
		return nil, err
	case head.Number == last.Number && (head.Number == 0 || head.Manifest == last.Manifest):
		s.pending = nil
		return nil, nil
	case head.Number == last.Number+1 && (last.Number == 0 || prev == last.Manifest), head.Number > last.Number && prev == last.Manifest && head.restored():
		s.pending = &head // the last process died between the two, or a backup was restored
		return nil, s.recordPending()
	case head.Number > last.Number:
		findings = append(findings, &TamperedError{What: "the audit", Why: fmt.Sprintf("its last record of the store is of commit %d, the store is at %d: its end was cut off", last.Number, head.Number)})
		err = s.commit(&s.agents, 0, func(*edit) ([]Change, error) { return []Change{{Event: EventCut}}, nil })
	default:
		findings, err = s.rolledBack(head, last)
	}
	return findings, errors.Join(err, s.recordPending())
}

// head returns the store's last commit and the hash of the manifest before it.
func (s *Store) head() (head Commit, prev digest, err error) {
	err = s.view(&s.agents, func(v *view) error {
		head, prev = Commit{Number: v.m.commit, Manifest: v.at, Changes: v.m.changes}, v.m.prev
		return nil
	})
	return head, prev, err
}

// recordPending records the last commit if that has not been done. Until it has, nothing else is
// committed: what is not recorded does not happen.
func (s *Store) recordPending() error {
	if s.anchor == nil {
		s.pending = nil
	}
	if s.pending == nil {
		return nil
	}
	if err := s.anchor.Record(*s.pending); err != nil {
		return fmt.Errorf("recording commit %d of the store: %w", s.pending.Number, err)
	}
	s.pending = nil
	return nil
}

// rolledBack closes everything that the anchor says was changed since the commit that the store is at.
func (s *Store) rolledBack(head, last Commit) ([]error, error) {
	since := head.Number
	if head.Number == last.Number {
		since-- // the same number, and not the same commit
	}
	var later []Change
	if err := s.anchor.Since(since, func(c Change) { later = append(later, c) }); err != nil {
		return nil, fmt.Errorf("reading the audit for what was changed since commit %d: %w", since, err)
	}
	findings := []error{&TamperedError{What: "the store", Why: fmt.Sprintf("it is at commit %d, the audit has recorded %d: an older one was put back", head.Number, last.Number)}}
	if _, err := s.dropSessions(); err != nil {
		return nil, err
	}
	err := s.commit(&s.agents, last.Number+1, func(e *edit) ([]Change, error) {
		changes := []Change{{Event: EventRolledBack, Version: int(min(head.Number, maxVersion))}}
		for _, c := range later {
			finding, err := e.supersede(c)
			if err != nil {
				return nil, err
			}
			if finding != nil {
				findings = append(findings, finding)
				changes = append(changes, Change{EventRolledBack, c.Agent, c.Name, c.Version})
			}
		}
		return changes, nil
	})
	return findings, err
}

// supersede closes what a later change was about, and says so.
func (e *edit) supersede(c Change) (finding error, err error) {
	if !control.ValidAgent(c.Agent) {
		return nil, nil // it is about the store as a whole
	}
	p, err := e.page(prefixAgents + c.Agent)
	if errors.Is(err, ErrTampered) {
		return err, nil // the whole agent is refused already
	}
	if err != nil {
		return nil, err
	}
	const why = "an older state was put back"
	t := &TamperedError{Agent: c.Agent, Name: c.Name, Version: c.Version, Why: why}
	now := time.Now().UnixNano()
	switch c.Event {
	case EventTrusted:
		p.entry(trustedName).close(stateRolledBack, 1, now)
		t.What = "the trusted file of agent " + c.Agent
	case EventDeleted:
		en := p.entry(c.Name)
		en.close(stateDeleted, max(c.Version, en.last()), now)
	case EventSet, EventRevoked, EventRolledBack:
		en := p.entry(c.Name)
		en.close(stateRolledBack, max(c.Version, en.last()), now)
	default:
		return nil, nil
	}
	return t, nil
}
