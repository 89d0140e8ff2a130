package credential

import (
	"slices"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Bound returns the secrets that may be sent to a, or are traded for tokens there, and those that could be:
// revoked ones and former versions, for what a host was given before it may still repeat. The Set owns their
// values.
func (s *Set) Bound(a protocol.Authority) []Secret {
	var bound []Secret
	for _, u := range s.byOrigin[a] {
		bound = append(bound, u.secret)
	}
	if len(s.former) > 0 {
		origin := control.FormatOrigin(a)
		for _, f := range s.former {
			if slices.Contains(f.Meta.Audience, origin) {
				bound = append(bound, f)
			}
		}
	}
	return append(bound, s.mintingAt(a, bound)...)
}

// Apart returns the secrets of a scheme that go into no HTTP request, but for those that are revoked or expired. The Set
// owns their values.
func (s *Set) Apart(scheme string) []Secret {
	return s.usable(func(m *control.Meta) bool { return m.Inject.Scheme == scheme })
}

// OfCloud returns the secrets that authorise the SDKs of a cloud, but for those that are revoked or expired. The Set owns
// their values.
func (s *Set) OfCloud(c control.Cloud) []Secret {
	return s.usable(func(m *control.Meta) bool { return m.Inject.Cloud() == c && len(m.Audience) > 0 })
}

// usable returns the proxied secrets that fit and are neither revoked nor expired.
func (s *Set) usable(fits func(*control.Meta) bool) []Secret {
	var all []Secret
	for _, sec := range s.secrets {
		m := &sec.Meta
		if fits(m) && m.Expose == control.ExposeNone && sec.Missing == nil && !sec.Expired(time.Now()) && !s.revoked[version{m.Name, m.Version}] {
			all = append(all, sec)
		}
	}
	return all
}

// Kept reports whether no host is ever given anything of what Searched returns: what it answers can't repeat it. Of keys that are
// temporary hosts get the session token.
func (s Secret) Kept() bool {
	if !s.Meta.Signs() || s.Meta.Reveals() || s.Meta.Inject.Mints() || s.Value.Len() == 0 {
		return false
	}
	kept := true
	if s.Meta.Inject.Scheme == control.SchemeSigV4 {
		_ = s.Value.Use(func(value []byte) error {
			k, err := control.ParseAWSKeys(value)
			kept = err == nil && len(k.Token) == 0
			return nil
		})
	}
	return kept
}

// Preset returns the preset that the secret was set by; the zero Preset if none was. It is not to be changed.
func (s Secret) Preset() control.Preset { return presetsByName()[s.Meta.Preset] }

// mintingAt returns the secrets that a is the token endpoint of, but for those in bound.
func (s *Set) mintingAt(a protocol.Authority, bound []Secret) []Secret {
	var minting []Secret
	for _, sec := range slices.Concat(s.secrets, s.former) {
		at, _, ok := sec.Meta.Inject.TokenEndpoint()
		if !ok || at != a || slices.ContainsFunc(bound, func(b Secret) bool { return b.Meta.Name == sec.Meta.Name && b.Meta.Version == sec.Meta.Version }) {
			continue
		}
		minting = append(minting, sec)
	}
	return minting
}
