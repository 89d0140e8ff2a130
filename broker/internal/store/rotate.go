package store

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"path/filepath"

	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol/control"
)

// A rotation puts a new key in the old one's place, in steps that each leave a store which opens:
//
//  1. The key file has both. Everything new is sealed, encrypted and signed with the new key.
//  2. Everything else follows, some entries a commit.
//  3. The key file has the new key alone.
//
// A process that dies on the way leaves two keys; Rotate then goes on where it ended.

// rotationBatch is how many entries one commit re-seals, so that others' changes wait some milliseconds and no
// more.
const rotationBatch = 64

// eventRotating is the event of a commit that re-seals; its Version says how many.
const eventRotating = "key_rotating"

// Rotating reports whether a rotation was begun and has not ended.
func (s *Store) Rotating() bool { return len(s.keys()) > 1 }

// Rotate puts a new key in the old one's place, or ends a rotation that was interrupted. Others may use the
// store meanwhile. It calls progress with how many entries are done, of how many there were at its beginning.
// What was changed outside of torno is left as it is: refused.
func (s *Store) Rotate(ctx context.Context, progress func(done, total int)) error {
	if !s.rotating.TryLock() {
		return fmt.Errorf("a key rotation: %w", ErrConflict)
	}
	defer s.rotating.Unlock()
	if !s.Rotating() {
		if err := s.changeRing(s.ring.Add); err != nil {
			return fmt.Errorf("writing the new key: %w", err)
		}
	}
	r := &rotation{s: s, ctx: ctx, progress: progress}
	for _, l := range s.ledgers() {
		if err := r.count(l); err != nil {
			return err
		}
	}
	progress(0, r.total)
	for _, l := range s.ledgers() {
		if err := r.ledger(l); err != nil {
			return err
		}
	}
	if err := s.change(&s.agents, func(e *edit) ([]Change, error) {
		return []Change{{Event: EventRotated, Name: e.keys.newest().id}}, nil
	}); err != nil {
		return err
	}
	return s.changeRing(s.ring.Retire)
}

// changeRing changes the key file and then the keys in use.
func (s *Store) changeRing(f func() error) error {
	s.agents.mu.Lock()
	defer s.agents.mu.Unlock()
	if err := f(); err != nil {
		return err
	}
	return s.useRing()
}

// Protection says what the key file is encrypted under.
func (s *Store) Protection() keyring.Kind {
	s.agents.mu.Lock()
	defer s.agents.mu.Unlock()
	return s.ring.Kind()
}

// Protect encrypts the key file under what h gives from now on, or no longer, for nil. Where a passphrase
// protects it now, current must give that: else whoever can ask this process could have the key.
func (s *Store) Protect(h keyring.Holder, current keyring.Holder) error {
	if s.Protection() == keyring.KindPassphrase {
		if _, err := keyring.Open(filepath.Join(s.dir, keyring.FileName), current); err != nil {
			return err
		}
	}
	if err := s.changeRing(func() error { return s.ring.Protect(h) }); err != nil {
		return err
	}
	return s.change(&s.agents, func(*edit) ([]Change, error) {
		return []Change{{Event: EventProtected, Name: s.ring.Kind().String()}}, nil
	})
}

type rotation struct {
	s           *Store
	ctx         context.Context // of the call that it lives in
	progress    func(done, total int)
	done, total int
}

// count counts the entries of a ledger that are under an old key.
func (r *rotation) count(l *ledger) error {
	if l.prefix == prefixUsage { // its manifest alone is
		return nil
	}
	return r.s.view(l, func(v *view) error {
		for key := range v.m.pages {
			p, err := v.page(key)
			if err != nil {
				continue // refused before and after
			}
			for i := range p.entries {
				n, err := v.stale(key, &p.entries[i], math.MaxInt, nil)
				if err != nil {
					return err
				}
				r.total += n
			}
		}
		return nil
	})
}

// ledger re-seals what is under an old key, in one commit at least: the manifest is signed anew too.
func (r *rotation) ledger(l *ledger) error {
	var keys []string
	err := r.s.view(l, func(v *view) error {
		for key := range v.m.pages {
			if l.prefix != prefixUsage {
				keys = append(keys, key)
			}
		}
		return nil
	})
	for err == nil {
		if err = r.ctx.Err(); err != nil {
			break
		}
		n := 0
		err = r.s.change(l, func(e *edit) ([]Change, error) {
			var err error
			n, keys, err = e.reseal(keys)
			return []Change{{Event: eventRotating, Version: n}}, err
		})
		r.done += n
		r.progress(r.done, max(r.total, r.done))
		if len(keys) == 0 {
			break
		}
	}
	return err
}

