package store

import (
	"encoding/json"

	"go.etcd.io/bbolt"

	"torno.internal/protocol/control"
)

// PutTrusted approves an agent file, in place of any before.
func (s *Store) PutTrusted(f control.TrustedFile) error {
	b, err := json.Marshal(f)
	if err != nil {
		return err
	}
	return s.put(bucketTrusted, f.Agent, b)
}

// Trusted returns the approved file of an agent. The error matches ErrNotFound if there is none and
// ErrTampered if it was edited.
func (s *Store) Trusted(agent string) (control.TrustedFile, error) {
	var f control.TrustedFile
	b, err := s.get(bucketTrusted, agent)
	if err != nil {
		return f, err
	}
	return f, json.Unmarshal(b, &f)
}

// PutSession stores a session's record, in place of any before.
func (s *Store) PutSession(id string, record []byte) error { return s.put(bucketSessions, id, record) }

// Session returns a session's record. The error matches ErrNotFound if there is none and ErrTampered if
// it was edited.
func (s *Store) Session(id string) ([]byte, error) { return s.get(bucketSessions, id) }

// Sessions returns the ids of all records, in order.
func (s *Store) Sessions() ([]string, error) {
	var ids []string
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketSessions).ForEach(func(k, _ []byte) error {
			ids = append(ids, string(k))
			return nil
		})
	})
	return ids, err
}

// DeleteSession removes a session's record, if there is one.
func (s *Store) DeleteSession(id string) error {
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucketSessions).Delete([]byte(id)) })
}

func (s *Store) put(bucket []byte, name string, plain []byte) error {
	sealed := s.box.seal(bucket, name, plain)
	return s.db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put([]byte(name), sealed) })
}

func (s *Store) get(bucket []byte, name string) ([]byte, error) {
	var plain []byte
	err := s.db.View(func(tx *bbolt.Tx) error {
		sealed := tx.Bucket(bucket).Get([]byte(name))
		if sealed == nil {
			return ErrNotFound
		}
		var err error
		plain, err = s.box.open(bucket, name, sealed)
		return err
	})
	return plain, err
}
