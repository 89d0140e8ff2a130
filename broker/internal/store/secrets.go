package store

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// States of a name in bucketVersions.
const (
	statePresent = 1
	stateDeleted = 2
)

// SetSecrets stores sealed secrets, all or none. Each must carry the version after the last one of its
// name, deleted ones included, else the error matches ErrConflict: a version number is never used twice,
// so an old sealed value can't pass for a new one.
func (s *Store) SetSecrets(secrets []control.SealedSecret) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for i := range secrets {
			if err := put(tx, &secrets[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func put(tx *bbolt.Tx, sec *control.SealedSecret) error {
	m := &sec.Meta
	name := nameKey(m.Agent, m.Name)
	last, _ := lastVersion(tx, name)
	if m.Version != last+1 {
		return fmt.Errorf("%s of agent %s: version %d, want %d: %w", m.Name, m.Agent, m.Version, last+1, ErrConflict)
	}
	b, err := json.Marshal(sec)
	if err != nil {
		return err
	}
	if err := tx.Bucket(bucketSecrets).Put(versionKey(name, m.Version), b); err != nil {
		return err
	}
	return putVersion(tx, name, m.Version, statePresent)
}

// Secrets returns the latest version of each of an agent's secrets, or of everybody's for "", by agent
// and name.
func (s *Store) Secrets(agent string) ([]control.Meta, error) {
	var metas []control.Meta
	err := s.db.View(func(tx *bbolt.Tx) error {
		prefix := []byte(nil)
		if agent != "" {
			prefix = append([]byte(agent), 0)
		}
		c := tx.Bucket(bucketVersions).Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			version, state := decodeVersion(v)
			if state != statePresent {
				continue
			}
			sec, err := get(tx, k, version)
			if err != nil {
				return err
			}
			metas = append(metas, sec.Meta)
		}
		return nil
	})
	return metas, err
}

// Secret returns one version of a secret, 0 for the latest. The error matches ErrNotFound if there is
// none, or if the secret was deleted.
func (s *Store) Secret(agent, name string, version int) (control.SealedSecret, error) {
	var sec control.SealedSecret
	err := s.db.View(func(tx *bbolt.Tx) error {
		key := nameKey(agent, name)
		last, state := lastVersion(tx, key)
		if state != statePresent {
			return ErrNotFound
		}
		if version == 0 {
			version = last
		}
		var err error
		sec, err = get(tx, key, version)
		return err
	})
	return sec, err
}

// DeleteSecret removes every version of a secret and returns what it was. The name's last version
// number stays, so that it is not used again.
func (s *Store) DeleteSecret(agent, name string) (control.Meta, error) {
	var meta control.Meta
	err := s.db.Update(func(tx *bbolt.Tx) error {
		key := nameKey(agent, name)
		last, state := lastVersion(tx, key)
		if state != statePresent {
			return ErrNotFound
		}
		sec, err := get(tx, key, last)
		if err != nil {
			return err
		}
		meta = sec.Meta
		for v := 1; v <= last; v++ {
			if err := tx.Bucket(bucketSecrets).Delete(versionKey(key, v)); err != nil {
				return err
			}
		}
		return putVersion(tx, key, last, stateDeleted)
	})
	return meta, err
}

// LastVersion returns the last version number that a name ever had; 0 if none.
func (s *Store) LastVersion(agent, name string) (int, error) {
	var last int
	err := s.db.View(func(tx *bbolt.Tx) error {
		last, _ = lastVersion(tx, nameKey(agent, name))
		return nil
	})
	return last, err
}

// get returns one version, which must be what its place says: the seal binds the value to its Meta, and
// this binds the Meta to where it stands.
func get(tx *bbolt.Tx, name []byte, version int) (control.SealedSecret, error) {
	var sec control.SealedSecret
	b := tx.Bucket(bucketSecrets).Get(versionKey(name, version))
	if b == nil {
		return sec, ErrNotFound
	}
	err := json.Unmarshal(b, &sec)
	m := &sec.Meta
	if err != nil || m.Version != version || !bytes.Equal(nameKey(m.Agent, m.Name), name) {
		return control.SealedSecret{}, fmt.Errorf("secret %q version %d: %w", bytes.ReplaceAll(name, []byte{0}, []byte{'/'}), version, ErrTampered)
	}
	return sec, nil
}

func nameKey(agent, name string) []byte { return append(append([]byte(agent), 0), name...) }

func versionKey(name []byte, version int) []byte {
	return binary.BigEndian.AppendUint64(append(append([]byte{}, name...), 0), uint64(version))
}

func lastVersion(tx *bbolt.Tx, name []byte) (version int, state byte) {
	return decodeVersion(tx.Bucket(bucketVersions).Get(name))
}

func decodeVersion(b []byte) (version int, state byte) {
	if len(b) != 9 {
		return 0, 0
	}
	return int(binary.BigEndian.Uint64(b)), b[8]
}

func putVersion(tx *bbolt.Tx, name []byte, version int, state byte) error {
	return tx.Bucket(bucketVersions).Put(name, append(binary.BigEndian.AppendUint64(nil, uint64(version)), state))
}
