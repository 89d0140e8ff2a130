package broker

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// expiresSoon is how long before a secret expires people are warned.
const expiresSoon = 14 * 24 * time.Hour

// errUnfit means that a version can't take the place of the one that a session uses.
var errUnfit = errors.New("the session began with another meaning of the secret; start a new one")

// followAll lets the live sessions of an agent take the newest version of a secret, where that is
// to be followed. Once it returns every request that begins gets it.
func (b *Broker) followAll(agent, name string) {
	for _, s := range b.sessions(agent) {
		s.follow(name)
	}
}

// follow takes the newest version of a secret, if the one in use says so. Where that can't be, because it
// means something else now, the session loses the secret: an operator who narrowed it wants it narrowed.
func (s *live) follow(name string) {
	current, ok := s.secrets().Current(name)
	if !ok || current.Meta.Rotation != control.RotationFollow {
		return
	}
	newest, err := s.b.store.Version(s.agent, name, 0)
	if err == nil && newest.Version <= current.Meta.Version {
		return
	}
	if err == nil {
		err = s.take(newest)
	}
	if err == nil {
		s.noteVersion(eventFollowed, name, newest.Version, "")
		s.revokeGone(name, newest.Version) // while it was taken
		return
	}
	s.log.Warn("a new version of a secret is not followed", "secret", name, "version", newest.Version, "err", err)
	s.revokeSecret(name, 0)
	s.noteVersion(eventNotFollowed, name, newest.Version, protocol.ReasonRevoked.String())
}

// take puts a version in the place of the one that requests get.
func (s *live) take(ver store.Version) error {
	m, err := s.fit(ver)
	if err != nil {
		return err
	}
	s.values.Lock() // the session may end meanwhile, and wipe what it has
	defer s.values.Unlock()
	if s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	sec, err := s.b.open(m)
	if err != nil {
		return err
	}
	sec.Placeholder, sec.Shared = s.record.Placeholder(m.Name), s.record.Shared(m.Inject.Cloud())
	defer s.useSources()
	if err := refuseOverlapOf(sec, s.secrets().Exposed()); err != nil {
		sec.Value.Wipe()
		return err
	}
	for {
		old := s.secrets()
		if c, ok := old.Current(m.Name); ok && c.Meta.Version >= m.Version {
			sec.Value.Wipe()
			return nil // another took it, or a later one
		}
		set, err := old.Follow(sec)
		if err != nil {
			sec.Value.Wipe()
			return err
		}
		if s.set.CompareAndSwap(old, set) {
			s.expiry.add(&m, s.expire)
			return nil
		}
	}
}

// fit returns what a new version means in this session: no more than the secret did when the session began,
// for what is live only ever becomes narrower.
func (s *live) fit(ver store.Version) (control.Meta, error) {
	m := ver.Meta
	if !ver.Revoked.IsZero() {
		return m, store.ErrRevoked
	}
	if a, ok := s.record.Policy().Secret[m.Name]; ok {
		m = policy.Narrow(a, m)
	}
	base := s.base[m.Name]
	if m.Expose != control.ExposeNone || m.Preset != base.Preset {
		return m, errUnfit
	}
	m.Audience = slices.DeleteFunc(slices.Clone(m.Audience), func(o string) bool { return !slices.Contains(base.Audience, o) })
	if len(m.Audience) == 0 {
		return m, errUnfit
	}
	return m, control.CheckMeta(m)
}

// catchUp does what happened to the session's secrets before it was there to be told: they were deleted,
// revoked, changed outside of torno, or have newer versions.
func (s *live) catchUp() {
	for _, m := range s.secrets().Metas() {
		s.revokeGone(m.Name, m.Version)
		s.follow(m.Name)
	}
}

// revokeGone ends the use of a version that is not there any more.
func (s *live) revokeGone(name string, version int) {
	ver, err := s.b.store.Version(s.agent, name, version)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrTampered):
		s.revokeSecret(name, 0)
	case err != nil:
		s.log.Error("looking a secret up", "secret", name, "err", err)
	case !ver.Revoked.IsZero():
		s.revokeSecret(name, version)
	}
}

// revokeSecret ends the use of one version of a secret in this session, or of all that are there for 0, at
// once: what is open is cut, for any of it may have been authorised by that secret.
func (s *live) revokeSecret(name string, version int) {
	for {
		old := s.secrets()
		set := old.Revoke(name, version)
		if set == old {
			return
		}
		if s.set.CompareAndSwap(old, set) { // else another went at the same time
			break
		}
	}
	s.b.mints.Forget(s.agent, name, version)
	s.cut(protocol.ReasonRevoked, nil)
	s.notify(protocol.EventRevoke)
	s.noteVersion(eventRevokedUse, name, version, "")
}

// warnExpiring records which of the session's secrets expire soon, and returns it for people.
func (s *live) warnExpiring(now time.Time) []string {
	var warnings []string
	for _, m := range s.secrets().Metas() {
		if left := m.Expires.Sub(now); !m.Expires.IsZero() && left < expiresSoon {
			warnings = append(warnings, fmt.Sprintf("%s: expires %s; set a new value with torno secrets set %s %s", m.Name, m.Expires.UTC().Format("2006-01-02 15:04 MST"), s.agent, m.Name))
			s.noteVersion(eventExpires, m.Name, m.Version, "")
		}
	}
	return warnings
}

// noteVersion records an event of the session that is about one version of a secret. It is the broker's own
// word, which comes once for each version.
func (s *live) noteVersion(event, name string, version int, reason string) {
	s.b.recordOwn(&audit.Record{Session: s.id, Agent: s.agent, Event: event, Secret: name, Version: version, Reason: reason})
}

// unusable returns why requests can't get a version of a secret, for people; nothing if they can.
func unusable(ver *store.Version, now time.Time) string {
	switch {
	case !ver.Revoked.IsZero():
		return fmt.Sprintf("version %d was revoked %s", ver.Version, ver.Revoked.Format("2006-01-02 15:04 MST"))
	case !ver.Expires.IsZero() && !now.Before(ver.Expires):
		return fmt.Sprintf("version %d expired %s", ver.Version, ver.Expires.UTC().Format("2006-01-02 15:04 MST"))
	}
	return ""
}
