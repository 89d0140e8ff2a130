package store

import (
	"fmt"
	"strings"

	"go.etcd.io/bbolt"
)

// KeepSessions makes sure that no older records of sessions pass for the ones that are there now: after one was
// revoked. The manifest of agents, which the audit has, says from then on how far that of sessions is.
func (s *Store) KeepSessions() error { return s.Note(Change{Event: EventSessions}) }

// olderSessions ends all sessions on record if they are older than the manifest of agents says, or may be: where the file is
// as it was a transaction ago, which may have been one of theirs.
func (s *Store) olderSessions() ([]error, error) {
	var at, floor uint64
	ks := s.keys()
	err := s.file.read(func(tx *bbolt.Tx) error {
		agents, err := newView(&s.agents, tx, ks)
		if err != nil {
			return err
		}
		sessions, err := newView(&s.sessions, tx, ks)
		if err != nil {
			return err
		}
		at, floor = sessions.m.commit, agents.m.floor
		return nil
	})
	if err != nil || at >= floor && !s.file.halved {
		return nil, err
	}
	ids, err := s.dropSessions()
	if at >= floor {
		return []error{&DamagedError{s.file.path, "what says where its last state begins can't be read, so the one before is used, and all sessions have ended: " + strings.Join(ids, ", ")}}, err
	}
	return []error{&TamperedError{What: "the records of sessions", Why: fmt.Sprintf(
		"they are at commit %d and were at %d: older ones were put back; all have ended: %s", at, floor, strings.Join(ids, ", "))}}, err
}

// dropSessions removes every record of a session, also those that were changed outside of torno.
func (s *Store) dropSessions() (ids []string, err error) {
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	head, err := s.floor()
	if err != nil {
		return nil, err
	}
	err = s.commit(&s.sessions, head+1, func(e *edit) ([]Change, error) {
		for key := range e.m.pages {
			e.dirty[key] = &page{} // one without entries is removed
		}
		b := e.tx.Bucket(bucketSessions)
		if err := b.ForEach(func(k, _ []byte) error { ids = append(ids, string(k)); return nil }); err != nil {
			return nil, err
		}
		for _, id := range ids {
			if err := b.Delete([]byte(id)); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
	return ids, err
}

// floor is what the manifest of agents says of that of sessions.
func (s *Store) floor() (n uint64, err error) {
	err = s.view(&s.agents, func(v *view) error { n = v.m.floor; return nil })
	return n, err
}
