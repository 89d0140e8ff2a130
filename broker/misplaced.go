package broker

import (
	"errors"

	"torno.internal/broker/internal/audit"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// misplaced does what the operator wants with a request that has a placeholder in a credential position for a
// host that it is not for. It returns err if the request is not to go on.
func (x *exchange) misplaced(err error) error {
	if x.s.placeholders() != control.PlaceholdersLog {
		return err
	}
	r := x.record()
	r.Event, r.Reason = eventMisplaced, protocol.ReasonPlaceholder.String()
	switch err := x.s.b.audit.Event(r); {
	case errors.Is(err, audit.ErrBudget):
	case err != nil:
		x.s.log.Error("recording an event", "event", eventMisplaced, "err", err)
	}
	return nil
}

// terminates reports whether a refusal ends the session: for a misplaced placeholder, where the operator wants
// that.
func (x *exchange) terminates(reason protocol.Reason) bool {
	return reason == protocol.ReasonPlaceholder && x.s.placeholders() == control.PlaceholdersTerminate
}

// placeholders is what the operator wants with a placeholder that is misplaced: the stricter of what was wanted when the session
// began and what is wanted now.
func (s *live) placeholders() string {
	began, now := s.operator.Agents[s.agent].Placeholders, s.b.operator.Load().Agents[s.agent].Placeholders
	switch {
	case began == control.PlaceholdersTerminate || now == control.PlaceholdersTerminate:
		return control.PlaceholdersTerminate
	case began == control.PlaceholdersLog && now == control.PlaceholdersLog:
		return control.PlaceholdersLog
	}
	return control.PlaceholdersBlock
}

// terminate revokes the session, if the refusal is one that does.
func (x *exchange) terminate(reason protocol.Reason) {
	if !x.terminates(reason) {
		return
	}
	x.s.log.Warn("a placeholder for a host that it is not for, ending the session", "authority", x.name)
	if _, err := x.s.b.finish(x.s.id, eventTerminated, "", (*live).revoke); err != nil {
		x.s.log.Error("ending a session", "err", err)
	}
}
