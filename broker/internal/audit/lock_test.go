package audit

import (
	"errors"
	"sync"
	"testing"
	"time"
)

// A lock lets one in at a time, and nobody is forgotten.
func TestLock(t *testing.T) {
	var l lock
	l.init()
	var wg sync.WaitGroup
	n := 0
	const each = 20_000
	for i := range 8 {
		wg.Go(func() {
			for range each {
				if i%2 == 0 {
					l.Lock()
				} else if !l.LockSoon() {
					t.Error("nobody was stuck")
					return
				}
				n++
				l.Unlock()
			}
		})
	}
	wg.Wait()
	if n != 8*each {
		t.Errorf("%d, want %d", n, 8*each)
	}
}

// Attack 37: where a write does not return, what would begin is refused, also what waits already; what must be recorded waits.
func TestAttack37WriteThatHangs(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{MaxLag: 200 * time.Millisecond, RecordsPerSecond: plenty})
	id := begins(t, l, nil)
	l.mu.Lock() // as it is while a line is written
	refused := make(chan error, 8)
	for range cap(refused) {
		go func() {
			_, err := l.Begin(request("/"))
			refused <- err
		}()
	}
	for range cap(refused) {
		if err := <-refused; !errors.Is(err, ErrSlow) {
			t.Errorf("who waited is told %v", err)
		}
	}
	for what, f := range map[string]func() error{
		"begin": func() error { _, err := l.Begin(request("/")); return err },
		"event": func() error { return l.Event(&Record{Event: "event"}) },
		"act": func() error {
			return l.Act(&Record{Event: "act"}, func() error { t.Error("it was done"); return nil })
		},
	} {
		began := time.Now()
		if err := f(); !errors.Is(err, ErrSlow) {
			t.Errorf("%s: %v", what, err)
		}
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("%s was refused after %v", what, d)
		}
	}
	waits := make(chan error, 2)
	go func() { waits <- l.End(id, &Outcome{Status: 200}) }()
	go func() { waits <- l.Event(&Record{Event: "event", Free: true}) }()
	select {
	case err := <-waits:
		t.Errorf("what must be recorded does not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	l.mu.Unlock()
	for range cap(waits) {
		if err := <-waits; err != nil {
			t.Error(err)
		}
	}
	begins(t, l, nil)
}

// BenchmarkCrowd is BenchmarkExchange by many at once.
func BenchmarkCrowd(b *testing.B) {
	l := openLog(b, b.TempDir(), Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	defer l.Close()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		r, o := request("/v1/messages"), &Outcome{Status: 200, Upstream: "192.0.2.1:443"}
		for pb.Next() {
			id, err := l.Begin(r)
			if err == nil {
				err = l.End(id, o)
			}
			if err != nil {
				b.Error(err)
				return
			}
		}
	})
}
