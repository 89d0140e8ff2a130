// Package limit bounds how much a session may ask for: how often, how much at once and how many bytes. Each bound holds
// for a session, or for those of its exchanges that a rule matches; an exchange must be within all that apply to it.
package limit

import (
	"math"
	"sync"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// admission is how many bytes must be left for an exchange to begin: one that could carry next to nothing would be cut.
const admission = 64 << 10

// A Limiter holds one set of bounds. It is safe for concurrent use.
type Limiter struct {
	concurrent int

	mu       sync.Mutex
	open     int
	requests bucket
	up, down bucket // bytes
}

// New returns a limiter for b, or nil if that bounds nothing. Without a burst a second's worth may come at once.
func New(b control.Bounds) *Limiter {
	if b == (control.Bounds{}) {
		return nil
	}
	l := &Limiter{concurrent: b.Concurrent}
	if b.RequestsPerSecond > 0 {
		burst := float64(b.Burst)
		if burst == 0 {
			burst = max(1, math.Ceil(b.RequestsPerSecond))
		}
		l.requests = newBucket(b.RequestsPerSecond, burst)
	}
	l.up, l.down = hourly(b.MiBUpPerHour), hourly(b.MiBDownPerHour)
	return l
}

func hourly(mib int) bucket {
	size := float64(mib << 20)
	return newBucket(size/time.Hour.Seconds(), size)
}

// An Exceeded error says which bound an exchange is beyond, and when it may be worth another try.
type Exceeded struct {
	Reason protocol.Reason
	After  time.Duration
}

func (e *Exceeded) Error() string { return e.Reason.String() }

// check reports which bound one more exchange would be beyond, if any. The caller holds mu.
func (l *Limiter) check(now time.Time) *Exceeded {
	if l.concurrent > 0 && l.open >= l.concurrent {
		return &Exceeded{protocol.ReasonConcurrencyLimited, time.Second}
	}
	if d := l.requests.wait(now, 1); d > 0 {
		return &Exceeded{protocol.ReasonRateLimited, d}
	}
	if d := max(l.up.wait(now, admission), l.down.wait(now, admission)); d > 0 {
		return &Exceeded{protocol.ReasonBytesLimited, d}
	}
	return nil
}

// A Use is one exchange within its limiters. A nil Use is within none. Up and Down may be called by one goroutine each.
type Use struct {
	limiters []*Limiter
	bytes    bool
}

// Begin counts an exchange on all of limiters, or on none: the error is an *Exceeded. End the use when the exchange has
// ended. Nil limiters bound nothing.
func Begin(limiters ...*Limiter) (*Use, error) {
	now := time.Now()
	u := &Use{}
	for _, l := range limiters {
		if l == nil {
			continue
		}
		if err := l.begin(now); err != nil {
			u.giveBack()
			return nil, err
		}
		u.limiters = append(u.limiters, l)
		u.bytes = u.bytes || l.up.bounded() || l.down.bounded()
	}
	if len(u.limiters) == 0 {
		return nil, nil
	}
	return u, nil
}

func (l *Limiter) begin(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.check(now); e != nil {
		return e
	}
	l.open++
	l.requests.left--
	return nil
}

// giveBack undoes what Begin has counted: the exchange does not happen.
func (u *Use) giveBack() {
	for _, l := range u.limiters {
		l.mu.Lock()
		l.open--
		l.requests.left++
		l.mu.Unlock()
	}
}

// End ends the use.
func (u *Use) End() {
	if u == nil {
		return
	}
	for _, l := range u.limiters {
		l.mu.Lock()
		l.open--
		l.mu.Unlock()
	}
}

// Bytes reports whether the exchange's bytes are bounded.
func (u *Use) Bytes() bool { return u != nil && u.bytes }

// Up takes n bytes that are about to go upstream. The error is an *Exceeded: they must not go.
func (u *Use) Up(n int) error { return u.take(n, func(l *Limiter) *bucket { return &l.up }) }

// Down takes n bytes that are about to go to the workload. The error is an *Exceeded: they must not go.
func (u *Use) Down(n int) error { return u.take(n, func(l *Limiter) *bucket { return &l.down }) }

func (u *Use) take(n int, which func(*Limiter) *bucket) error {
	if !u.Bytes() || n <= 0 {
		return nil
	}
	now := time.Now()
	for _, l := range u.limiters {
		if err := l.takeBytes(which(l), now, float64(n)); err != nil {
			return err // what the limiters before it have taken stays taken: the exchange is over
		}
	}
	return nil
}

func (l *Limiter) takeBytes(b *bucket, now time.Time, n float64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := b.wait(now, n); d > 0 {
		return &Exceeded{protocol.ReasonBytesLimited, d}
	}
	b.left -= n
	return nil
}
