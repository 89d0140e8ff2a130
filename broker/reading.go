package broker

import (
	"errors"
	"strings"

	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
)

// A reading is what a server may take a request for.
type reading struct{ method, path string }

// readings returns all that the request may be taken for, as it is sent last: some servers obey fields instead of the
// request line. Rules hold for each reading, else a request that is allowed would carry one that is not.
func (x *exchange) readings() ([]reading, error) {
	sent := reading{x.method(), x.req.Path}
	said, found := sent, false
	for _, l := range x.req.Fields {
		if l.Name[0] != 'x' {
			continue
		}
		what := &said.method
		switch protocol.FoldName(l.Name) {
		case "x-http-method", "x-http-method-override", "x-method-override":
		case "x-original-url", "x-rewrite-url":
			what = &said.path
		default:
			continue
		}
		if found {
			return nil, protocol.Refuse(protocol.ReasonBadRequest, errors.New("more than one field that stands for another method or path"))
		}
		*what, found = l.Value, true
	}
	if !found {
		return append(x.room[:0], sent), nil
	}
	said.method = strings.ToUpper(said.method)
	return append(x.room[:0], said, sent), nil
}

// decide asks the policy about every reading. The decision is that on the request as it is sent, or the first that is
// against it, or one about which a person is to be asked.
func (x *exchange) decide(connect bool) error {
	var asked policy.Decision
	x.terms = x.s.terms.Load()
	x.asks = false
	for _, r := range x.all {
		x.decision = x.terms.policy.Decide(r.method, x.req.Scheme, x.authority, r.path)
		if x.decision.Verdict == policy.Ask {
			asked = x.decision
			x.asks = x.asks || !x.granted(r)
			continue
		}
		if err := x.verdict(connect); err != nil {
			return err
		}
	}
	if asked.Verdict == policy.Ask {
		x.decision = asked
	}
	return nil
}

// covered reports whether the request gets the credential, in every reading.
func (x *exchange) covered() bool {
	for _, r := range x.all {
		if !x.s.paths[x.use.Name].Cover(r.method, r.path) || !x.use.Covers(x.authority, r.path) {
			return false
		}
	}
	return true
}
