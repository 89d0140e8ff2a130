package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"torno.internal/protocol/control"
)

// ErrRevoked means that the version was revoked: its description is there, its value is not.
var ErrRevoked = errors.New("revoked")

// EventRevoked is the event of a version whose value was destroyed.
const EventRevoked = "secret_revoked"

// What is left of a revoked version stands where the secret stood, so that the manifest knows of it as of
// any other:
//
//	format (1) | when (8, nanoseconds since 1970) | associated data
const revokedFormat = 2

var errRevoked = errors.New("what is left of a revoked secret is malformed")

func encodeRevoked(at time.Time, aad []byte) []byte {
	return append(binary.BigEndian.AppendUint64([]byte{revokedFormat}, uint64(at.UnixNano())), aad...)
}

// decodeRevoked reads what encodeRevoked wrote.
func decodeRevoked(b []byte) (control.Meta, time.Time, error) {
	r := reader{b: b}
	if r.octet() != revokedFormat {
		return control.Meta{}, time.Time{}, errRevoked
	}
	at := r.take(8)
	m, _, err := control.DecodeAssociatedData(r.b)
	if r.bad || err != nil {
		return control.Meta{}, time.Time{}, errRevoked
	}
	return m, time.Unix(0, int64(binary.BigEndian.Uint64(at))).UTC(), nil
}

func isRevoked(raw []byte) bool { return len(raw) > 0 && raw[0] == revokedFormat }

// A Version is one version of a secret, without its value.
type Version struct {
	control.Meta
	Revoked time.Time // zero: it is not
	Uses    uint64
	Last    time.Time // when it was used last; zero: never
}

// decodeVersion is control.DecodeSealed without the value, for what is revoked too.
func decodeVersion(raw []byte) (Version, error) {
	if isRevoked(raw) {
		m, at, err := decodeRevoked(raw)
		return Version{Meta: m, Revoked: at}, err
	}
	m, _, err := control.DecodeSealedMeta(raw)
	return Version{Meta: m}, err
}

// version describes one version of a name that is there.
func (v *view) version(agent string, en *entry, number int) (Version, error) {
	raw, err := v.record(agent, en, number)
	if err != nil {
		return Version{}, err
	}
	ver, err := decodeVersion(raw)
	if err != nil {
		return Version{}, &TamperedError{Agent: agent, Name: en.name, Version: number, Why: err.Error()}
	}
	return ver, nil
}

// there returns the entry of a secret that is there.
func (p *page) there(name string) (*entry, error) {
	en := p.find(name)
	if en == nil || en.state == stateDeleted || !control.ValidKey(name) {
		return nil, ErrNotFound
	}
	return en, nil
}

// secretEntry returns the entry of an agent's secret that is there.
func (v *view) secretEntry(agent, name string) (*entry, error) {
	p, err := v.page(prefixAgents + agent)
	if err != nil {
		return nil, err
	}
	return p.there(name)
}

// Version describes one version of a secret, 0 for the latest. The errors are those of Secret, except that
// one which is revoked is described too.
func (s *Store) Version(agent, name string, number int) (Version, error) {
	var ver Version
	err := s.view(&s.agents, func(v *view) error {
		en, err := v.secretEntry(agent, name)
		if err != nil {
			return err
		}
		if number == 0 {
			number = en.last()
		}
		ver, err = v.version(agent, en, number)
		return err
	})
	return ver, err
}

// History describes every version of a secret, oldest first. What was changed outside of torno is an error.
func (s *Store) History(agent, name string) ([]Version, error) {
	var all []Version
	err := s.view(&s.agents, func(v *view) error {
		en, err := v.secretEntry(agent, name)
		if err != nil {
			return err
		}
		for n := en.first; n <= en.last(); n++ {
			ver, err := v.version(agent, en, n)
			if err != nil {
				return err
			}
			all = append(all, ver)
		}
		return s.usageOf(v, agent, func(t *tally) {
			for i := range all {
				all[i].Uses, all[i].Last = t.sum(name, all[i].Version, all[i].Version)
			}
		})
	})
	return all, err
}

// RevokeSecret destroys the value of one version of a secret, or of all for 0, for ever, and describes those
// that it destroyed. The error matches ErrNotFound if there is no such version, and ErrRevoked if there is
// nothing left to destroy.
func (s *Store) RevokeSecret(agent, name string, number int) ([]Version, error) {
	var revoked []Version
	err := s.change(&s.agents, func(e *edit) ([]Change, error) {
		p, err := e.page(prefixAgents + agent)
		if err != nil {
			return nil, err
		}
		en, err := p.there(name)
		if err != nil {
			return nil, err
		}
		first, last := en.first, en.last()
		if number != 0 {
			first, last = number, number
		}
		var changes []Change
		for n := first; n <= last; n++ {
			ver, err := e.revoke(agent, en, n, time.Now())
			if number == 0 && errors.Is(err, ErrRevoked) {
				continue
			}
			if err != nil {
				return nil, err
			}
			revoked = append(revoked, ver)
			changes = append(changes, Change{EventRevoked, agent, name, n})
		}
		if len(changes) == 0 {
			return nil, fmt.Errorf("%s of agent %s: %w", name, agent, ErrRevoked)
		}
		return changes, nil
	})
	if err != nil {
		return nil, err
	}
	return revoked, nil
}

// revoke puts what is left of a version in its place. bbolt writes a page anew somewhere else, so the sealed
// value may lie in a free page of the file until that is used again; what would open it is not in the file.
func (e *edit) revoke(agent string, en *entry, number int, now time.Time) (Version, error) {
	raw, err := e.record(agent, en, number)
	if err != nil {
		return Version{}, err
	}
	if isRevoked(raw) {
		return Version{}, fmt.Errorf("%s of agent %s, version %d: %w", en.name, agent, number, ErrRevoked)
	}
	m, keyID, err := control.DecodeSealedMeta(raw)
	if err != nil {
		return Version{}, &TamperedError{Agent: agent, Name: en.name, Version: number, Why: err.Error()}
	}
	left := encodeRevoked(now, control.AssociatedData(m, keyID))
	sum, err := e.put(bucketSecrets, versionKey(agent, en.name, number), left)
	if err != nil {
		return Version{}, err
	}
	en.digests[number-en.first] = sum
	return decodeVersion(left)
}
