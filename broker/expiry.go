package broker

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An expiry ends the use of a session's secrets at the moments that they were set to expire. What begins afterwards is
// refused by the moment itself; this is for what is open then.
type expiry struct {
	next atomic.Int64 // the first moment of due, in nanoseconds since 1970; 0: there is none

	mu    sync.Mutex
	due   []control.Meta // versions that are yet to expire
	timer *time.Timer    // at next; nil: none was needed so far
	runs  sync.WaitGroup // of the timer
	ended bool
}

// add has f called once m expires, if it does.
func (e *expiry) add(m *control.Meta, f func()) {
	if m.Expires.IsZero() || m.Expose != control.ExposeNone || !time.Now().Before(m.Expires) {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	i := slices.IndexFunc(e.due, func(d control.Meta) bool { return m.Source != "" && d.Name == m.Name && d.Version == m.Version })
	if i < 0 {
		e.due = append(e.due, *m)
	} else if m.Expires.Before(e.due[i].Expires) { // else it is looked at again then
		e.due[i].Expires = m.Expires
	}
	e.arm(f)
}

// take returns what has expired by now, once.
func (e *expiry) take(now time.Time, f func()) []control.Meta {
	e.mu.Lock()
	defer e.mu.Unlock()
	var over []control.Meta
	e.due = slices.DeleteFunc(e.due, func(m control.Meta) bool {
		if now.Before(m.Expires) {
			return false
		}
		over = append(over, m)
		return true
	})
	e.arm(f)
	return over
}

// arm has f called at the next moment; mu is held. Timers count the time in which the machine is awake, and clocks are
// set: keepTime looks after moments that went by otherwise.
func (e *expiry) arm(f func()) {
	if e.timer != nil && e.timer.Stop() {
		e.runs.Done()
	}
	e.next.Store(0)
	if len(e.due) == 0 || e.ended {
		return
	}
	first := slices.MinFunc(e.due, func(a, b control.Meta) int { return a.Expires.Compare(b.Expires) }).Expires
	e.next.Store(first.UnixNano())
	e.runs.Add(1)
	e.timer = time.AfterFunc(time.Until(first), func() {
		defer e.runs.Done()
		f()
	})
}

// end stops the timer for good, and waits until nobody is called any more.
func (e *expiry) end() {
	e.mu.Lock()
	e.ended, e.due = true, nil
	e.arm(nil)
	e.mu.Unlock()
	e.runs.Wait()
}

// passed reports whether a moment is over that nobody has been called for.
func (e *expiry) passed(now time.Time) bool {
	next := e.next.Load()
	return next > 0 && now.UnixNano() >= next
}

// expire ends the use of what has expired: what is open to where it may be sent is cut, as when it is revoked.
func (s *live) expire() {
	for _, m := range s.expiry.take(time.Now(), s.expire) {
		if s.watchEnd(&m) {
			continue
		}
		if set := s.secrets(); set.Revoke(m.Name, m.Version) == set {
			continue // it was revoked before, and cut then
		}
		hosts, err := m.Authorities()
		if err != nil { // they were checked when the session began
			s.log.Error("the audience of a secret", "secret", m.Name, "err", err)
		}
		s.b.mints.Forget(s.agent, m.Name, m.Version)
		s.cut(protocol.ReasonExpired, hosts)
		s.noteVersion(eventExpiredUse, m.Name, m.Version, protocol.ReasonExpired.String())
	}
}

// watchEnd has a secret that is kept elsewhere looked at when its source says that it ends, and reports whether that is yet to
// come: a lease that was renewed ends later than was said before.
func (s *live) watchEnd(m *control.Meta) bool {
	sec, ok := s.secrets().Current(m.Name)
	if !ok || m.Source == "" || sec.Meta.Version != m.Version || sec.Missing != nil || sec.Expired(time.Now()) {
		return false
	}
	next := sec.Meta
	next.Expires = sec.Expires()
	s.expiry.add(&next, s.expire)
	return true
}

// maxCuts is how many cuts a session remembers for exchanges that were open.
const maxCuts = 8

// cuts are the last of the moments at which a session's connections were closed, and why.
type cuts struct {
	mu  sync.Mutex
	all []cut // newest last
}

type cut struct {
	reason protocol.Reason
	at     time.Time
	hosts  []protocol.Authority // nil: all
}

// cut closes what the session has open to hosts, or all of it for nil. Exchanges that were open end with that reason.
func (s *live) cut(reason protocol.Reason, hosts []protocol.Authority) {
	s.cuts.mu.Lock()
	s.cuts.all = append(s.cuts.all, cut{reason, time.Now(), hosts})
	if n := len(s.cuts.all); n > maxCuts {
		s.cuts.all = slices.Delete(s.cuts.all, 0, n-maxCuts)
	}
	s.cuts.mu.Unlock()
	if hosts == nil {
		s.b.upstream.CutSession(s.id)
	} else {
		s.b.upstream.CutOrigins(s.id, hosts)
	}
}

// why returns why a connection to a was cut that began at that time: ReasonNone if it was not.
func (c *cuts) why(a protocol.Authority, began time.Time) protocol.Reason {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, one := range slices.Backward(c.all) {
		if one.at.After(began) && (one.hosts == nil || slices.Contains(one.hosts, a)) {
			return one.reason
		}
	}
	return protocol.ReasonNone
}
