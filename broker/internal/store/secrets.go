package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Keys of pages.
const (
	prefixAgents   = "a/" // + the agent: its secrets and its trusted file
	prefixSessions = "s/" // + the last character of an id
	prefixSigning  = "k/" // + what the key signs
	prefixUsage    = "u/" // + the agent: counts; see usage
)

// The events of what operators set, as they are recorded.
const (
	EventSet        = "secret_set"
	EventDeleted    = "secret_deleted"
	EventReplaced   = "secret_replaced"
	EventTrusted    = "file_trusted"
	EventRolledBack = "store_rolled_back"
	EventCut        = "audit_cut"
	EventRestored   = "store_restored"
	EventSessions   = "sessions_kept"
	EventRotated    = "key_rotated"
	EventProtected  = "key_protected"
	EventSplit      = "key_split"
	EventBackup     = "store_backed_up"
)

// SetSecrets stores sealed secrets, all or none. Each must carry the version after the last one of its
// name, deleted ones included, else the error matches ErrConflict: a version number is never used twice,
// so an old sealed value can't pass for a new one. One that is sealed to another key than the newest
// matches ErrOldKey.
func (s *Store) SetSecrets(secrets []control.SealedSecret) error {
	return s.change(&s.agents, func(e *edit) ([]Change, error) {
		changes := make([]Change, 0, len(secrets))
		for i := range secrets {
			if err := e.set(&secrets[i]); err != nil {
				return nil, err
			}
			m := &secrets[i].Meta
			changes = append(changes, Change{EventSet, m.Agent, m.Name, m.Version})
		}
		return changes, nil
	})
}

func (e *edit) set(sec *control.SealedSecret) error {
	m := &sec.Meta
	if sec.KeyID != e.keys.newest().id {
		return fmt.Errorf("%s of agent %s: %w", m.Name, m.Agent, ErrOldKey)
	}
	p, err := e.page(prefixAgents + m.Agent)
	if err != nil {
		return err
	}
	en := p.entry(m.Name)
	if m.Version != en.last()+1 || m.Version > maxVersion {
		return fmt.Errorf("%s of agent %s: version %d, want %d: %w", m.Name, m.Agent, m.Version, en.last()+1, ErrConflict)
	}
	b, err := control.EncodeSealed(*sec)
	if err != nil {
		return err
	}
	sum, err := e.put(bucketSecrets, versionKey(m.Agent, m.Name, m.Version), b)
	if err != nil {
		return err
	}
	en.state, en.changed = statePresent, max(en.changed, m.Created.UnixNano())
	en.digests = append(en.digests, sum)
	return nil
}

// eachAgent calls f with the page of an agent, or with everybody's for "", in order.
func (v *view) eachAgent(agent string, f func(agent string, p *page, err error) error) error {
	agents := []string{agent}
	if agent == "" {
		agents = v.agents()
	}
	for _, a := range agents {
		p, err := v.page(prefixAgents + a)
		if err := f(a, p, err); err != nil {
			return err
		}
	}
	return nil
}

// collect appends what was changed outside of torno to broken; any other error it returns.
func collect(broken *[]*TamperedError, err error) error {
	var t *TamperedError
	if !errors.As(err, &t) {
		return err
	}
	*broken = append(*broken, t)
	return nil
}

// record returns the stored bytes of one version.
func (v *view) record(agent string, en *entry, version int) ([]byte, error) {
	if en.state == stateRolledBack {
		return nil, &TamperedError{Agent: agent, Name: en.name, Version: en.last(), Why: "an older state was put back; set it anew"}
	}
	sum, ok := en.digest(version)
	if !ok {
		return nil, ErrNotFound
	}
	raw, err := v.stored(bucketSecrets, versionKey(agent, en.name, version), sum)
	return raw, named(err, agent, en.name, version)
}

// named says which secret an error is about.
func named(err error, agent, name string, version int) error {
	var t *TamperedError
	if errors.As(err, &t) {
		t.Agent, t.Name, t.Version = agent, name, version
	}
	return err
}

