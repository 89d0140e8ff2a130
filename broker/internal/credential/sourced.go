package credential

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"torno.internal/protocol/control"
)

// Expires returns when the secret is worth nothing any more: by who set it, or by where it is kept. Zero: never.
func (s *Secret) Expires() time.Time {
	switch e := s.Meta.Expires; {
	case e.IsZero(), !s.Ends.IsZero() && s.Ends.Before(e):
		return s.Ends
	default:
		return e
	}
}

// Expired reports whether the secret is worth nothing any more.
func (s *Secret) Expired(now time.Time) bool {
	e := s.Expires()
	return !e.IsZero() && !now.Before(e)
}

// Sourced reports whether some of the secrets are kept elsewhere.
func (s *Set) Sourced() bool { return s.sourced }

// Lacking returns the secrets that fit, are kept elsewhere and would have to be fetched to be used: those that are missing, and
// those that ended where a newer version may be taken.
func (s *Set) Lacking(now time.Time, fits func(*control.Meta) bool) []control.Meta {
	if !s.sourced {
		return nil
	}
	var lacking []control.Meta
	for _, sec := range s.secrets {
		m := &sec.Meta
		if m.Source == "" || s.revoked[version{m.Name, m.Version}] || !fits(m) {
			continue
		}
		ended := !sec.Ends.IsZero() && !now.Before(sec.Ends) && m.Rotation == control.RotationFollow
		if sec.Missing != nil || ended {
			lacking = append(lacking, *m)
		}
	}
	return lacking
}

// Renew returns a Set in which a version that was fetched ends at another time. Both share the values.
func (s *Set) Renew(name string, generation uint64, ends time.Time) (*Set, error) {
	secrets := slices.Clone(s.secrets)
	i := slices.IndexFunc(secrets, func(c Secret) bool { return c.Meta.Name == name && c.Generation == generation })
	if i < 0 {
		return nil, fmt.Errorf("secret %s is of another version", name)
	}
	secrets[i].Ends = ends
	t, err := NewSet(secrets)
	if err != nil {
		return nil, err
	}
	t.former = s.former
	maps.Copy(t.revoked, s.revoked)
	return t, nil
}

// Fetched returns which version u is, in the words of the source that has it; empty: it is kept here.
func (u *Use) Fetched() string { return u.secret.Fetched }
