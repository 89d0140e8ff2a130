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
	Shared      string       // what it may hold instead of any secret of the same cloud; empty: nothing
	Revoked     bool         // requests that would get it are refused

	// Of one that is kept elsewhere (Meta.Source).
	Away       sign.Away // signs with the key, which never is here: there is no value; nil: there is one
	Missing    error     // why it could not be fetched: requests that would get it are refused; nil: it is there
	Fetched    string    // which version it is, in the source's words
	Generation uint64    // another for each value that was ever fetched; 0: it is kept here
	Ends       time.Time // when the source says that it is worth nothing any more; zero: never

	Used func(now time.Time) // called for each request that it is used for; nil: nobody counts
}

// A Set holds one session's secrets by the origins that they are bound to. It is immutable and safe for
// concurrent use, except for Wipe.
type Set struct {
	byOrigin map[protocol.Authority][]*Use // proxied secrets, by name
	byMark   []*Use                        // those with a placeholder
	shared   map[string][]*Use             // those with a shared one, by that
	position map[string]bool               // folded names of fields that are credential positions
	secrets  []Secret
	former   []Secret         // versions that others have taken the place of
	revoked  map[version]bool // of secrets and former ones
	sourced  bool             // some of secrets are kept elsewhere
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
		shared:   map[string][]*Use{},
		secrets:  slices.Clone(secrets),
		revoked:  map[version]bool{},
	}
	for _, sec := range secrets {
		s.sourced = s.sourced || sec.Meta.Source != ""
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
	if sec.Away != nil {
		if u.Signer = sign.NewAway(m, sec.Away); u.Signer == nil {
			return fmt.Errorf("secret %s: the %s scheme wants the key itself", m.Name, m.Inject.Scheme)
		}
	}
	if u.Signer == nil {
		var err error
		if u.Injector, err = NewInjector(m); err != nil {
			return err
		}
	}
	if m.Inject.Scheme == control.SchemeClientCert {
		u.identity = &Identity{value: sec.Value}
	}
	for _, name := range m.Inject.FieldNames() {
		s.position[protocol.FoldName(name)] = true
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

// addMark makes u known by its placeholders, as far as it has any.
func (s *Set) addMark(u *Use) error {
	if shared := u.secret.Shared; shared != "" {
		if !strings.HasPrefix(shared, control.PlaceholderMark) {
			return fmt.Errorf("secret %s: the placeholder of its cloud is not one", u.Name)
		}
		s.shared[shared] = append(s.shared[shared], u)
	}
	if u.secret.Placeholder == "" {
		return nil
	}
	if u.mark = strings.Index(u.secret.Placeholder, control.PlaceholderMark); u.mark < 0 {
		return fmt.Errorf("secret %s: its placeholder is not one", u.Name)
	}
	s.byMark = append(s.byMark, u)
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
