// Package approval keeps the requests that wait for a person to decide on them. Nothing of a request is kept but what
// the person is shown; the exchange itself waits where it is, and gives its place back when its guest goes away.
package approval

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"torno.internal/protocol/control"
)

// Bounds of a Desk that says none itself.
const (
	DefaultTimeout    = 5 * time.Minute
	DefaultPerSession = 16
	DefaultTotal      = 256
)

// Errors that callers match.
var (
	ErrFull    = errors.New("too many requests wait for a person")
	ErrUnknown = errors.New("no such request waits")
)

// Options bound a Desk. The zero value means the defaults.
type Options struct {
	Timeout    time.Duration // after which nobody has answered, which denies
	PerSession int           // requests that wait at once
	Total      int
}

// A Verdict says how waiting ended. The zero value is that nobody waits any more.
type Verdict uint8

// The verdicts.
const (
	Gone     Verdict = iota // who asked is gone, or the session has ended
	Allowed                 // by a person
	Denied                  // by a person
	TimedOut                // nobody said anything
)

// An Answer is how waiting ended, and by whose word.
type Answer struct {
	Verdict Verdict
	By      string // of Allowed and Denied: who
	Session bool   // Allowed, and what is like it for the rest of the session
}

// A Desk is where requests wait. It is safe for concurrent use.
type Desk struct {
	mu      sync.Mutex
	opt     Options
	waiting map[string]*Ticket
	count   map[string]int // by session
}

// New returns an empty desk.
func New(opt Options) *Desk {
	d := &Desk{waiting: map[string]*Ticket{}, count: map[string]int{}}
	d.Bound(opt)
	return d
}

// Bound replaces the bounds, for requests that come from here on.
func (d *Desk) Bound(opt Options) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.opt = Options{
		Timeout: cmp.Or(opt.Timeout, DefaultTimeout), PerSession: cmp.Or(opt.PerSession, DefaultPerSession), Total: cmp.Or(opt.Total, DefaultTotal),
	}
}

// A Ticket is one request's place at the desk, until Wait returns.
type Ticket struct {
	desk   *Desk
	shown  control.Approval
	answer chan Answer
}

// Enter gives a request a place at the desk. The ticket must be waited for. The error matches ErrFull.
func (d *Desk) Enter(a control.Approval) (*Ticket, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.waiting) >= d.opt.Total || d.count[a.Session] >= d.opt.PerSession {
		return nil, ErrFull
	}
	a.ID = d.newID()
	a.Asked = time.Now()
	a.Expires = a.Asked.Add(d.opt.Timeout)
	t := &Ticket{desk: d, shown: a, answer: make(chan Answer, 1)}
	d.waiting[a.ID] = t
	d.count[a.Session]++
	return t, nil
}

// idLength fits what a person types; an id is good for as long as its request waits.
const idLength = 6

// newID returns an id that nobody has. The caller holds mu.
func (d *Desk) newID() string {
	for {
		id := strings.ToLower(rand.Text()[:idLength])
		if d.waiting[id] == nil {
			return id
		}
	}
}

// Shown is what a person is shown of the request.
func (t *Ticket) Shown() control.Approval { return t.shown }

// Wait waits until a person has decided, the time is over or ctx ends, and gives the place back.
func (t *Ticket) Wait(ctx context.Context) Answer {
	timer := time.NewTimer(time.Until(t.shown.Expires))
	defer timer.Stop()
	var otherwise Answer
	select {
	case a := <-t.answer:
		return a
	case <-timer.C:
		otherwise.Verdict = TimedOut
	case <-ctx.Done():
	}
	if t.desk.remove(t.shown.ID) == nil {
		return <-t.answer // a person was faster
	}
	return otherwise
}

// remove takes a request from the desk, or returns nil if it is not there.
func (d *Desk) remove(id string) *Ticket {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.waiting[id]
	if t == nil {
		return nil
	}
	delete(d.waiting, id)
	if d.count[t.shown.Session]--; d.count[t.shown.Session] == 0 {
		delete(d.count, t.shown.Session)
	}
	return t
}

// Decide ends one request's waiting. The error matches ErrUnknown: it may have been decided, timed out or gone.
func (d *Desk) Decide(id string, a Answer) (control.Approval, error) {
	t := d.remove(id)
	if t == nil {
		return control.Approval{}, ErrUnknown
	}
	t.answer <- a
	return t.shown, nil
}

// Get returns what a person is shown of one request that waits. The error matches ErrUnknown.
func (d *Desk) Get(id string) (control.Approval, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	t := d.waiting[id]
	if t == nil {
		return control.Approval{}, ErrUnknown
	}
	return t.shown, nil
}

// List returns all that waits, that which has waited longest first.
func (d *Desk) List() []control.Approval {
	d.mu.Lock()
	defer d.mu.Unlock()
	all := make([]control.Approval, 0, len(d.waiting))
	for _, t := range d.waiting {
		all = append(all, t.shown)
	}
	slices.SortFunc(all, func(a, b control.Approval) int {
		return cmp.Or(a.Asked.Compare(b.Asked), strings.Compare(a.ID, b.ID))
	})
	return all
}
