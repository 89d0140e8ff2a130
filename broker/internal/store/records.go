package store

import (
	"encoding/json"
	"errors"

	"torno.internal/protocol/control"
)

// trustedName is the entry of an agent's trusted file, which can't be a secret's.
const trustedName = "torno.toml"

// PutTrusted approves an agent file, in place of any before.
func (s *Store) PutTrusted(f control.TrustedFile) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.change(&s.agents, func(e *edit) ([]Change, error) {
		err := e.putBox(prefixAgents+f.Agent, trustedName, bucketTrusted, f.Agent, b)
		return []Change{{Event: EventTrusted, Agent: f.Agent, Name: f.SHA256}}, err
	})
}

// Trusted returns the approved file of an agent. The error matches ErrNotFound if there is none and
// ErrTampered if it was changed outside of torno.
func (s *Store) Trusted(agent string) (control.TrustedFile, error) {
	var f control.TrustedFile
	b, err := s.getBox(&s.agents, prefixAgents+agent, trustedName, bucketTrusted, agent)
	if err != nil {
		return f, subject(err, "the trusted file of agent "+agent)
	}
	return f, json.Unmarshal(b, &f)
}

// PutSession stores a session's record, in place of any before.
func (s *Store) PutSession(id string, record []byte) error {
	return s.change(&s.sessions, func(e *edit) ([]Change, error) {
		return nil, e.putBox(sessionPage(id), id, bucketSessions, id, record)
	})
}

// Session returns a session's record. The error matches ErrNotFound if there is none and ErrTampered if
// it was changed outside of torno.
func (s *Store) Session(id string) ([]byte, error) {
	b, err := s.getBox(&s.sessions, sessionPage(id), id, bucketSessions, id)
	return b, subject(err, "the record of session "+id)
}

// Sessions returns the ids of all records, in the order of their pages. Pages that were changed outside of
// torno are left out and named by the error.
func (s *Store) Sessions() ([]string, error) {
	var ids []string
	var broken []error
	err := s.view(&s.sessions, func(v *view) error {
		for key := range v.m.pages {
			p, err := v.page(key)
			if err != nil {
				broken = append(broken, err)
				continue
			}
			for i := range p.entries {
				ids = append(ids, p.entries[i].name)
			}
		}
		return nil
	})
	return ids, errors.Join(append(broken, err)...)
}

// DeleteSession removes a session's record, if there is one.
func (s *Store) DeleteSession(id string) error {
	return s.change(&s.sessions, func(e *edit) ([]Change, error) {
		p, err := e.page(sessionPage(id))
		if err != nil {
			return nil, err
		}
		p.remove(id)
		return nil, e.tx.Bucket(bucketSessions).Delete([]byte(id))
	})
}

// sessionPage spreads sessions over as many pages as their ids have last characters, so that what one
// commit writes stays small.
func sessionPage(id string) string {
	if id == "" {
		return prefixSessions
	}
	return prefixSessions + id[len(id)-1:]
}

// putBox stores an encrypted record under name in bucket, with an entry in page.
func (e *edit) putBox(pageKey, entryName string, bucket []byte, name string, plain []byte) error {
	p, err := e.page(pageKey)
	if err != nil {
		return err
	}
	sum, err := e.put(bucket, []byte(name), e.keys.newest().seal(bucket, name, plain))
	if err != nil {
		return err
	}
	en := p.entry(entryName)
	en.state, en.first, en.digests = statePresent, 1, []digest{sum}
	return nil
}

func (s *Store) getBox(l *ledger, pageKey, entryName string, bucket []byte, name string) ([]byte, error) {
	var plain []byte
	err := s.view(l, func(v *view) error {
		p, err := v.page(pageKey)
		if err != nil {
			return err
		}
		en := p.find(entryName)
		if en == nil || en.state == stateDeleted {
			return ErrNotFound
		}
		plain, err = v.box(en, bucket, name)
		return err
	})
	return plain, err
}

// box opens the encrypted record that en is about.
func (v *view) box(en *entry, bucket []byte, name string) ([]byte, error) {
	if len(en.digests) != 1 {
		return nil, &TamperedError{Why: "an older state was put back"}
	}
	raw, err := v.stored(bucket, []byte(name), en.digests[0])
	if err != nil {
		return nil, err
	}
	return v.keys.open(bucket, name, raw)
}

// subject says what an error is about.
func subject(err error, what string) error {
	var t *TamperedError
	if errors.As(err, &t) && t.What == "" {
		t.What = what
	}
	return err
}
