package broker

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol/control"
)

// Terms are what the agent's file and the operator's hold a session to. They are replaced as a whole, by narrower ones.
type terms struct {
	policy  *policy.Policy
	bounds  []bound
	idle    int      // seconds; 0: unbounded
	total   int      // as well
	cookies bool     // Set-Cookie passes
	presign bool     // requests may be signed in their query
	private []string // prefixes that are exempt from the address guard
}

// terms returns what the plan holds a session to.
func (p *plan) terms() *terms {
	t := &terms{policy: p.policy, bounds: limiters(p.bounds), idle: p.idle, total: p.total}
	if p.ceiling != nil {
		t.cookies, t.presign, t.private = p.ceiling.Cookies == control.CookiesPass, p.ceiling.Presign, p.ceiling.AllowPrivate
	}
	return t
}

// and returns terms that are as narrow as both.
func (t *terms) and(other *terms) *terms {
	return &terms{
		policy: t.policy.And(other.policy), bounds: slices.Concat(t.bounds, other.bounds),
		idle: narrower(t.idle, other.idle), total: narrower(t.total, other.total), cookies: t.cookies && other.cookies, presign: t.presign && other.presign,
		private: slices.DeleteFunc(slices.Clone(t.private), func(p string) bool { return !slices.Contains(other.private, p) }),
	}
}

// begin holds the session to its first terms.
func (s *live) begin(t *terms) error {
	s.begun = t
	return s.hold(t)
}

// hold holds the session to t from here on.
func (s *live) hold(t *terms) error {
	own, err := upstream.ParsePrefixes(t.private)
	if err != nil {
		return fmt.Errorf("allow_private of agent %s: %w", s.agent, err)
	}
	now, err := upstream.ParsePrefixes(s.b.operator.Load().Agents[s.agent].AllowPrivate)
	if err != nil {
		return fmt.Errorf("allow_private of agent %s: %w", s.agent, err)
	}
	s.terms.Store(t)
	s.b.upstream.AllowPrivate(s.id, own)
	s.b.upstream.AllowPrivate(tokenPool(s.agent), now) // which the agent's sessions share
	return nil
}

// narrow holds the session to what it began with and to the operator's file as it is now, and cuts what it has open: any of it may
// be what the file has just closed. A session that can't be held to the file is ended.
func (b *Broker) narrow(s *live) {
	p, err := b.resumePlan(s.record)
	if err == nil {
		err = s.hold(s.begun.and(p.terms()))
	}
	s.b.upstream.CutSession(s.id)
	if err == nil {
		return
	}
	s.log.Error("a session can't be held to the operator's file, ending it", "err", err)
	if _, err := b.finish(s.id, eventEnded, "", (*live).end); err != nil {
		s.log.Error("ending a session", "err", err)
	}
}

// deadlineInterval is how exact a session's idle and total times are.
const deadlineInterval = time.Second

// defaultAbandoned is Config.Abandoned where that is zero.
const defaultAbandoned = time.Minute

// keepTime ends sessions that have been idle for too long, have lasted too long, or whose guests are gone, and the use of
// secrets that have expired, until done is closed. One goroutine does so for all of them: most sessions are idle, and there may be thousands.
func (b *Broker) keepTime(done <-chan struct{}) {
	abandoned := cmp.Or(b.cfg.Abandoned, defaultAbandoned)
	tick := time.NewTicker(min(deadlineInterval, abandoned/6))
	defer tick.Stop()
	for {
		select {
		case <-done:
			return
		case now := <-tick.C:
			for _, s := range b.all() {
				if s.expiry.passed(now) { // and its timer does not know: the machine slept, or the clock was set
					s.expire()
				}
				event := s.overdue(now, abandoned)
				if event == "" || s.ctx.Err() != nil {
					continue
				}
				s.log.Info("ending the session", "why", event)
				if _, err := b.finish(s.id, event, "", (*live).end); err != nil && !isNotFound(err) {
					s.log.Error("ending a session", "err", err)
				}
			}
		}
	}
}

// overdue returns the event that ends the session now; none: it goes on. A session is abandoned when its guest has had no
// stream for that long: torno run was killed, or the VM.
func (s *live) overdue(now time.Time, abandoned time.Duration) (event string) {
	t := s.terms.Load()
	if s.stats.forward.Load()+s.stats.channel.Load() > 0 || !s.record.HelloUsed() {
		s.attended = now
	}
	switch {
	case t.total > 0 && now.Sub(s.born) >= seconds(t.total):
		return eventOver
	case t.idle > 0 && s.stats.busy.Load() == 0 && now.Sub(s.b.started)-time.Duration(s.stats.active.Load()) >= seconds(t.idle):
		return eventIdle
	case now.Sub(s.attended) >= abandoned:
		return eventAbandoned
	}
	return ""
}

func seconds(n int) time.Duration { return time.Duration(n) * time.Second }

// isNotFound reports whether somebody else has ended the session already.
func isNotFound(err error) bool {
	var ce *control.Error
	return errors.As(err, &ce) && ce.Code == control.CodeNotFound
}