// Secret returns one version of a secret, 0 for the latest. The error matches ErrNotFound if there is
// none, or if the secret was deleted, ErrRevoked if the version was revoked, and is a *TamperedError if it
// was changed outside of torno.
func (s *Store) Secret(agent, name string, version int) (control.SealedSecret, error) {
	var sec control.SealedSecret
	err := s.view(&s.agents, func(v *view) (err error) {
		sec, err = v.secret(agent, name, version)
		return err
	})
	return sec, err
}

// Unseal returns one version of a secret, opened. The errors are those of Secret.
func (s *Store) Unseal(agent, name string, version int) (secret.Value, error) {
	var value secret.Value
	err := s.view(&s.agents, func(v *view) error {
		sec, err := v.secret(agent, name, version)
		if err != nil {
			return err
		}
		value, err = v.keys.unseal(&sec)
		return err
	})
	value.Lock()
	return value, err
}

// UnsealNew opens a secret that is not stored yet. It must be sealed to the newest key, else the error
// matches ErrOldKey.
func (s *Store) UnsealNew(sec *control.SealedSecret) (secret.Value, error) {
	return s.keys()[:1].unseal(sec)
}

func (v *view) secret(agent, name string, version int) (control.SealedSecret, error) {
	p, err := v.page(prefixAgents + agent)
	if err != nil {
		return control.SealedSecret{}, err
	}
	en := p.find(name)
	if en == nil || en.state == stateDeleted {
		return control.SealedSecret{}, ErrNotFound
	}
	if version == 0 {
		version = en.last()
	}
	raw, err := v.record(agent, en, version)
	if err != nil {
		return control.SealedSecret{}, err
	}
	if isRevoked(raw) {
		return control.SealedSecret{}, fmt.Errorf("%s of agent %s, version %d: %w", name, agent, version, ErrRevoked)
	}
	sec, err := control.DecodeSealed(raw)
	if err != nil {
		return control.SealedSecret{}, &TamperedError{Agent: agent, Name: name, Version: version, Why: err.Error()}
	}
	return sec, nil
}

// DeleteSecret removes every version of a secret and returns what it was. The name's last version
// number stays, so that it is not used again. One that was changed outside of torno is removed too.
func (s *Store) DeleteSecret(agent, name string) (control.Meta, error) {
	meta := control.Meta{Agent: agent, Name: name}
	err := s.change(&s.agents, func(e *edit) ([]Change, error) {
		p, err := e.page(prefixAgents + agent)
		if err != nil {
			return nil, err
		}
		en := p.find(name)
		if en == nil || en.state == stateDeleted {
			return nil, ErrNotFound
		}
		meta.Version = en.last()
		if ver, err := e.version(agent, en, en.last()); err == nil {
			meta = ver.Meta
		}
		for v := en.first; v <= en.last(); v++ {
			if err := e.tx.Bucket(bucketSecrets).Delete(versionKey(agent, name, v)); err != nil {
				return nil, err
			}
		}
		en.close(stateDeleted, en.last(), time.Now().UnixNano())
		if err := s.usageOf(e.view, agent, func(t *tally) { t.forget(name) }); err != nil {
			return nil, err
		}
		return []Change{{EventDeleted, agent, name, meta.Version}}, nil
	})
	return meta, err
}

// Last returns the last version number that a name ever had, 0 if none, and when that version was made or
// deleted.
func (s *Store) Last(agent, name string) (version int, changed time.Time, err error) {
	err = s.view(&s.agents, func(v *view) error {
		p, err := v.page(prefixAgents + agent)
		if err != nil {
			return err
		}
		if en := p.find(name); en != nil {
			version, changed = en.last(), time.Unix(0, en.changed).UTC()
		}
		return nil
	})
	return version, changed, err
}

// versionKey is where a version stands in bucketSecrets.
func versionKey(agent, name string, version int) []byte {
	b := make([]byte, 0, len(agent)+len(name)+10)
	b = append(append(append(append(b, agent...), 0), name...), 0)
	return binary.BigEndian.AppendUint64(b, uint64(version))
}

// Note records something that changes nothing in the store.
func (s *Store) Note(c Change) error {
	return s.change(&s.agents, func(*edit) ([]Change, error) { return []Change{c}, nil })
}
