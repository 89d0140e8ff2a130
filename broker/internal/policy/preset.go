package policy

import (
	"errors"
	"fmt"

	"torno.internal/protocol"
)

// ListPreset is the list that a Decision names where a preset's own rule decided.
const ListPreset = "preset"

// presets are the rules that the presets of a session's secrets bring along.
type presets struct {
	deny *list // what mints credentials: refused, whatever the file allows
	also *list // where a service's own answers lead: allowed, without a credential
}

// WithPresets returns p with the rules that the presets of the session's secrets bring along. deny stands
// before all of the file's lists, also behind them. The operator's ceiling bounds both.
func (p *Policy) WithPresets(deny, also []string) (*Policy, error) {
	d, errs := compileList("preset", ListDeny, deny)
	a, more := compileList("preset", "also", also)
	if errs = append(errs, more...); len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	q := *p
	q.file.presets = presets{d, a}
	return &q, nil
}

// Paths says which requests to an audience get the credential. The zero value means all of them.
type Paths struct {
	rules []Rule
}

// pathsHost stands for the audience in rules that have none.
var pathsHost = protocol.Authority{Host: "audience.invalid", Port: 443}

// ParsePaths reads rules that begin with their methods or their path: "[METHODS ]/path".
func ParsePaths(texts []string) (Paths, error) {
	var p Paths
	for _, t := range texts {
		methods, path := "", t
		for i := range len(t) {
			if t[i] == '/' {
				methods, path = t[:i], t[i:]
				break
			}
		}
		r, err := ParseRule(methods + pathsHost.Host + path)
		if err != nil {
			return Paths{}, fmt.Errorf("path %q: %w", t, err)
		}
		p.rules = append(p.rules, r)
	}
	return p, nil
}

// Cover reports whether a request gets the credential, in every reading of its path.
func (p Paths) Cover(method, path string) bool {
	if len(p.rules) == 0 {
		return true
	}
	q, reason := newQuery(method, "https", pathsHost)
	if reason != protocol.ReasonNone {
		return false
	}
	return matchAll(&q, path, p.admit)
}

func (p Paths) admit(q *query, path string) bool {
	for i := range p.rules {
		if p.rules[i].admits(q, path) {
			return true
		}
	}
	return false
}
