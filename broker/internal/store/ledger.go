package store

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"
)

// A ledger is a manifest and the pages below it. There are four: of what operators set, each commit of
// which is recorded in the audit; of sessions, which change too often for that; of the key that signs the audit,
// which is made before there is one; and of use counts.
type ledger struct {
	name   string // of the manifest in bucketMeta, and of what it is about in errors
	prefix string // of its pages' keys in bucketPages

	mu     sync.Mutex // held by the one who changes it
	follow *Commit    // what the next commit follows on, other than the one before it
	cached atomic.Pointer[verified]
}

// verified is a manifest and the bytes that it was read from.
type verified struct {
	raw    []byte
	digest digest // of raw
	m      *manifest
}

// A view reads one ledger within a transaction. Everything that it returns was checked against the manifest.
type view struct {
	l    *ledger
	tx   *bbolt.Tx
	keys keys
	m    *manifest
	at   digest // of the manifest

	walk *bbolt.Cursor // of bucketSecrets, for who reads it in order; nil: each entry is sought
}

// view calls f with a view of l.
func (s *Store) view(l *ledger, f func(*view) error) error {
	ks := s.keys()
	return s.file.read(func(tx *bbolt.Tx) error {
		v, err := newView(l, tx, ks)
		if err != nil {
			return err
		}
		return f(v)
	})
}

func newView(l *ledger, tx *bbolt.Tx, ks keys) (*view, error) {
	known, err := l.manifest(tx, ks)
	if err != nil {
		return nil, err
	}
	return &view{l: l, tx: tx, keys: ks, m: known.m, at: known.digest}, nil
}

// manifest returns the ledger's manifest as tx has it. The same bytes are verified once.
func (l *ledger) manifest(tx *bbolt.Tx, ks keys) (*verified, error) {
	raw := tx.Bucket(bucketMeta).Get([]byte(l.name))
	if c := l.cached.Load(); c != nil && bytes.Equal(c.raw, raw) {
		return c, nil
	}
	tampered := &TamperedError{What: "the manifest of " + l.name, Why: "it is not what torno wrote"}
	if raw == nil {
		tampered.Why = "it was removed"
		return nil, tampered
	}
	id, err := manifestKey(raw)
	if err != nil {
		return nil, tampered
	}
	k := ks.byID(id)
	if k == nil {
		tampered.Why = fmt.Sprintf("it is signed with key %s; the key file holds %s", id, ks.ids())
		return nil, tampered
	}
	m, err := decodeManifest(raw, l.name, &k.mac)
	if err != nil {
		return nil, tampered
	}
	return l.remember(raw, m), nil
}

func (l *ledger) remember(raw []byte, m *manifest) *verified {
	v := &verified{bytes.Clone(raw), sha256.Sum256(raw), m}
	l.cached.Store(v)
	return v
}

// page returns the page of key. One that never was is empty.
func (v *view) page(key string) (*page, error) {
	raw, err := v.raw(key)
	if err != nil {
		return nil, err
	}
	if raw == nil {
		return &page{}, nil
	}
	p, err := decodePage(raw)
	if err != nil {
		return nil, v.about(key, err.Error())
	}
	return p, nil
}

// counts returns the counts of the page of key. One that never was has none.
func (v *view) counts(key string) ([]count, error) {
	raw, err := v.raw(key)
	if err != nil || raw == nil {
		return nil, err
	}
	all, err := decodeCounts(raw)
	if err != nil {
		return nil, v.about(key, err.Error())
	}
	return all, nil
}

// raw returns the bytes of the page of key; nil: it never was.
func (v *view) raw(key string) ([]byte, error) {
	raw := v.tx.Bucket(bucketPages).Get([]byte(key))
	want, known := v.m.pages[key]
	switch {
	case !known && raw == nil:
		return nil, nil
	case !known:
		return nil, v.about(key, "the manifest knows of none")
	case raw == nil:
		return nil, v.about(key, "it was removed")
	case sha256.Sum256(raw) != want:
		return nil, v.about(key, fmt.Sprintf("it is not the one of commit %d", v.m.commit))
	}
	return raw, nil
}

// about says that the page of key was changed outside of torno.
func (v *view) about(key, why string) *TamperedError {
	of := strings.TrimPrefix(key, v.l.prefix)
	switch v.l.prefix {
	case prefixAgents:
		return &TamperedError{Agent: of, What: "the list of what agent " + of + " has", Why: why}
	case prefixUsage:
		return &TamperedError{Agent: of, What: "the use counts of agent " + of, Why: why}
	}
	return &TamperedError{What: "the list of " + of, Why: why}
}

