package credential

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Secret is one secret of a session, opened. The Set that it is given to owns its value.
type Secret struct {
	Meta        control.Meta
	Value       secret.Value // zero in a Set that only answers questions, and once the version is revoked
	Placeholder string       // what the workload holds instead; empty: nothing
	Revoked     bool         // requests that would get it are refused

	Used func(now time.Time) // called for each request that it is used for; nil: nobody counts
}

// A Set holds one session's secrets by the origins that they are bound to. It is immutable and safe for
// concurrent use, except for Wipe.
type Set struct {
	byOrigin map[protocol.Authority][]*Use // proxied secrets, by name
	byMark   []*Use                        // those with a placeholder
	position map[string]bool               // folded names of fields that are credential positions
	secrets  []Secret
	former   []Secret         // versions that others have taken the place of
	revoked  map[version]bool // of secrets and former ones
}

// A version names one version of a secret of the session's agent.
type version struct {
	name   string
	number int
}

// A Use is one secret chosen for one origin. The zero value is not usable; Set.Select makes them. It has an
// injector, which puts the secret into requests, or a signer, which never does.
type Use struct {
	Name     string // of the secret
	Version  int
	Injector Injector    // nil: there is a signer
	Signer   sign.Signer // nil: there is an injector

	secret   Secret
	identity *Identity // nil: the secret is no client certificate
	mark     int       // where the mark stands in the placeholder
}

// NewSet compiles the secrets of a session. Exposed ones are kept for Wipe alone: they are in the
// workload's environment and no request gets them. So are those without an audience, such as one whose
// agent file takes the exposure back. All others are checked anew as they were when set: between the two
// lies a file.
func NewSet(secrets []Secret) (*Set, error) {
	s := &Set{
		byOrigin: map[protocol.Authority][]*Use{},
		position: map[string]bool{},
		secrets:  slices.Clone(secrets),
		revoked:  map[version]bool{},
	}
	for _, sec := range secrets {
		if sec.Revoked {
			s.revoked[version{sec.Meta.Name, sec.Meta.Version}] = true
		}
		if sec.Meta.Expose != control.ExposeNone || len(sec.Meta.Audience) == 0 {
			continue
		}
		if err := s.add(sec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *Set) add(sec Secret) error {
	m := sec.Meta
	if err := control.CheckMeta(m); err != nil {
		return fmt.Errorf("secret %s: %w", m.Name, err)
	}
	if control.OriginSchemeOf(m.Inject) != "https" {
		return s.addMark(&Use{Name: m.Name, Version: m.Version, secret: sec})
	}
	u := &Use{Name: m.Name, Version: m.Version, Signer: sign.New(m), secret: sec}
	if u.Signer == nil {
		var err error
		if u.Injector, err = NewInjector(m); err != nil {
			return err
		}
	}
	if m.Inject.Scheme == control.SchemeClientCert {
		u.identity = &Identity{value: sec.Value}
	}
	for _, f := range m.Inject.Fields {
		s.position[protocol.FoldName(f.Name)] = true
	}
	if m.Inject.Scheme == control.SchemeCookie {
		s.position["cookie"] = true
	}
	for _, origin := range m.Audience {
		a, err := control.ParseOrigin(origin)
		if err != nil {
			return fmt.Errorf("secret %s: %w", m.Name, err)
		}
		s.byOrigin[a] = append(s.byOrigin[a], u)
	}
	return s.addMark(u)
}

// addMark makes u known by its placeholder, if it has one.
func (s *Set) addMark(u *Use) error {
	if u.secret.Placeholder == "" {
		return nil
	}
	if u.mark = strings.Index(u.secret.Placeholder, control.PlaceholderMark); u.mark < 0 {
		return fmt.Errorf("secret %s: its placeholder is not one", u.Name)
	}
	s.byMark = append(s.byMark, u)
	return nil
}

// Select returns the secret to use for a request to a with the given scheme and fields, or nil where
// none is bound to that origin. Its error is a *protocol.RefusedError:
//
//   - ReasonInsecureScheme: http to a host that a secret is bound to. It would leave without the
//     credential, but with everything else, where the workload believes to be authenticated.
//   - ReasonPlaceholder: a credential position holds the placeholder of a secret that is not bound to
//     this origin, or of another session.
//   - ReasonAmbiguousCredential: several secrets fit and the workload sent the placeholder of none, or
//     those of several.
//   - ReasonRevoked, ReasonExpired: the secret is in use no more.
//
// Credential positions are authorization, proxy-authorization, x-api-key and the fields that any secret
// of the session is put into, each as often as it stands there. Elsewhere a placeholder is text.
func (s *Set) Select(a protocol.Authority, scheme string, fields protocol.Fields) (*Use, error) {
	var candidates []*Use
	switch {
	case scheme == "https":
		candidates = s.byOrigin[a]
	case scheme == "http" && s.secured(a):
		return nil, refuse(protocol.ReasonInsecureScheme, "http to %s, which a secret is bound to", a)
	}
	chosen, err := s.placeholders(a, candidates, fields)
	if err != nil {
		return nil, err
	}
	switch {
	case chosen != nil:
	case len(candidates) == 0:
		return nil, nil
	case len(candidates) > 1:
		return nil, refuse(protocol.ReasonAmbiguousCredential, "%s are all bound to %s", names(candidates), a)
	default:
		chosen = candidates[0]
	}
	if err := s.Usable(chosen, a); err != nil {
		return nil, err
	}
	return chosen, nil
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

// placeholders returns the candidate whose placeholder stands in a credential position, or nil.
func (s *Set) placeholders(a protocol.Authority, candidates []*Use, fields protocol.Fields) (chosen *Use, err error) {
	for i := range fields {
		name := protocol.FoldName(fields[i].Name)
		if !isAuthField(name) && !s.position[name] {
			continue
		}
		marks(fields[i].Value, func(before, from string) bool {
			u := s.owner(before, from)
			switch {
			case u == nil:
				err = refuse(protocol.ReasonPlaceholder, "field %q: a placeholder that is not of this session", name)
			case !slices.Contains(candidates, u):
				err = refuse(protocol.ReasonPlaceholder, "field %q: the placeholder of %s, which is not bound to %s", name, u.Name, a)
			case chosen != nil && chosen != u:
				err = refuse(protocol.ReasonAmbiguousCredential, "placeholders of %s and %s in one request", chosen.Name, u.Name)
			default:
				chosen = u
			}
			return err == nil
		})
		if err != nil {
			return nil, err
		}
	}
	return chosen, nil
}

// Placeholders counts the placeholders in a request's head, wherever they stand, if the session has any.
func (s *Set) Placeholders(path string, fields protocol.Fields) int {
	if len(s.byMark) == 0 {
		return 0
	}
	n := strings.Count(path, control.PlaceholderMark)
	for i := range fields {
		n += strings.Count(fields[i].Value, control.PlaceholderMark)
	}
	return n
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

func names(uses []*Use) string {
	all := make([]string, len(uses))
	for i, u := range uses {
		all[i] = u.Name
	}
	return strings.Join(all, ", ")
}

func refuse(reason protocol.Reason, format string, args ...any) error {
	return protocol.Refuse(reason, fmt.Errorf(format, args...))
}
