// Package source keeps the secrets that were fetched from where they are kept, in memory alone: a Keeper fetches each
// once for all who need it, looks it up again while somebody uses it, ahead of its end or when the source tells of a
// change, and forgets it soon after.
package source

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"time"

	"torno.internal/protocol/secret"
)

// Limits on what is kept.
const (
	maxKept    = 4096             // secrets
	fresh      = 10 * time.Second // what nobody uses is fetched anew after so long, and forgotten after keep
	keep       = time.Minute
	minRefresh = time.Second // between two fetches of one secret that is used
	minBackOff = time.Second // after a fetch that failed, doubled each time
	maxBackOff = time.Minute
	final      = 10 * time.Second // after one that said that there is nothing to be had
	settle     = 2 * time.Second  // until a source that watches has begun to
)

// A Fetcher fetches secrets, and tells of changes.
type Fetcher interface {
	// Fetch returns the newest version of the secret that is at source.
	Fetch(ctx context.Context, source string) (Fetched, error)
	// Watch calls changed when it may be another, until ctx ends or it can't. watches is false where the source
	// never tells.
	Watch(ctx context.Context, source string, changed func()) (watches bool, err error)
	// Refresh returns after how long a secret is looked up again that the source does not tell of.
	Refresh(source string) time.Duration
	// Final reports whether err says that there is no such secret any more.
	Final(err error) bool
}

// A Fetched is what a source returned. Whoever gets one wipes the value.
type Fetched struct {
	Value      secret.Value
	Version    string    // in the source's words; may be empty
	Expires    time.Time // zero: never
	Generation uint64    // by a Keeper: another for each value that there ever was
}

func (f *Fetched) expired(now time.Time) bool { return !f.Expires.IsZero() && !now.Before(f.Expires) }

// A Keeper is safe for concurrent use. Close it when done.
type Keeper struct {
	fetcher Fetcher
	changed func(source string) // told of each change of a secret that is used, its end included

	ctx    context.Context // of all fetches
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu         sync.Mutex
	closed     bool
	kept       map[string]*entry
	generation uint64
}

// An entry is one secret.
type entry struct {
	is      *Fetched // nil: none is known yet, or there is none any more
	err     error    // of the last fetch, if it failed
	fetched time.Time
	retry   time.Time // not before, after a fetch that failed
	backOff time.Duration
	flight  chan struct{} // closed when the fetch that is under way has ended; nil: none is
	used    time.Time
	users   int
	stop    context.CancelFunc // of what looks after it; nil: nobody uses it
	wake    chan struct{}      // holds one wish to look it up
}

