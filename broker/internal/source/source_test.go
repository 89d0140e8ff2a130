package source

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol/secret"
)

var (
	errDown = errors.New("down")
	errGone = errors.New("gone")
)

// A shelf is where secrets are kept.
type shelf struct {
	mu      sync.Mutex
	value   string
	version string
	expires time.Duration // from each fetch on; 0: never
	err     error
	watches bool
	slow    time.Duration
	told    func()

	fetches atomic.Int64
	changes atomic.Int64
	refresh time.Duration
}

func (s *shelf) Fetch(ctx context.Context, source string) (Fetched, error) {
	s.fetches.Add(1)
	select {
	case <-time.After(s.slow):
	case <-ctx.Done():
		return Fetched{}, ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return Fetched{}, s.err
	}
	f := Fetched{Value: secret.New([]byte(s.value)), Version: s.version}
	if s.expires > 0 {
		f.Expires = time.Now().Add(s.expires)
	}
	return f, nil
}

func (s *shelf) Watch(ctx context.Context, _ string, changed func()) (bool, error) {
	if !s.watches {
		return false, nil
	}
	s.mu.Lock()
	s.told = changed
	s.mu.Unlock()
	<-ctx.Done()
	return true, ctx.Err()
}

func (s *shelf) Refresh(string) time.Duration { return s.refresh }

func (s *shelf) Final(err error) bool { return errors.Is(err, errGone) }

func (s *shelf) set(value string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.value, s.version, s.err = value, s.version+"'", err
}

func newKeeper(t *testing.T, s *shelf) *Keeper {
	if s.refresh == 0 {
		s.refresh = 5 * time.Minute
	}
	k := New(s, func(string) { s.changes.Add(1) })
	t.Cleanup(k.Close)
	return k
}

func text(f Fetched) string { return string(f.Value.AppendTo(nil)) }

func get(t *testing.T, k *Keeper, want string) Fetched {
	t.Helper()
	f, err := k.Get(t.Context(), "p:r")
	if err != nil || text(f) != want {
		t.Errorf("%q, %v; want %q", text(f), err, want)
	}
	return f
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one", slow: time.Second}
		k := newKeeper(t, s)
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() { get(t, k, "one") })
		}
		all.Wait()
		if n := s.fetches.Load(); n != 1 {
			t.Errorf("%d fetches", n)
		}
		if _, err := k.Peek("p:other"); err == nil {
			t.Error("a secret that was never fetched")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := k.Get(ctx, "p:other"); !errors.Is(err, context.Canceled) {
			t.Errorf("who does not wait gets %v", err)
		}
	})
}

// Values that nobody uses are fetched anew after a while, and forgotten soon after.
func TestForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one"}
		k := newKeeper(t, s)
		one := get(t, k, "one")
		s.set("two", nil)
		get(t, k, "one")
		time.Sleep(fresh + time.Second)
		if two := get(t, k, "two"); two.Generation == one.Generation {
			t.Error("two values of one generation")
		}
		if text(one) != "one" {
			t.Error("what was given out is the Keeper's own")
		}
		time.Sleep(keep + time.Second)
		if _, err := k.Get(t.Context(), "p:other"); err != nil {
			t.Error(err)
		}
		if _, err := k.Peek("p:r"); err == nil {
			t.Error("it is kept on")
		}
		for i := range maxKept + 10 {
			if _, err := k.Get(t.Context(), fmt.Sprint("p:", i)); err != nil && i < maxKept-2 {
				t.Fatalf("%d: %v", i, err)
			}
		}
		if len(k.kept) > maxKept {
			t.Errorf("%d are kept", len(k.kept))
		}
	})
}

// Values that are used are looked up again, and who uses them is told.
func TestLookedAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one"}
		k := newKeeper(t, s)
		release, other := k.Use("p:r"), k.Use("p:r")
		get(t, k, "one")
		s.set("two", nil)
		time.Sleep(4 * time.Minute)
		get(t, k, "one")
		time.Sleep(2 * time.Minute)
		get(t, k, "two")
		if n := s.changes.Load(); n != 2 { // the first is one, too
			t.Errorf("told of %d changes", n)
		}
		release()
		release()
		s.set("three", nil)
		time.Sleep(6 * time.Minute)
		get(t, k, "three")
		other()
		n := s.fetches.Load()
		time.Sleep(time.Hour)
		if s.fetches.Load() != n {
			t.Error("it is looked up for nobody")
		}
	})
}

// Leases are renewed ahead of their ends, and the value stays the same.
func TestRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one", expires: time.Minute}
		k := newKeeper(t, s)
		defer k.Use("p:r")()
		first := get(t, k, "one")
		for range 100 {
			time.Sleep(30 * time.Second)
			if f := get(t, k, "one"); !f.Expires.After(time.Now()) || f.Generation != first.Generation {
				t.Fatalf("%+v", f)
			}
		}
		s.set("", errDown)
		time.Sleep(10 * time.Second)
		get(t, k, "one") // while it lasts
		time.Sleep(time.Minute)
		if f, err := k.Get(t.Context(), "p:r"); err == nil {
			t.Errorf("%q is good after its end", text(f))
		}
		s.set("two", nil)
		time.Sleep(2 * time.Minute)
		get(t, k, "two")
	})
}

// A source that fails is left alone for a while, longer each time.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{err: errDown}
		k := newKeeper(t, s)
		for range 1000 {
			if _, err := k.Get(t.Context(), "p:r"); !errors.Is(err, errDown) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if n := s.fetches.Load(); n > 8 {
			t.Errorf("%d fetches in 100 seconds", n)
		}
		s.set("one", nil)
		time.Sleep(maxBackOff)
		get(t, k, "one")
	})
}

// What the source says is gone is gone at once.
func TestGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one", watches: true}
		k := newKeeper(t, s)
		defer k.Use("p:r")()
		get(t, k, "one")
		synctest.Wait()
		before := s.changes.Load()
		s.set("", errGone)
		s.told()
		time.Sleep(5 * time.Second)
		if _, err := k.Peek("p:r"); !errors.Is(err, errGone) {
			t.Error(err)
		}
		if n := s.changes.Load() - before; n != 1 {
			t.Errorf("told %d times", n)
		}
		s.set("two", nil)
		time.Sleep(final + 2*time.Second)
		get(t, k, "two")
	})
}

// A source that says that all changes all the time is not asked all the time.
func TestWatchedOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one", watches: true}
		k := newKeeper(t, s)
		defer k.Use("p:r")()
		get(t, k, "one")
		synctest.Wait()
		for range 1000 {
			s.told()
			time.Sleep(10 * time.Millisecond)
		}
		if n := s.fetches.Load(); n > 12 {
			t.Errorf("%d fetches in 10 seconds", n)
		}
	})
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &shelf{value: "one", slow: time.Hour}
		k := newKeeper(t, s)
		release := k.Use("p:r")
		go func() {
			if _, err := k.Get(t.Context(), "p:r"); err == nil {
				t.Error("a secret of a Keeper that was closed")
			}
		}()
		synctest.Wait()
		k.Close()
		release()
		if _, err := k.Get(t.Context(), "p:r"); !errors.Is(err, errClosed) {
			t.Error(err)
		}
		k.Use("p:r")()
	})
}
