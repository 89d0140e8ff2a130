package policy

import (
	"errors"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// A Grant is what a person has allowed for the rest of a session: methods of one authority, on the paths of one glob.
// It answers the question of an ask rule and nothing else: what other lists deny stays denied.
type Grant struct {
	rule   Rule
	tunnel bool
}

// tunnelGrant begins the text of a grant for tunnels, which no rule can look like: CONNECT is no method of a rule.
const tunnelGrant = "CONNECT "

// GrantOf returns what allowing a request for the session allows. d is the decision to ask about it: the grant has the
// methods and the path of d's rule, and the authority of the request alone, also where the rule has a wildcard.
// Where the rule names no methods, the grant has the request's own.
func GrantOf(d Decision, method, scheme string, a protocol.Authority) (Grant, error) {
	q, reason := newQuery(method, scheme, a)
	if d.Verdict != Ask || reason != protocol.ReasonNone {
		return Grant{}, errors.New("nobody was asked about this request")
	}
	if q.tunnel {
		return Grant{Rule{authority: a}, true}, nil
	}
	r, err := ParseRule(d.Rule)
	if err != nil {
		return Grant{}, err
	}
	r.authority, r.wildcard = a, false
	if len(r.methods) == 0 {
		r.methods = []string{q.method}
	}
	r.text = r.String()
	return Grant{rule: r}, nil
}

// ParseGrant reads what String wrote.
func ParseGrant(s string) (Grant, error) {
	if host, ok := strings.CutPrefix(s, tunnelGrant); ok {
		a, err := protocol.ParseAuthority(host, 0)
		return Grant{Rule{authority: a}, true}, err
	}
	r, err := ParseRule(s)
	switch {
	case err != nil:
		return Grant{}, err
	case r.wildcard || len(r.methods) == 0:
		return Grant{}, errors.New("a grant is for methods of one host")
	}
	return Grant{rule: r}, nil
}

// String returns the grant in the grammar of rules, or CONNECT and the authority for tunnels. Equal grants print
// equally.
func (g Grant) String() string {
	if g.tunnel {
		return tunnelGrant + g.rule.authority.String()
	}
	return g.rule.String()
}

// Authority returns the authority that the grant is for.
func (g Grant) Authority() protocol.Authority { return g.rule.authority }

// Covers reports whether the grant is for a request, in every reading of its path.
func (g Grant) Covers(method, scheme string, a protocol.Authority, path string) bool {
	q, reason := newQuery(method, scheme, a)
	if reason != protocol.ReasonNone || q.tunnel != g.tunnel || !g.rule.covers(a) {
		return false
	}
	return g.tunnel || slices.Contains(g.rule.methods, q.method) && matchAll(&q, path, g.rule.admits)
}

// matchAll reports whether match holds in every reading of path.
func matchAll(q *query, path string, match func(*query, string) bool) bool {
	all, ok := formsOf(q, path)
	return ok && !slices.ContainsFunc(all, func(form string) bool { return !match(q, form) })
}

// formsOf returns the readings of a request's path; there are none of one that can't be sent.
func formsOf(q *query, path string) ([]string, bool) {
	if q.tunnel {
		return []string{""}, path == ""
	}
	if path == "*" && q.method == "OPTIONS" {
		return []string{path}, true
	}
	path, reason := cutPath(path)
	if reason != protocol.ReasonNone {
		return nil, false
	}
	if isClean(path) {
		return []string{path}, true
	}
	all, reason := readings(path)
	return all, reason == protocol.ReasonNone
}
