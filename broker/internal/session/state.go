package session

import "time"

// State says where a session stands in its life.
type State string

// The states. A session goes through them in this order; ended and revoked are for ever.
const (
	StateWaiting State = "waiting" // no hello yet
	StateLive    State = "live"
	StateEnded   State = "ended"
	StateRevoked State = "revoked"
)

func (st State) valid() bool { return st == StateWaiting || st == StateLive || st.over() }

func (st State) over() bool { return st == StateEnded || st == StateRevoked }

// State returns where the session stands. One that has expired has ended.
func (s *Session) State() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateLocked()
}

func (s *Session) stateLocked() State {
	if !s.rec.State.over() && !time.Now().Before(s.Expires()) {
		return StateEnded
	}
	return s.rec.State
}

// Live reports whether the session can be served: it waits for its guest or has one.
func (s *Session) Live() bool { return !s.State().over() }

// end returns when the session ended, or when it will at the latest.
func (s *Session) end() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec.Ended != nil {
		return *s.rec.Ended
	}
	return s.Expires()
}

// End ends the session: its workload has ended.
func (s *Session) End() error { return s.finish(StateEnded) }

// Revoke ends the session because a person wants it.
func (s *Session) Revoke() error { return s.finish(StateRevoked) }

// finish puts the session into a last state and erases what it could be taken up with. It holds even if
// it cannot be stored, until the broker starts again. The first end counts.
func (s *Session) finish(state State) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.rec.State.over() {
		now := time.Now().UTC()
		s.rec.State, s.rec.Ended = state, &now
		s.rec.erase()
		s.caKey = nil
	}
	return s.rec.put(s.records)
}

// Suspended reports whether the session's requests are refused until a person lets it go on.
func (s *Session) Suspended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec.Suspend
}

// Suspend sets what Suspended reports, also for a broker that starts again.
func (s *Session) Suspend(suspended bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.update(func(r *record) { r.Suspend = suspended })
}

// update stores a changed copy of the record and makes it the session's own. The caller holds mu. If it
// cannot be stored nothing has changed.
func (s *Session) update(change func(*record)) error {
	next := s.rec
	change(&next)
	if err := next.put(s.records); err != nil {
		return err
	}
	s.rec = next
	return nil
}
