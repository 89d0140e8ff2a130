package broker

import (
	"crypto/sha256"
	"errors"

	"torno.internal/broker/internal/audit"
	"torno.internal/protocol"
)

// refused logs and records that a stream was not let in. Where it presented the token of another session, the machine
// behind it is a copy of that session's, restored from a snapshot, and not the one that this session was
// made for: this session ends, and a copy gets nothing on anybody's socket. The other goes on.
func (s *live) refused(p protocol.Preface, err error) {
	s.log.Info("stream refused", "kind", p.Kind.String(), "err", err)
	var status *protocol.StatusError
	if !errors.As(err, &status) {
		return
	}
	if status.Status != protocol.StatusToken {
		s.note("stream_refused", status.Status.String(), false)
		return
	}
	owner := s.b.holder(p.Token)
	if owner == nil {
		s.note("stream_refused", status.Status.String(), false)
		return
	}
	s.note("foreign_token", "the token of session "+owner.id, true)
	s.log.Warn("a guest presents the token of another session, ending this one", "other", owner.id)
	if _, err := s.b.finish(s.id, eventEnded, "", (*live).end); err != nil {
		s.log.Error("ending a session", "err", err)
	}
}

// holder returns the live session whose token it is, or nil.
func (b *Broker) holder(token protocol.Token) *live {
	hash := sha256.Sum256(token[:])
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.live {
		if s.record.Holds(hash) {
			return s
		}
	}
	return nil
}

// note records an event of the session. Past the session's budget such events are counted, unless they come once.
func (s *live) note(event, reason string, once bool) {
	r := &audit.Record{Session: s.id, Agent: s.agent, Event: event, Reason: reason, Free: once}
	err := s.b.audit.Event(r)
	if err != nil && !errors.Is(err, audit.ErrBudget) {
		s.log.Error("recording an event", "event", event, "err", err)
	}
	if err == nil { // a flood of them is no news
		s.b.tellOf(r)
	}
}
