package credential

import (
	"slices"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Select returns the secret to use for a request to a with the given scheme, fields and target, or nil where
// none is bound to that origin. Both errors are *protocol.RefusedErrors. err says why the request can't go:
//
//   - ReasonInsecureScheme: http to a host that a secret is bound to. It would leave without the
//     credential, but with everything else, where the workload believes to be authenticated.
//   - ReasonAmbiguousCredential: several secrets fit and the workload sent the placeholder of none, or
//     those of several.
//   - ReasonRevoked, ReasonExpired: the secret is in use no more.
//
// misplaced, with ReasonPlaceholder, says that a credential position holds the placeholder of a secret that
// is not bound to this origin, or of another session. A placeholder is worth nothing, but who sends one there
// takes it for a key, and the host for the key's: what follows is for the operator to say.
//
// Credential positions are authorization, proxy-authorization, x-api-key, cookies, the fields that any secret
// of the session is put into, each as often as it stands there, and the target with its query. Elsewhere a
// placeholder is text.
func (s *Set) Select(a protocol.Authority, scheme string, fields protocol.Fields, target string) (use *Use, misplaced, err error) {
	var candidates []*Use
	switch {
	case scheme == "https":
		candidates = s.byOrigin[a]
	case scheme == "http" && s.secured(a):
		return nil, nil, refuse(protocol.ReasonInsecureScheme, "http to %s, which a secret is bound to", a)
	}
	p := positions{set: s, authority: a, candidates: candidates}
	p.look("target", target)
	for i := range fields {
		if name := protocol.FoldName(fields[i].Name); isAuthField(name) || name == "cookie" || s.position[name] {
			p.look(name, fields[i].Value)
		}
	}
	use = p.chosen
	switch {
	case p.several != nil:
		return nil, p.misplaced, p.several
	case use != nil:
	case len(candidates) == 0:
		return nil, p.misplaced, nil
	case len(candidates) > 1:
		return nil, p.misplaced, refuse(protocol.ReasonAmbiguousCredential, "%s are all bound to %s", names(candidates), a)
	default:
		use = candidates[0]
	}
	if err := s.Usable(use, a); err != nil {
		return nil, p.misplaced, err
	}
	return use, p.misplaced, nil
}

// positions are what the placeholders in a request's credential positions say.
type positions struct {
	set        *Set
	authority  protocol.Authority
	candidates []*Use

	chosen    *Use
	misplaced error // the first
	several   error
}

// look looks for placeholders in one position.
func (p *positions) look(where, text string) {
	marks(text, func(before, from string) bool {
		u := p.set.owner(before, from)
		if all := p.set.sharers(from); len(all) > 0 {
			if u = p.meant(all); u == nil { // the host says which, or that there are several
				return true
			}
		}
		switch {
		case p.misplaced != nil && !slices.Contains(p.candidates, u):
		case u == nil:
			p.misplaced = refuse(protocol.ReasonPlaceholder, "%s: a placeholder that is not of this session", where)
		case !slices.Contains(p.candidates, u):
			p.misplaced = refuse(protocol.ReasonPlaceholder, "%s: the placeholder of %s, which is not bound to %s", where, u.Name, p.authority)
		case p.chosen != nil && p.chosen != u:
			p.several = refuse(protocol.ReasonAmbiguousCredential, "placeholders of %s and %s in one request", p.chosen.Name, u.Name)
		default:
			p.chosen = u
		}
		return p.several == nil
	})
}

// meant returns which of the secrets that share a placeholder it stands for: the one that is bound here; nil if there are
// several. If there is none it returns any of them.
func (p *positions) meant(sharers []*Use) (u *Use) {
	for _, c := range p.candidates {
		switch {
		case !slices.Contains(sharers, c):
		case u != nil:
			return nil
		default:
			u = c
		}
	}
	if u == nil {
		return sharers[0]
	}
	return u
}

// secured reports whether http to a means an origin that a secret is bound to: the same host and port,
// or the same host where both schemes have their default ports.
func (s *Set) secured(a protocol.Authority) bool {
	if len(s.byOrigin[a]) > 0 {
		return true
	}
	if a.Port != protocol.DefaultPort("http") {
		return false
	}
	a.Port = protocol.DefaultPort("https")
	return len(s.byOrigin[a]) > 0
}

// HasPlaceholders reports whether the workload holds any.
func (s *Set) HasPlaceholders() bool { return len(s.byMark)+len(s.shared) > 0 }

// Placeholders counts the placeholders in a request's head, wherever they stand, if the session has any.
func (s *Set) Placeholders(path string, fields protocol.Fields) int {
	if !s.HasPlaceholders() {
		return 0
	}
	n := strings.Count(path, control.PlaceholderMark)
	for i := range fields {
		n += strings.Count(fields[i].Value, control.PlaceholderMark)
	}
	return n
}

// sharers returns the secrets that the placeholder whose mark begins from may stand for, if it is one that several may share.
func (s *Set) sharers(from string) []*Use {
	for p, all := range s.shared {
		if strings.HasPrefix(from, p) {
			return all
		}
	}
	return nil
}

// owner returns the secret whose placeholder stands where its mark begins from, or nil.
func (s *Set) owner(before, from string) *Use {
	for _, u := range s.byMark {
		p := u.secret.Placeholder
		if strings.HasPrefix(from, p[u.mark:]) && strings.HasSuffix(before, p[:u.mark]) {
			return u
		}
	}
	return nil
}
