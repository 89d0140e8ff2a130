package store

import (
	"fmt"

	"torno.internal/protocol/control"
)

// Replace puts another value in the place of one version's: a refresh token that was issued instead of it. What
// the version is bound to stays. The error matches ErrNotFound if the version is not there and ErrRevoked if
// it was revoked.
func (s *Store) Replace(agent, name string, version int, value []byte) error {
	return s.change(&s.agents, func(e *edit) ([]Change, error) {
		p, err := e.page(prefixAgents + agent)
		if err != nil {
			return nil, err
		}
		en, err := p.there(name)
		if err != nil {
			return nil, err
		}
		raw, err := e.record(agent, en, version)
		if err != nil {
			return nil, err
		}
		if isRevoked(raw) {
			return nil, ErrRevoked
		}
		sec, err := control.DecodeSealed(raw)
		if err != nil {
			return nil, &TamperedError{Agent: agent, Name: name, Version: version, Why: err.Error()}
		}
		if err := control.CheckValue(sec.Meta, value); err != nil {
			return nil, fmt.Errorf("%s of agent %s: %w", name, agent, err)
		}
		k := e.keys.newest()
		sec.KeyID = k.id
		if sec.Sealed, err = k.private.Public().Seal(value, control.AssociatedData(sec.Meta, k.id)); err != nil {
			return nil, err
		}
		if raw, err = control.EncodeSealed(sec); err != nil {
			return nil, err
		}
		sum, err := e.put(bucketSecrets, versionKey(agent, name, version), raw)
		if err != nil {
			return nil, err
		}
		en.digests[version-en.first] = sum
		return []Change{{Event: EventReplaced, Agent: agent, Name: name, Version: version}}, nil
	})
}
