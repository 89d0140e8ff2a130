package broker

import (
	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// explain adds to a verdict what led to it, and what holds for the exchange besides.
func (p *plan) explain(v *control.PolicyVerdict, r reading, scheme string, a protocol.Authority) {
	steps, readings := p.policy.Explain(r.method, scheme, a, r.path)
	v.Readings = readings
	for _, s := range steps {
		if s.File == "broker.toml" && (p.ceiling == nil || p.ceiling.Egress == nil) {
			continue
		}
		v.Lists = append(v.Lists, control.PolicyList{File: s.File, List: s.List, Rules: s.Rules, Rule: s.Rule, Decides: s.Decides})
	}
	var apply []bound
	for _, b := range p.bounds {
		if b.rule == nil || b.rule.Touches(r.method, scheme, a, r.path) {
			apply = append(apply, b)
		}
	}
	v.Limits = limitsOf(apply, p.idle, p.total)
	if g, err := policy.GrantOf(policy.Decision{Verdict: policy.Ask, Rule: v.Rule}, r.method, scheme, a); err == nil && v.Verdict == policy.Ask.String() {
		v.Grant = g.String()
	}
}

// answers adds to a verdict what happens to what comes back from a host that secrets are bound to.
func (p *plan) answers(v *control.PolicyVerdict, bound []credential.Secret) {
	for _, s := range bound {
		v.Ranges = v.Ranges || s.Preset().Ranges
	}
	v.Cookies = control.CookiesStrip
	if p.ceiling != nil && p.ceiling.Cookies == control.CookiesPass {
		v.Cookies = control.CookiesPass
	}
	for _, m := range p.metas {
		if m.Name == v.Secret {
			v.Inject = &m.Inject
		}
	}
}
