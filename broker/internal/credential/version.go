package credential

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// MaxVersions is how many versions of one secret a Set takes up one after another. A session that lives
// through more of them must be started anew: what may come back of each is still masked.
const MaxVersions = 256

// Current returns the version of a secret that requests get.
func (s *Set) Current(name string) (Secret, bool) {
	for _, sec := range s.secrets {
		if sec.Meta.Name == name {
			return sec, true
		}
	}
	return Secret{}, false
}

// Follow returns a Set in which requests get sec instead of the version that they got. Both share the
// values; the version that was is masked on, since a host that it was sent to may still repeat it.
func (s *Set) Follow(sec Secret) (*Set, error) {
	secrets := slices.Clone(s.secrets)
	i := slices.IndexFunc(secrets, func(c Secret) bool { return c.Meta.Name == sec.Meta.Name })
	if i < 0 {
		return nil, fmt.Errorf("secret %s is none of the session's", sec.Meta.Name)
	}
	n := 0
	for _, f := range s.former {
		if f.Meta.Name == sec.Meta.Name {
			n++
		}
	}
	if secrets[i].Missing == nil {
		n++
	}
	if n >= MaxVersions && sec.Missing == nil { // to end the use of one is always possible
		return nil, fmt.Errorf("secret %s has had %d versions in this session", sec.Meta.Name, n)
	}
	former := s.former
	if secrets[i].Missing == nil { // else there was no value
		former = append(slices.Clone(s.former), secrets[i])
	}
	secrets[i] = sec
	t, err := NewSet(secrets)
	if err != nil {
		return nil, err
	}
	t.former = former
	maps.Copy(t.revoked, s.revoked)
	return t, nil
}

// Revoke returns a Set in which requests that would get one version of a secret are refused, or any version
// that is there for 0. Both share the values. It returns s where there is nothing to revoke.
func (s *Set) Revoke(name string, number int) *Set {
	revoked := maps.Clone(s.revoked)
	for _, all := range [][]Secret{s.secrets, s.former} {
		for _, sec := range all {
			if sec.Meta.Name == name && (number == 0 || sec.Meta.Version == number) {
				revoked[version{name, sec.Meta.Version}] = true
			}
		}
	}
	if len(revoked) == len(s.revoked) {
		return s
	}
	t := *s
	t.revoked = revoked
	return &t
}

// Revoked reports whether the version of a secret that requests would get is revoked.
func (s *Set) Revoked(name string) bool {
	sec, ok := s.Current(name)
	return ok && s.revoked[version{name, sec.Meta.Version}]
}

// Usable returns a *protocol.RefusedError if u, which Select chose for a, may be used there no more: with ReasonRevoked if
// its version is revoked, or a later one is bound to other hosts, with ReasonExpired if it has expired meanwhile.
func (s *Set) Usable(u *Use, a protocol.Authority) error {
	now := time.Now()
	switch {
	case s.revoked[version{u.Name, u.Version}]:
		return refuse(protocol.ReasonRevoked, "secret %s version %d", u.Name, u.Version)
	case !slices.ContainsFunc(s.byOrigin[a], func(now *Use) bool { return now.Name == u.Name }):
		return refuse(protocol.ReasonRevoked, "secret %s is not bound to %s any more", u.Name, a)
	case u.secret.Missing != nil:
		return refuse(protocol.ReasonCredential, "secret %s version %d: %w", u.Name, u.Version, u.secret.Missing)
	case u.secret.Expired(now):
		return refuse(protocol.ReasonExpired, "secret %s version %d expired at %s", u.Name, u.Version, u.secret.Expires().Format(time.RFC3339))
	}
	return nil
}

// Wipe overwrites every value. No Use of the Set, nor of one that it was made of or that was made of it, may
// be in use or be used after it.
func (s *Set) Wipe() {
	for _, all := range [][]Secret{s.secrets, s.former} {
		for _, sec := range all {
			sec.Value.Wipe()
		}
	}
}

// Proxied returns the secrets that no workload may hold, former versions too, and how many others it may. The
// values are s's own.
func (s *Set) Proxied() (proxied []Secret, exposed int) {
	for _, sec := range s.secrets {
		if sec.Meta.Expose != control.ExposeNone || sec.Meta.Overlap {
			exposed++
			continue
		}
		proxied = append(proxied, sec)
	}
	for _, f := range s.former {
		if !f.Meta.Overlap {
			proxied = append(proxied, f)
		}
	}
	return proxied, exposed
}

// Exposed returns the secrets that the workload was given. The values are s's own.
func (s *Set) Exposed() []Secret {
	var all []Secret
	for _, sec := range s.secrets {
		if sec.Meta.Expose != control.ExposeNone {
			all = append(all, sec)
		}
	}
	return all
}

// Metas describes the secrets of s.
func (s *Set) Metas() []control.Meta {
	metas := make([]control.Meta, 0, len(s.secrets))
	for _, sec := range s.secrets {
		metas = append(metas, sec.Meta)
	}
	return metas
}
