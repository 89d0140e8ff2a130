// Package store keeps a broker's state in one file: sealed secrets by agent, name and version, approved
// agent files, session records, and the audit's signing seed. Values stay sealed; everything else that must not be edited is
// encrypted under a key derived from the broker's own. A manifest, authenticated under another, says what
// is there, so that an edit, a swap, a deletion or an older copy put back is found and named.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.etcd.io/bbolt"

	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol/seal"
)

// Files in the state directory, beside the key.
const (
	dataFile = "store.db"
	lockFile = "lock"
)

// format is the layout of dataFile; another layout gets another number.
const format = "3"

var (
	bucketMeta     = []byte("meta")     // "format" → format; a ledger's name → its manifest
	bucketPages    = []byte("pages")    // a page's key → page
	bucketSecrets  = []byte("secrets")  // agent 0 name 0 version (8 bytes) → control.SealedSecret, as control.EncodeSealed writes it
	bucketTrusted  = []byte("trusted")  // agent → control.TrustedFile, boxed
	bucketSessions = []byte("sessions") // id → record, boxed
	bucketSigning  = []byte("signing")  // "audit" → seed, boxed
)

var buckets = [][]byte{bucketMeta, bucketPages, bucketSecrets, bucketTrusted, bucketSessions, bucketSigning}

// A Store is an open state directory. It is safe for concurrent use. Every change is on disk before the
// call that made it returns.
type Store struct {
	dir  string
	file *file
	lock *os.File

	agents, sessions, signing ledger

	ring     *keyring.Ring // held by the one who holds agents.mu
	current  atomic.Pointer[keys]
	rotating sync.Mutex // held while Rotate runs
	usage    usage
	index    index

	// Held by the one who holds agents.mu.
	anchor  Anchor
	pending *Commit // committed, and not yet recorded
}

// Open opens the state in dir, or makes it: the directory with mode 0700, a new private key in a file
// of mode 0600. holders open the key file, as keyring.Open says. A *BusyError means that another process has
// the directory open, a *DirError that it is not ours alone.
func Open(dir string, holders ...keyring.Holder) (*Store, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	s := newStore(dir)
	s.lock = lock
	if err := s.open(holders); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func newStore(dir string) *Store {
	s := &Store{dir: dir}
	s.agents.name, s.agents.prefix = "agents", prefixAgents
	s.sessions.name, s.sessions.prefix = "sessions", prefixSessions
	s.signing.name, s.signing.prefix = "signing", prefixSigning
	s.usage.ledger.name, s.usage.ledger.prefix = "usage", prefixUsage
	return s
}

func (s *Store) open(holders []keyring.Holder) error {
	if err := s.openKeys(holders); err != nil {
		return err
	}
	var err error
	if s.file, err = openFile(filepath.Join(s.dir, dataFile), false); err != nil {
		return err
	}
	s.file.foreign = s.index.forget
	if err := s.prepare(); err != nil {
		return err
	}
	for _, l := range s.ledgers() {
		if err := s.view(l, func(*view) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

// openKeys opens the key file. It is made with the store, and never when there is a store without it.
func (s *Store) openKeys(holders []keyring.Holder) error {
	path := filepath.Join(s.dir, keyring.FileName)
	if err := keyring.Sweep(path); err != nil {
		return err
	}
	var err error
	s.ring, err = keyring.Open(path, holders...)
	if errors.Is(err, keyring.ErrNoKey) {
		if _, statErr := os.Lstat(filepath.Join(s.dir, dataFile)); !errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("the store in %q has lost its key: %w", s.dir, err)
		}
		s.ring, err = keyring.Create(path)
	}
	if err != nil {
		return err
	}
	return s.useRing()
}

// useRing makes the ring's keys the store's.
func (s *Store) useRing() error {
	ks, err := newKeys(s.ring.Keys())
	if err != nil {
		return err
	}
	for _, k := range ks {
		k.private.Bytes().Lock()
	}
	s.current.Store(&ks)
	return nil
}

// keys returns the keys of this moment. Who reads the store with them takes them before the transaction
// begins: nothing in it is then older than the keys.
func (s *Store) keys() keys { return *s.current.Load() }

// prepare makes what a new store has, or checks the format of one that is there.
func (s *Store) prepare() error {
	made := false
	err := s.file.read(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketMeta)
		if made = b != nil; !made {
			return nil
		}
		if have := string(b.Get([]byte("format"))); have != format {
			return fmt.Errorf("the store has format %q, this torno reads %q", have, format)
		}
		return nil
	})
	if err != nil || made {
		return err
	}
	return s.file.write(s.begin)
}

// begin makes what every store has.
func (s *Store) begin(tx *bbolt.Tx) error {
	for _, name := range buckets {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	meta, k := tx.Bucket(bucketMeta), s.keys().newest()
	for _, l := range s.ledgers() {
		empty := &manifest{ledger: l.name, keyID: k.id}
		if err := meta.Put([]byte(l.name), empty.encode(&k.mac)); err != nil {
			return err
		}
	}
	return meta.Put([]byte("format"), []byte(format))
}

func (s *Store) ledgers() []*ledger {
	return []*ledger{&s.agents, &s.sessions, &s.signing, &s.usage.ledger}
}

// Public returns the key that secrets are sealed to.
func (s *Store) Public() seal.PublicKey { return s.keys().newest().private.Public() }

// Close closes the store and gives up the lock.
func (s *Store) Close() error {
	var err error
	if s.file != nil {
		err = errors.Join(s.FlushUsage(), s.file.close())
	}
	return errors.Join(err, s.lock.Close())
}
