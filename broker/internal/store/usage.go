package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
)

// A Counter counts the requests that one version of a secret is used for. Counting touches memory alone;
// FlushUsage writes what was counted. It is safe for concurrent use.
type Counter struct {
	uses atomic.Uint64
	last atomic.Int64 // nanoseconds since 1970; 0: never

	written uint64 // uses as they are on disk; guarded by usage.mu
}

// Used counts one use.
func (c *Counter) Used(now time.Time) {
	c.uses.Add(1)
	c.last.Store(now.UnixNano())
}

func (c *Counter) values() (uses uint64, last time.Time) {
	if n := c.last.Load(); n != 0 {
		last = time.Unix(0, n).UTC()
	}
	return c.uses.Load(), last
}

// usage holds the counters of what this process has opened. What is on disk is neither in the manifest nor
// authenticated: it changes all the time, and nothing is decided by it.
type usage struct {
	mu       sync.Mutex
	counters map[string]*Counter // by versionKey
}

const usageSize = 16 // bytes: uses, last

// Counter returns the counter of one version, with what was counted before.
func (s *Store) Counter(agent, name string, version int) *Counter {
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	key := versionKey(agent, name, version)
	if c := s.usage.counters[string(key)]; c != nil {
		return c
	}
	c := &Counter{}
	_ = s.file.read(func(tx *bbolt.Tx) error { // an unreadable count begins anew
		if b := tx.Bucket(bucketUsage).Get(key); len(b) == usageSize {
			c.written = binary.BigEndian.Uint64(b)
			c.uses.Store(c.written)
			c.last.Store(int64(binary.BigEndian.Uint64(b[8:])))
		}
		return nil
	})
	if s.usage.counters == nil {
		s.usage.counters = map[string]*Counter{}
	}
	s.usage.counters[string(key)] = c
	return c
}

// of returns the count of one version, in memory or on disk.
func (u *usage) of(tx *bbolt.Tx, agent, name string, version int) (uses uint64, last time.Time) {
	key := versionKey(agent, name, version)
	u.mu.Lock()
	c := u.counters[string(key)]
	u.mu.Unlock()
	if c != nil {
		return c.values()
	}
	if b := tx.Bucket(bucketUsage).Get(key); len(b) == usageSize {
		uses, last = binary.BigEndian.Uint64(b), time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))).UTC()
	}
	return uses, last
}

// total sums up the counts of every version of a name that is there.
func (u *usage) total(tx *bbolt.Tx, agent string, en *entry) (uses uint64, last time.Time) {
	for n := en.first; n <= en.last(); n++ {
		more, at := u.of(tx, agent, en.name, n)
		uses += more
		if at.After(last) {
			last = at
		}
	}
	return uses, last
}

// forget drops the counters of a name that is deleted.
func (u *usage) forget(tx *bbolt.Tx, agent, name string) error {
	prefix := versionKey(agent, name, 0)
	prefix = prefix[:len(prefix)-8]
	u.mu.Lock()
	defer u.mu.Unlock()
	for key := range u.counters {
		if bytes.HasPrefix([]byte(key), prefix) {
			delete(u.counters, key)
		}
	}
	c := tx.Bucket(bucketUsage).Cursor()
	var err error
	for k, _ := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix) && err == nil; k, _ = c.Seek(prefix) {
		err = c.Delete()
	}
	return err
}

// FlushUsage writes what was counted since it was last called; where nothing was, it touches no disk.
func (s *Store) FlushUsage() error {
	s.usage.mu.Lock()
	dirty := map[string]*Counter{}
	for key, c := range s.usage.counters {
		if c.uses.Load() != c.written {
			dirty[key] = c
		}
	}
	s.usage.mu.Unlock()
	if len(dirty) == 0 {
		return nil
	}
	wrote := map[*Counter]uint64{}
	err := s.file.write(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucketUsage)
		var errs []error
		for key, c := range dirty {
			uses := c.uses.Load()
			v := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uses), uint64(c.last.Load()))
			errs = append(errs, b.Put([]byte(key), v))
			wrote[c] = uses
		}
		return errors.Join(errs...)
	})
	if err != nil {
		return err
	}
	s.usage.mu.Lock()
	defer s.usage.mu.Unlock()
	for c, uses := range wrote {
		c.written = uses
	}
	return nil
}
