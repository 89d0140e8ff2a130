package source

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

// Use has the secret at source looked after until release is called: it is looked up again ahead of its end, when the
// source tells of a change, and once in a while where it does not tell.
func (k *Keeper) Use(source string) (release func()) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, err := k.entry(source, time.Now())
	if err != nil {
		return func() {} // Get says so too
	}
	if e.users++; e.users == 1 {
		ctx, cancel := context.WithCancel(k.ctx)
		e.stop = cancel
		k.wg.Go(func() { k.lookAfter(ctx, source, e) })
		k.wg.Go(func() { k.watch(ctx, source, e) })
	}
	return sync.OnceFunc(func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if e.users--; e.users == 0 {
			e.stop()
			e.used = time.Now()
		}
	})
}

// lookAfter looks the secret up until ctx ends.
func (k *Keeper) lookAfter(ctx context.Context, source string, e *entry) {
	for {
		timer := time.NewTimer(k.next(source, e))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		case <-e.wake:
			timer.Stop()
		}
		flight := k.refresh(source, e)
		if flight == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-flight:
		}
		select { // however often the source says that it changes
		case <-ctx.Done():
			return
		case <-time.After(minRefresh):
		}
	}
}

// refresh begins a fetch, or returns that which is under way.
func (k *Keeper) refresh(source string, e *entry) <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed || e.is == nil && e.err == nil && e.flight == nil {
		return nil // nobody has asked for it yet: the first who does fetches it
	}
	if e.flight == nil {
		k.start(source, e)
	}
	return e.flight
}

// next returns how long the secret need not be looked up: until two thirds of what is left of its life are over, with
// some chance in it, so that not all are looked up at once.
func (k *Keeper) next(source string, e *entry) time.Duration {
	wait := k.fetcher.Refresh(source)
	k.mu.Lock()
	defer k.mu.Unlock()
	now := time.Now()
	if e.is != nil && !e.is.Expires.IsZero() {
		wait = min(wait, e.is.Expires.Sub(now)*2/3)
	}
	if e.err != nil {
		wait = min(wait, max(e.retry.Sub(now), minBackOff))
	}
	wait -= time.Duration(rand.Float64() * 0.1 * float64(wait))
	return max(wait, minRefresh)
}

// watch lets the source tell of changes, until ctx ends.
func (k *Keeper) watch(ctx context.Context, source string, e *entry) {
	backOff := minBackOff
	for ctx.Err() == nil {
		began := time.Now()
		settled := time.AfterFunc(settle, e.wish) // what changed before it watched it can't tell
		watches, err := k.fetcher.Watch(ctx, source, e.wish)
		settled.Stop()
		if !watches && err == nil {
			return
		}
		if time.Since(began) > maxBackOff {
			backOff = minBackOff
		}
		select {
		case <-ctx.Done():
		case <-time.After(backOff):
		}
		backOff = min(2*backOff, maxBackOff)
	}
}

// wish has the secret looked up.
func (e *entry) wish() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
