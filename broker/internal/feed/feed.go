// Package feed tells subscribers what happens in the broker, as it happens. Nobody waits for a subscriber: one that does
// not keep up is cut off, and knows it.
package feed

import (
	"errors"
	"slices"
	"sync"
	"time"

	"torno.internal/protocol/control"
)

// Bounds.
const (
	MaxSubscribers = 32
	Buffer         = 256 // events that wait for one subscriber
)

// ErrFull means that there are MaxSubscribers already.
var ErrFull = errors.New("too many subscribers")

// A Feed is ready for use. It is safe for concurrent use.
type Feed struct {
	mu   sync.Mutex
	seq  uint64
	subs []*Subscription
}

// A Subscription is one subscriber's.
type Subscription struct {
	feed   *Feed
	wanted func(*control.Event) bool
	events chan control.Event
}

// Subscribe returns a subscription to the events that wanted holds for; nil wants all. wanted must not block. Close the
// subscription when done. The error matches ErrFull.
func (f *Feed) Subscribe(wanted func(*control.Event) bool) (*Subscription, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subs) >= MaxSubscribers {
		return nil, ErrFull
	}
	s := &Subscription{f, wanted, make(chan control.Event, Buffer)}
	f.subs = append(f.subs, s)
	return s, nil
}

// Events yields the events. It is closed behind the last one when the subscriber was too slow.
func (s *Subscription) Events() <-chan control.Event { return s.events }

// Close ends the subscription.
func (s *Subscription) Close() {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	s.feed.subs = slices.DeleteFunc(s.feed.subs, func(other *Subscription) bool { return other == s })
}

// Publish tells all subscribers of e, which gets its number and the time.
func (f *Feed) Publish(e control.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seq++
	e.Seq, e.Time = f.seq, time.Now()
	f.subs = slices.DeleteFunc(f.subs, func(s *Subscription) bool {
		if s.wanted != nil && !s.wanted(&e) {
			return false
		}
		select {
		case s.events <- e:
			return false
		default:
			close(s.events)
			return true
		}
	})
}

// Idle reports whether nobody listens, so that an event need not be made.
func (f *Feed) Idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.subs) == 0
}
