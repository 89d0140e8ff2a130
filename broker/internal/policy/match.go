package policy

import (
	"fmt"
	"slices"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Touches reports whether the rule matches a request in any reading of its path.
func (r *Rule) Touches(method, scheme string, a protocol.Authority, path string) bool {
	q, reason := newQuery(method, scheme, a)
	if reason != protocol.ReasonNone || !r.covers(a) {
		return false
	}
	all, _ := formsOf(&q, path)
	return slices.ContainsFunc(all, func(form string) bool { return r.admits(&q, form) })
}

// ParseLimits reads the rules of limits that stand in a table of a file. The error joins everything that is wrong.
func ParseLimits(file, table string, limits []control.RuleLimits) ([]Rule, []error) {
	if len(limits) > control.MaxRuleLimits {
		return nil, []error{fmt.Errorf("%s: %s has %d rules, at most %d fit", file, table, len(limits), control.MaxRuleLimits)}
	}
	rules := make([]Rule, len(limits))
	var errs []error
	for i, l := range limits {
		r, err := ParseRule(l.Rule)
		if err != nil {
			errs = append(errs, &RuleError{file, table, i, l.Rule, err})
			continue
		}
		rules[i] = r
	}
	return rules, errs
}

// And returns a policy that permits what p and other both permit: the stricter of their decisions, p's where they are
// equally strict.
func (p *Policy) And(other *Policy) *Policy {
	both := *p
	both.also = other
	return &both
}
