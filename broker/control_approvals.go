package broker

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"torno.internal/broker/internal/approval"
	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/protocol/control"
)

func (b *Broker) listApprovals(*http.Request) ([]control.Approval, error) { return b.desk.List(), nil }

// decideApproval is a person's word on a request that waits. Where it is for the session, others that wait for the
// same are let go as well.
func (b *Broker) decideApproval(ctx context.Context, req control.ApprovalDecision) (control.Approval, error) {
	a, err := b.desk.Get(req.ID)
	if err != nil {
		return a, notWaiting(req.ID, err)
	}
	answer := approval.Answer{Verdict: approval.Denied, By: approver(ctx)}
	switch {
	case req.Allow:
		answer.Verdict, answer.Session = approval.Allowed, req.Session
	case req.Session:
		return a, &control.Error{Code: control.CodeInvalid, Message: "only what is allowed can be allowed for the session"}
	}
	if answer.Session {
		if err := b.grantFor(a); err != nil {
			return a, err
		}
	}
	if a, err = b.desk.Decide(req.ID, answer); err != nil {
		return a, notWaiting(req.ID, err)
	}
	if answer.Session {
		b.decideAlike(a, answer)
	}
	return a, nil
}

// grantFor keeps what allowing a for the session allows.
func (b *Broker) grantFor(a control.Approval) error {
	s := b.get(a.Session)
	switch {
	case s == nil:
		return noSession(a.Session)
	case a.Grant == "":
		return &control.Error{Code: control.CodeInvalid, Message: "a request like this one is allowed once at a time", Hint: "torno approvals allow " + a.ID}
	}
	return s.grant(a.Grant)
}

// decideAlike answers the requests of the same session that wait for the same grant. One that is gone needs no answer.
func (b *Broker) decideAlike(a control.Approval, answer approval.Answer) {
	for _, other := range b.desk.List() {
		if other.Session == a.Session && other.Grant == a.Grant {
			_, _ = b.desk.Decide(other.ID, answer)
		}
	}
}

// withdrawGrant takes back what a person has allowed for the rest of a session.
func (b *Broker) withdrawGrant(r *http.Request) (control.SessionInfo, error) {
	s := b.get(r.PathValue("id"))
	if s == nil {
		return control.SessionInfo{}, noSession(r.PathValue("id"))
	}
	rules, err := s.withdraw(r.FormValue("grant"))
	for _, rule := range rules {
		b.recordOwn(&audit.Record{Session: s.id, Agent: s.agent, Event: eventWithdrawn, By: approver(r.Context()), Rule: rule})
	}
	if err != nil {
		return control.SessionInfo{}, err
	}
	return s.info(), nil
}

func notWaiting(id string, err error) error {
	if !errors.Is(err, approval.ErrUnknown) {
		return err
	}
	return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("no request %q waits: it was decided, its time is over, or its guest went away", id),
		Hint: "torno approvals list"}
}

// approver says who is at the other end of the control socket, as far as the kernel knows.
func approver(ctx context.Context) string {
	c := ctlserver.ConnOf(ctx)
	if c == nil {
		return "somebody"
	}
	return fmt.Sprintf("uid %d, pid %d", c.UID, c.PID)
}