// New returns a Keeper. changed must not call it and wait.
func New(f Fetcher, changed func(source string)) *Keeper {
	k := &Keeper{fetcher: f, changed: changed, kept: map[string]*entry{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	return k
}

// Close ends all fetches and wipes what is kept.
func (k *Keeper) Close() {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	k.cancel()
	k.wg.Wait()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, e := range k.kept {
		e.drop()
	}
	clear(k.kept)
}

// The errors of a Keeper itself.
var (
	errClosed = errors.New("the broker is ending")
	errFull   = errors.New("too many different secrets are fetched")
)

// Get returns the newest version that is known of the secret at source, in memory of its own. It is fetched where none is
// known that is good.
func (k *Keeper) Get(ctx context.Context, source string) (Fetched, error) {
	for range 2 { // a version that was just fetched may have ended by the time that we see it
		got, flight, err := k.look(source, time.Now())
		if flight == nil {
			return got, err
		}
		select {
		case <-flight:
		case <-ctx.Done():
			return Fetched{}, context.Cause(ctx)
		}
	}
	got, err := k.Peek(source)
	return got, err
}

// Peek is Get without a fetch.
func (k *Keeper) Peek(source string) (Fetched, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.kept[source]; e != nil {
		return e.answer(time.Now())
	}
	return Fetched{}, errUnknown
}

var errUnknown = errors.New("it has not been fetched")

// answer returns what is known.
func (e *entry) answer(now time.Time) (Fetched, error) {
	switch {
	case e.is != nil && !e.is.expired(now):
		f := *e.is
		f.Value = secret.New(f.Value.AppendTo(nil))
		return f, nil
	case e.err != nil:
		return Fetched{}, e.err
	case e.is != nil:
		return Fetched{}, errExpired
	}
	return Fetched{}, errUnknown
}

var errExpired = errors.New("it has expired, and there is no newer one")

// look returns what is known, or the fetch to wait for.
func (k *Keeper) look(source string, now time.Time) (Fetched, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.entry(source, now)
	if err != nil {
		return Fetched{}, nil, err
	}
	e.used = now
	good := e.is != nil && !e.is.expired(now) && (e.users > 0 || now.Sub(e.fetched) < fresh)
	switch {
	case good:
	case e.flight != nil:
		return Fetched{}, e.flight, nil
	case now.Before(e.retry):
	default:
		k.start(source, e)
		return Fetched{}, e.flight, nil
	}
	got, err := e.answer(now)
	return got, nil, err
}

// entry returns the entry of source; k.mu is held.
func (k *Keeper) entry(source string, now time.Time) (*entry, error) {
	if k.closed {
		return nil, errClosed
	}
	e := k.kept[source]
	if e == nil {
		if k.forget(now); len(k.kept) >= maxKept {
			return nil, errFull
		}
		e = &entry{wake: make(chan struct{}, 1)}
		k.kept[source] = e
	}
	return e, nil
}

// forget drops what nobody has used for a while; k.mu is held.
func (k *Keeper) forget(now time.Time) {
	for source, e := range k.kept {
		if e.users == 0 && e.flight == nil && now.Sub(e.used) > keep {
			e.drop()
			delete(k.kept, source)
		}
	}
}

// drop wipes the value.
func (e *entry) drop() {
	if e.is != nil {
		e.is.Value.Wipe()
		e.is = nil
	}
}

// start begins a fetch; k.mu is held.
func (k *Keeper) start(source string, e *entry) {
	flight := make(chan struct{})
	e.flight = flight
	k.wg.Go(func() {
		defer close(flight)
		got, err := k.fetcher.Fetch(k.ctx, source)
		if k.land(e, got, err) {
			k.changed(source)
		}
	})
}

// land ends a fetch, and reports whether those who use the secret are to be told.
func (k *Keeper) land(e *entry, got Fetched, err error) (tell bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e.flight, e.err, e.fetched = nil, err, time.Now()
	if k.closed {
		got.Value.Wipe()
		return false
	}
	if err != nil {
		return k.landError(e, err)
	}
	e.backOff, e.retry = 0, time.Time{}
	if e.is != nil && same(e.is, &got) {
		tell = !e.is.Expires.Equal(got.Expires)
		e.is.Expires, e.is.Version = got.Expires, got.Version
		got.Value.Wipe()
		return tell && e.users > 0
	}
	e.drop()
	k.generation++
	got.Generation = k.generation
	e.is = &got
	return e.users > 0
}

// landError ends a fetch that failed. What is known stays good until it expires, unless the source says that there is
// nothing any more.
func (k *Keeper) landError(e *entry, err error) (tell bool) {
	e.backOff = min(max(2*e.backOff, minBackOff), maxBackOff)
	e.retry = time.Now().Add(e.backOff)
	if !k.fetcher.Final(err) {
		return false
	}
	e.retry = time.Now().Add(final)
	tell = e.is != nil && e.users > 0
	e.drop()
	return tell
}

// same reports whether both are one version.
func same(a, b *Fetched) bool {
	equal := false
	_ = a.Value.Use(func(x []byte) error {
		return b.Value.Use(func(y []byte) error {
			equal = bytes.Equal(x, y)
			return nil
		})
	})
	return equal
}
