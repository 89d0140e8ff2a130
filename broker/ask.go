package broker

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"torno.internal/broker/internal/approval"
	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/http1"
)

// The outcomes of asking a person, as events and the audit name them.
const (
	askAllowed  = "allowed"
	askDenied   = "denied"
	askTimedOut = "timed out"
	askGone     = "the guest went away"
	askGranted  = "granted for the session before"
)

// ask holds the exchange until a person has decided on it. It holds nothing else meanwhile: no connection upstream, and
// no content but what has arrived with the head. The guest's going away ends it.
func (x *exchange) ask() error {
	ctx, cancel := context.WithCancel(x.s.ctx)
	defer cancel()
	x.s.watch.add(x.st, aborterFunc(cancel))
	said, outcome, err := x.s.askPerson(ctx, x.shown())
	x.s.watch.remove(x.st)
	if err != nil {
		return protocol.Refuse(protocol.ReasonRateLimited, err)
	}
	if x.approval = said; outcome != askAllowed {
		return protocol.Refuse(protocol.ReasonAskDenied, errors.New(outcome))
	}
	return x.reauthorise() // the operator may have closed it meanwhile
}

// askPerson shows a person what waits until they have decided, the time is over or ctx ends. said is what the audit keeps of that,
// outcome the word for it. The error matches approval.ErrFull.
func (s *live) askPerson(ctx context.Context, what control.Approval) (said, outcome string, err error) {
	ticket, err := s.b.desk.Enter(what)
	if err != nil {
		return "", "", err
	}
	shown := ticket.Shown()
	s.b.feed.Publish(control.Event{Kind: control.EventApproval, Type: "approval_waiting", Session: s.id, Agent: s.agent, Approval: &shown})
	answer := ticket.Wait(ctx)
	said, outcome = s.answered(answer)
	s.b.feed.Publish(control.Event{Kind: control.EventApproval, Type: "approval_ended", Session: s.id, Agent: s.agent, Approval: &shown, By: answer.By, Reason: outcome})
	return said, outcome, nil
}

// askOptions are the desk's bounds in the operator's file.
func askOptions(l control.Limits) approval.Options {
	return approval.Options{Timeout: seconds(l.AskSeconds), PerSession: l.AsksPerSession, Total: l.Asks}
}

// An aborterFunc is called when the guest goes away.
type aborterFunc func()

func (f aborterFunc) Abort() { f() }

// answered counts how waiting ended, and returns it for the audit, and in a word or two.
func (s *live) answered(a approval.Answer) (said, outcome string) {
	outcome = askGone
	switch a.Verdict {
	case approval.Allowed:
		outcome = askAllowed
	case approval.Denied:
		outcome = askDenied
	case approval.TimedOut:
		outcome = askTimedOut
	}
	s.b.metrics.Asked(outcome)
	said = outcome
	if a.Session {
		said += " for the session"
	}
	if a.By != "" {
		said += " by " + a.By
	}
	return said, outcome
}

// shown is what a person is shown of the exchange.
func (x *exchange) shown() control.Approval {
	a := control.Approval{
		Session: x.s.id, Agent: x.s.agent, Method: x.method(), Scheme: x.req.Scheme, Authority: x.name,
		List: x.decision.List, Rule: x.decision.Rule,
	}
	a.Path = audit.ShowPath(x.req.Path)
	if len(a.Path) > control.MaxShownPath {
		a.Path, a.PathBytes = a.Path[:control.MaxShownPath], len(x.req.Path)
	}
	a.ContentType = x.req.Fields.Get("content-type")
	a.ContentType = a.ContentType[:min(len(a.ContentType), control.MaxShownType)]
	if n, ok, err := http1.ContentLength(x.req.Fields); err == nil && ok {
		a.ContentLength = &n
	}
	if x.use != nil && !x.bare {
		a.Secret, a.Version = x.use.Name, x.use.Version
	}
	if len(x.all) > 1 { // one word can't be kept for what is two requests
		a.Also = x.all[0].method + " " + audit.ShowPath(x.all[0].path)
		if n := len(a.Also); n > control.MaxShownPath {
			a.Also = fmt.Sprintf("%s… (%d bytes in all)", a.Also[:control.MaxShownPath], n)
		}
	} else if g, err := policy.GrantOf(x.decision, x.all[0].method, x.req.Scheme, x.authority); err == nil {
		a.Grant = g.String()
	}
	return a
}

// maxGrants is how many grants one session may have. Each costs every request that an ask rule matches a comparison.
const maxGrants = 64

// granted reports whether a person has allowed this reading of the request for the session.
func (x *exchange) granted(r reading) bool {
	for _, g := range *x.s.grants.Load() {
		if g.Covers(r.method, x.req.Scheme, x.authority, r.path) {
			return true
		}
	}
	return false
}

// grant keeps a person's word for the rest of the session.
func (s *live) grant(text string) error {
	g, err := policy.ParseGrant(text)
	if err != nil {
		return fmt.Errorf("grant %q: %w", text, err)
	}
	s.granting.Lock()
	defer s.granting.Unlock()
	had := *s.grants.Load()
	for _, h := range had {
		if h.String() == g.String() {
			return nil
		}
	}
	if len(had) >= maxGrants {
		return &control.Error{Code: control.CodeConflict, Message: fmt.Sprintf("the session has %d grants, and no more are kept", len(had)), Hint: "allow it once, or write an allow rule"}
	}
	if err := s.record.Grant(g.String()); err != nil {
		return err
	}
	all := append(had[:len(had):len(had)], g)
	s.grants.Store(&all)
	return nil
}

// withdraw takes a person's word back, and returns the rules. Requests that it was for are asked about from now on, and those that
// it let go and that are open are cut. Of two rules with one id, which hosts whose names a guest chooses can come to, none stays.
func (s *live) withdraw(id string) (rules []string, err error) {
	s.granting.Lock()
	defer s.granting.Unlock()
	var gone []protocol.Authority
	for _, g := range *s.grants.Load() {
		rule := g.String()
		if control.NewGrant(rule).ID != id {
			continue
		}
		if err = s.record.Withdraw(rule); err != nil {
			break
		}
		left := slices.DeleteFunc(slices.Clone(*s.grants.Load()), func(h policy.Grant) bool { return h.String() == rule })
		s.grants.Store(&left)
		rules, gone = append(rules, rule), append(gone, g.Authority())
	}
	switch {
	case len(gone) > 0:
		s.cut(protocol.ReasonAskDenied, gone)
	case err == nil:
		err = &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("session %s has no grant %q", s.id, id), Hint: "torno sessions show " + s.id}
	}
	return rules, err
}

// loadGrants takes up what was granted before an earlier broker ended.
func (s *live) loadGrants() {
	all := []policy.Grant{}
	for _, text := range s.record.Grants() {
		if g, err := policy.ParseGrant(text); err == nil {
			all = append(all, g)
		} else {
			s.log.Error("a grant that can't be read is not taken up", "grant", text, "err", err)
		}
	}
	s.grants.Store(&all)
}
