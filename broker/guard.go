package broker

import (
	"fmt"
	"strings"
	"sync"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/decode"
	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
)

// A guarded authority is one that secrets of the session are bound to. What comes back from it is searched
// for exactly these, and for no other: else a host could learn of a secret by what is masked.
type guarded struct {
	matcher *redact.Matcher
	ranges  bool // Range passes: a preset says that answers are large files
	kept    bool // nothing that is searched for was ever given to the host
	minted  minted
}

// guards are a session's guarded authorities, made when they are first called and anew when the session's
// secrets change.
type guards struct {
	mu   sync.Mutex
	of   *credential.Set // what they were made of
	made map[protocol.Authority]*guarded
	keys []string // in the broker's cache of matchers
}

// guarded returns what guards a request to a, or nil if no secret is bound to it.
func (s *live) guarded(a protocol.Authority, scheme string) *guarded {
	if scheme != "https" {
		return nil // no secret is bound to anything else
	}
	s.guards.mu.Lock()
	defer s.guards.mu.Unlock()
	set := s.secrets()
	if s.guards.of != set {
		s.guards.of, s.guards.made = set, nil
	}
	g, ok := s.guards.made[a]
	if ok && (g == nil || g.minted.current(s.b.mints)) {
		return g
	}
	if bound := set.Bound(a); len(bound) > 0 {
		g = s.guard(a, bound)
	}
	if s.guards.made == nil {
		s.guards.made = map[protocol.Authority]*guarded{}
	}
	if g != nil || len(s.guards.made) < maxUnguarded {
		s.guards.made[a] = g
	}
	return g
}

// maxUnguarded bounds how many authorities without a secret are remembered: names are the workload's to choose.
const maxUnguarded = 4096

// guard makes the guard of a. Sessions of one agent with the same versions share matchers.
func (s *live) guard(a protocol.Authority, bound []credential.Secret) *guarded {
	g, signers := &guarded{kept: true}, true
	key := s.agent + " " + a.String()
	for _, b := range bound {
		g.ranges = g.ranges || b.Preset().Ranges
		g.minted.add(b.Meta)
		signers = signers && b.Meta.Signs() && !b.Meta.Reveals()
		g.kept = g.kept && b.Kept()
		if b.Value.Len() > 0 && !b.Meta.Overlap { // else it was revoked before this broker could know it
			key += fmt.Sprintf(" %s@%d", b.Meta.Name, b.Meta.Version)
			if b.Generation != 0 {
				key += fmt.Sprintf(".%d", b.Generation)
			}
		}
	}
	g.ranges = g.ranges || signers // what a signer's host was never given it can't repeat in pieces
	secrets, wipe := searched(bound)
	defer wipe()
	if len(g.minted.metas) > 0 {
		g.matcher = g.minted.matcher(s.b.mints, secrets)
		return g
	}
	g.matcher = s.b.matchers.Get(key, func() []redact.Secret { return secrets })
	s.guards.keys = append(s.guards.keys, key)
	return g
}

// searched returns what is searched for of secrets, until wipe is called.
func searched(all []credential.Secret) (secrets []redact.Secret, wipe func()) {
	parts := make([][]redact.Secret, len(all))
	for i, s := range all {
		if s.Value.Len() == 0 || s.Meta.Overlap {
			continue
		}
		parts[i] = s.Searched()
		secrets = append(secrets, parts[i]...)
	}
	return secrets, func() {
		for i, s := range all {
			s.WipeSearched(parts[i])
		}
	}
}

// guardExposed returns what finds the values that the workload was given, so that they do not get into the audit.
func (s *live) guardExposed() *redact.Matcher {
	exposed := s.secrets().Exposed()
	if len(exposed) == 0 {
		return nil
	}
	key := s.agent + " exposed"
	for _, e := range exposed {
		key += fmt.Sprintf(" %s@%d.%d", e.Meta.Name, e.Meta.Version, e.Generation)
	}
	s.guards.keys = append(s.guards.keys, key)
	return s.b.matchers.Get(key, func() []redact.Secret {
		var secrets []redact.Secret
		for _, e := range exposed {
			secrets = append(secrets, redact.Secret{Value: e.Value, Prefixes: e.Preset().Prefix})
		}
		return secrets
	})
}

// release gives the matchers back. No exchange of the session runs any more.
func (g *guards) release(cache *redact.Cache) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, k := range g.keys {
		cache.Put(k)
	}
	g.made, g.keys = nil, nil
}

// prepare makes the request ask for what can be searched: content without coding, and whole.
func (g *guarded) prepare(f protocol.Fields) protocol.Fields {
	f = f.DelFunc(func(l protocol.Field) bool {
		return decode.Negotiates(l.Name) || !g.ranges && asksForRange(l.Name)
	})
	return append(f, protocol.Field{Name: "accept-encoding", Value: "identity"})
}

// asksForRange reports whether some server takes the field for Range, or as a condition on it: Apache's has a name from
// before RFC 2068, Azure's one of its own.
func asksForRange(name string) bool {
	switch name {
	case "range", "if-range", "request-range", "x-ms-range":
		return true
	}
	return false
}

// scrubFields scrubs one section of a response's fields: cookies are credentials that a workload would keep after
// the session, so they are removed unless the operator lets them pass.
func (x *exchange) scrubFields(f protocol.Fields) (protocol.Fields, error) {
	if !x.s.terms.Load().cookies {
		f = f.DelFunc(func(l protocol.Field) bool { return strings.HasPrefix(l.Name, "set-cookie") })
	}
	if !x.guarded.ranges {
		f = f.DelFunc(func(l protocol.Field) bool { return l.Name == "accept-ranges" })
	}
	f, runs := x.guard().matcher.Fields(f)
	return f, x.reflected(runs)
}