// stored returns what stands at key in bucket, which must have the digest sum.
func (v *view) stored(bucket, key []byte, sum digest) ([]byte, error) {
	raw := v.get(bucket, key)
	switch {
	case raw == nil:
		return nil, &TamperedError{Why: "it was removed"}
	case sha256.Sum256(raw) != sum:
		return nil, &TamperedError{Why: "it is not what was set"}
	}
	return raw, nil
}

// get returns what stands at key in bucket, or nil.
func (v *view) get(bucket, key []byte) []byte {
	if v.walk == nil || !bytes.Equal(bucket, bucketSecrets) {
		return v.tx.Bucket(bucket).Get(key)
	}
	k, raw := v.walk.Next()
	if !bytes.Equal(k, key) {
		k, raw = v.walk.Seek(key)
	}
	if !bytes.Equal(k, key) {
		return nil
	}
	return raw
}

// inOrder is for who reads secrets in the order of their keys, in a transaction that changes none.
func (v *view) inOrder() *view {
	v.walk = v.tx.Bucket(bucketSecrets).Cursor()
	v.walk.First()
	return v
}

// An edit changes one ledger within a transaction.
type edit struct {
	*view
	dirty map[string]*page
	other map[string][]byte // pages of another make; an empty one is removed
}

// page returns the page of key for changing.
func (e *edit) page(key string) (*page, error) {
	if p := e.dirty[key]; p != nil {
		return p, nil
	}
	p, err := e.view.page(key)
	if err == nil {
		e.dirty[key] = p
	}
	return p, err
}

// put stores b at key in bucket and returns its digest.
func (e *edit) put(bucket, key, b []byte) (digest, error) {
	return sha256.Sum256(b), e.tx.Bucket(bucket).Put(key, b)
}

// change makes one commit: f changes pages and what they are about, all or nothing.
func (s *Store) change(l *ledger, f func(*edit) ([]Change, error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l == &s.agents {
		if err := s.recordPending(); err != nil {
			return err
		}
	}
	if err := s.commit(l, 0, f); err != nil || l != &s.agents {
		return err
	}
	return s.recordPending()
}

// commit is change without the record. number is the commit's, or 0 for the one after the last.
func (s *Store) commit(l *ledger, number uint64, f func(*edit) ([]Change, error)) error {
	var next *manifest
	var raw []byte
	err := s.file.write(func(tx *bbolt.Tx) error {
		v, err := newView(l, tx, s.keys())
		if err != nil {
			return err
		}
		e := &edit{v, map[string]*page{}, map[string][]byte{}}
		changes, err := f(e)
		if err != nil {
			return err
		}
		k := e.keys.newest()
		next = &manifest{ledger: l.name, keyID: k.id, commit: max(number, v.m.commit+1), prev: v.at, changes: changes, pages: maps.Clone(v.m.pages)}
		if l == &s.agents {
			next.floor = s.sessionsAt(tx, v)
		}
		if l.follow != nil {
			next.prev = l.follow.Manifest
		}
		if err := e.flush(next); err != nil {
			return err
		}
		raw = next.encode(&k.mac)
		return tx.Bucket(bucketMeta).Put([]byte(l.name), raw)
	})
	if err != nil {
		return err
	}
	v := l.remember(raw, next)
	if l == &s.agents {
		s.pending = &Commit{Number: next.commit, Manifest: v.digest, Changes: next.changes}
	}
	return nil
}

// sessionsAt returns the commit that the ledger of sessions is at, for the manifest of agents. One that was
// changed outside of torno is where it was.
func (s *Store) sessionsAt(tx *bbolt.Tx, agents *view) uint64 {
	v, err := newView(&s.sessions, tx, agents.keys)
	if err != nil {
		return agents.m.floor
	}
	return max(v.m.commit, agents.m.floor)
}

// flush writes the pages that were changed.
func (e *edit) flush(m *manifest) error {
	for key, p := range e.dirty {
		e.other[key] = nil
		if len(p.entries) > 0 {
			e.other[key] = p.encode()
		}
	}
	for key, raw := range e.other {
		if len(raw) == 0 {
			delete(m.pages, key)
			if err := e.tx.Bucket(bucketPages).Delete([]byte(key)); err != nil {
				return err
			}
			continue
		}
		var err error
		if m.pages[key], err = e.put(bucketPages, []byte(key), raw); err != nil {
			return err
		}
	}
	return nil
}

// agents returns the agents that the manifest knows, in order.
func (v *view) agents() []string {
	agents := make([]string, 0, len(v.m.pages))
	for key := range v.m.pages {
		agents = append(agents, strings.TrimPrefix(key, v.l.prefix))
	}
	slices.Sort(agents)
	return agents
}
