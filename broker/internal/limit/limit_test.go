package limit

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// begun counts how many of n exchanges begin at once, and returns why the last one did not.
func begun(n int, limiters ...*Limiter) (count int, last *Exceeded) {
	for range n {
		u, err := Begin(limiters...)
		if err == nil {
			count++
			u.End()
			continue
		}
		errors.As(err, &last)
	}
	return count, last
}

func TestRate(t *testing.T) {
	tests := []struct {
		name          string
		bounds        control.Bounds
		burst, second int // how many begin at once, and a second later
		after         time.Duration
	}{
		{"five a second", control.Bounds{RequestsPerSecond: 5}, 5, 5, 200 * time.Millisecond},
		{"five a second, twenty at once", control.Bounds{RequestsPerSecond: 5, Burst: 20}, 20, 5, 200 * time.Millisecond},
		{"one in ten seconds", control.Bounds{RequestsPerSecond: 0.1}, 1, 0, 10 * time.Second},
		{"thousand a second", control.Bounds{RequestsPerSecond: 1000, Burst: 1}, 1, 1, time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := New(tt.bounds)
				got, last := begun(2000, l)
				if got != tt.burst || last.Reason != protocol.ReasonRateLimited || (last.After-tt.after).Abs() > time.Millisecond {
					t.Errorf("%d at once, then %v, again in %v", got, last, last.After)
				}
				time.Sleep(time.Second)
				if got, _ := begun(2000, l); got != tt.second {
					t.Errorf("%d after a second, want %d", got, tt.second)
				}
				time.Sleep(time.Hour)
				if got, _ := begun(2000, l); got != tt.burst {
					t.Errorf("%d after an hour, want %d", got, tt.burst)
				}
			})
		})
	}
}

// A minute of exchanges as fast as they come: rate times time, and the burst, is all that begins.
func TestRateOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(control.Bounds{RequestsPerSecond: 10, Burst: 30})
		total := 0
		for range 60_000 {
			n, _ := begun(1, l)
			total += n
			time.Sleep(time.Millisecond)
		}
		if total < 629 || total > 630 {
			t.Errorf("%d in a minute, want 600 and the burst of 30", total)
		}
	})
}

func TestConcurrent(t *testing.T) {
	l := New(control.Bounds{Concurrent: 3})
	var open []*Use
	for range 3 {
		u, err := Begin(l)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, u)
	}
	if n, last := begun(1, l); n != 0 || last.Reason != protocol.ReasonConcurrencyLimited || last.After != time.Second {
		t.Errorf("a fourth: %d, %v", n, last)
	}
	open[0].End()
	if n, _ := begun(1, l); n != 1 {
		t.Error("none after one has ended")
	}
	var most, now atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 200 {
				u, err := Begin(l)
				if err != nil {
					continue
				}
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				now.Add(-1)
				u.End()
			}
		})
	}
	wg.Wait()
	if most.Load() > 1 {
		t.Errorf("%d beside the two that are open", most.Load())
	}
}

func TestBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(control.Bounds{MiBUpPerHour: 1, MiBDownPerHour: 2})
		u, err := Begin(l)
		if err != nil {
			t.Fatal(err)
		}
		up, down := 0, 0
		for u.Up(10<<10) == nil {
			up += 10 << 10
		}
		for u.Down(10<<10) == nil {
			down += 10 << 10
		}
		if up != 102*10<<10 || down != 204*10<<10 {
			t.Errorf("%d up, %d down", up, down)
		}
		u.End()
		n, last := begun(1, l)
		if n != 0 || last.Reason != protocol.ReasonBytesLimited || last.After < 3*time.Minute || last.After > 4*time.Minute {
			t.Errorf("another: %d, %v, again in %v", n, last, last.After) // 64 KiB at 1 MiB an hour
		}
		time.Sleep(last.After + time.Millisecond)
		if n, last := begun(1, l); n != 1 {
			t.Errorf("after that: %v", last)
		}
	})
}

// What one limiter refuses costs the others nothing.
func TestAllOrNone(t *testing.T) {
	session, rule := New(control.Bounds{RequestsPerSecond: 0.001, Burst: 5, Concurrent: 5}), New(control.Bounds{RequestsPerSecond: 0.001, Burst: 2})
	if n, _ := begun(100, session, nil, rule); n != 2 {
		t.Errorf("%d within both, want 2", n)
	}
	if n, last := begun(100, session); n != 3 || last.Reason != protocol.ReasonRateLimited {
		t.Errorf("%d more within the session's, want 3; %v", n, last)
	}
}

func TestNothingIsBounded(t *testing.T) {
	u, err := Begin(New(control.Bounds{}), nil)
	if err != nil || u != nil || u.Bytes() || u.Up(1<<40) != nil || u.Down(1<<40) != nil {
		t.Errorf("%+v, %v", u, err)
	}
	u.End()
}