// reseal re-seals a batch of what stands in the pages keys. It returns how many entries that were, and the
// pages that are still to be looked at.
func (e *edit) reseal(keys []string) (n int, rest []string, err error) {
	for len(keys) > 0 {
		p, err := e.page(keys[0])
		if err != nil {
			keys = keys[1:] // refused before and after
			continue
		}
		before := n
		for i := range p.entries {
			more, err := e.stale(keys[0], &p.entries[i], rotationBatch-n, e.renew)
			if n += more; err != nil {
				return n, nil, err
			}
		}
		if n == before {
			delete(e.dirty, keys[0]) // nothing was changed
		}
		if n >= rotationBatch {
			return n, keys, nil
		}
		keys = keys[1:]
	}
	return n, nil, nil
}

// A stored is one thing in the store that is sealed or encrypted under a key.
type stored struct {
	bucket, key []byte
	name        string // that a box is bound to
	raw         []byte
}

// stale calls f with at most limit of the things that en is about and that are under an old key, and keeps
// the digests that it returns. It returns how many f did, or all that there are for f nil. What was changed
// outside of torno is left.
func (v *view) stale(pageKey string, en *entry, limit int, f func(stored) (sum digest, done bool, err error)) (n int, err error) {
	for i := range en.digests {
		if n >= limit {
			break
		}
		bucket, key, name := v.l.place(pageKey, en, en.first+i)
		raw, err := v.stored(bucket, key, en.digests[i])
		if err != nil || keyOf(bucket, raw) == v.keys.newest().id || bytes.Equal(bucket, bucketSecrets) && isRevoked(raw) {
			continue
		}
		if f == nil {
			n++
			continue
		}
		sum, done, err := f(stored{bucket, key, name, raw})
		if err != nil {
			return n, err
		}
		if done {
			en.digests[i] = sum
			n++
		}
	}
	return n, nil
}

// renew puts what is stored under the newest key. What does not open, and so never did, is left.
func (e *edit) renew(s stored) (sum digest, done bool, err error) {
	raw, err := e.anew(s)
	if err != nil {
		return digest{}, false, nil
	}
	sum, err = e.put(s.bucket, s.key, raw)
	return sum, err == nil, err
}

// place returns where a version of an entry stands.
func (l *ledger) place(pageKey string, en *entry, version int) (bucket, key []byte, name string) {
	owner := pageKey[len(l.prefix):]
	switch {
	case l.prefix == prefixSessions:
		return bucketSessions, []byte(en.name), en.name
	case l.prefix == prefixSigning:
		return bucketSigning, []byte(en.name), en.name
	case en.name == trustedName:
		return bucketTrusted, []byte(owner), owner
	}
	return bucketSecrets, versionKey(owner, en.name, version), ""
}

// keyOf returns the id of the key that something stored is under.
func keyOf(bucket, raw []byte) string {
	if !bytes.Equal(bucket, bucketSecrets) {
		return boxKey(raw)
	}
	_, id, err := control.DecodeSealedMeta(raw)
	if err != nil {
		return ""
	}
	return id
}

// anew returns what is stored, under the newest key.
func (e *edit) anew(s stored) ([]byte, error) {
	k := e.keys.newest()
	if !bytes.Equal(s.bucket, bucketSecrets) {
		plain, err := e.keys.open(s.bucket, s.name, s.raw)
		if err != nil {
			return nil, err
		}
		defer clear(plain)
		return k.seal(s.bucket, s.name, plain), nil
	}
	sec, err := control.DecodeSealed(s.raw)
	if err != nil {
		return nil, err
	}
	value, err := e.keys.unseal(&sec)
	if err != nil {
		return nil, fmt.Errorf("%s of agent %s, version %d: %w", sec.Meta.Name, sec.Meta.Agent, sec.Meta.Version, err)
	}
	defer value.Wipe()
	sec.KeyID = k.id
	err = value.Use(func(b []byte) (err error) {
		sec.Sealed, err = k.private.Public().Seal(b, control.AssociatedData(sec.Meta, k.id))
		return err
	})
	if err != nil {
		return nil, err
	}
	return control.EncodeSealed(sec)
}
