package broker

import (
	"cmp"
	"errors"
	"io"
	"math"
	"strconv"

	"torno.internal/broker/internal/limit"
	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A bound is one set of limits of a session: for all of its exchanges, or for those that a rule matches.
type bound struct {
	rule    *policy.Rule // nil: all
	bounds  control.Bounds
	limiter *limit.Limiter
}

// compileLimits reads the limits of a plan: the agent file's own and the operator's, which hold both.
func (p *plan) compileLimits(ceiling *control.Ceiling) error {
	own, errs := boundsOf("torno.toml", "limits", p.file.Limits)
	p.bounds, p.idle, p.total = own, p.file.Limits.IdleSeconds, p.file.Limits.TotalSeconds
	if ceiling != nil {
		more, wrong := boundsOf("broker.toml", "agents."+p.agent+".limits", ceiling.Limits)
		p.bounds, errs = append(p.bounds, more...), append(errs, wrong...)
		p.idle, p.total = narrower(p.idle, ceiling.Limits.IdleSeconds), narrower(p.total, ceiling.Limits.TotalSeconds)
	}
	if len(errs) > 0 {
		return &control.Error{Code: control.CodeInvalid, Message: errors.Join(errs...).Error(), Hint: "docs/rules.md has the grammar of rules"}
	}
	return nil
}

// boundsOf returns the bounds of one file, without limiters.
func boundsOf(file, table string, l control.AgentLimits) ([]bound, []error) {
	var all []bound
	if l.Bounds != (control.Bounds{}) {
		all = append(all, bound{bounds: l.Bounds})
	}
	rules, errs := policy.ParseLimits(file, table+".rule", l.Rules)
	for i := range rules {
		all = append(all, bound{rule: &rules[i], bounds: l.Rules[i].Bounds})
	}
	return all, errs
}

// narrower returns the smaller of two that bound something.
func narrower(a, b int) int {
	if a == 0 || b == 0 {
		return cmp.Or(a, b)
	}
	return min(a, b)
}

// limiters returns bounds with limiters of their own: of one session, full.
func limiters(bounds []bound) []bound {
	all := make([]bound, len(bounds))
	for i, b := range bounds {
		b.limiter = limit.New(b.bounds)
		all[i] = b
	}
	return all
}

// limit counts the exchange on all limits that apply to it. The error is a *protocol.RefusedError.
func (x *exchange) limit() error {
	bounds := x.s.terms.Load().bounds
	if len(bounds) == 0 {
		return nil
	}
	var apply []*limit.Limiter
	for i := range bounds {
		if b := &bounds[i]; b.rule == nil || x.touched(b.rule) {
			apply = append(apply, b.limiter)
		}
	}
	var err error
	if x.within, err = limit.Begin(apply...); err == nil {
		err = x.within.Up(x.headSize())
	}
	return x.exceeded(err)
}

func (x *exchange) touched(r *policy.Rule) bool {
	for _, reading := range x.all {
		if r.Touches(reading.method, x.req.Scheme, x.authority, reading.path) {
			return true
		}
	}
	return false
}

// headSize is what the workload says in the request's head: it counts, for it can carry as much as content.
func (x *exchange) headSize() int {
	n := len(x.req.Path)
	for _, f := range x.req.Fields {
		n += len(f.Name) + len(f.Value)
	}
	return n
}

// exceeded makes an *limit.Exceeded a refusal, and keeps when to try again.
func (x *exchange) exceeded(err error) error {
	var e *limit.Exceeded
	if !errors.As(err, &e) {
		return err
	}
	x.over.Store(e)
	return protocol.Refuse(e.Reason, nil)
}

// retryAfter is the field's value in an answer with that reason.
func (x *exchange) retryAfter() string {
	if e := x.over.Load(); e != nil {
		return strconv.Itoa(max(1, int(math.Ceil(e.After.Seconds()))))
	}
	return "1"
}

// blame notes what has cut the exchange, if it was not the upstream nor the guest.
func (x *exchange) blame() {
	if r := x.whyCut(); x.outcome.Reason == "" && r != protocol.ReasonNone {
		x.outcome.Reason = r.String()
	}
}

// whyCut returns why the broker has closed the connections of an exchange that did not end as it should; ReasonNone: it has
// not.
func (x *exchange) whyCut() protocol.Reason {
	if e := x.over.Load(); e != nil {
		return e.Reason
	}
	if r := x.spoiled.Load(); r != 0 {
		return protocol.Reason(r)
	}
	return x.s.cuts.why(x.authority, x.started)
}

// upward returns r, or what of it the limits let go upstream.
func (x *exchange) upward(r io.Reader) io.Reader {
	if !x.within.Bytes() {
		return r
	}
	return &metered{x, r, x.within.Up}
}

// downward returns r, or what of it the limits let go to the workload.
func (x *exchange) downward(r io.Reader) io.Reader {
	if !x.within.Bytes() {
		return r
	}
	return &metered{x, r, x.within.Down}
}

// A metered reader ends with an error once what it has read is beyond a limit. None of that piece is passed on.
type metered struct {
	x    *exchange
	from io.Reader
	take func(int) error
}

func (m *metered) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	if over := m.take(n); over != nil {
		clear(p[:n])
		return 0, m.x.exceeded(over)
	}
	return n, err
}

// limits is what the session's limits are, for people: its own first, then by rule.
func (s *live) limits() *control.AgentLimits {
	t := s.terms.Load()
	return limitsOf(t.bounds, t.idle, t.total)
}

func limitsOf(bounds []bound, idle, total int) *control.AgentLimits {
	if len(bounds) == 0 && idle == 0 && total == 0 {
		return nil
	}
	l := &control.AgentLimits{IdleSeconds: idle, TotalSeconds: total}
	for _, b := range bounds {
		if b.rule != nil {
			l.Rules = append(l.Rules, control.RuleLimits{Rule: b.rule.String(), Bounds: b.bounds})
			continue
		}
		l.Bounds = tighter(l.Bounds, b.bounds)
	}
	return l
}

// tighter returns, of two bounds that both hold, what people need to know of them.
func tighter(a, b control.Bounds) control.Bounds {
	if a.RequestsPerSecond == 0 || b.RequestsPerSecond > 0 && b.RequestsPerSecond < a.RequestsPerSecond {
		a.RequestsPerSecond, a.Burst = b.RequestsPerSecond, b.Burst
	}
	a.Concurrent = narrower(a.Concurrent, b.Concurrent)
	a.MiBUpPerHour, a.MiBDownPerHour = narrower(a.MiBUpPerHour, b.MiBUpPerHour), narrower(a.MiBDownPerHour, b.MiBDownPerHour)
	return a
}
