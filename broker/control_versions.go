package broker

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
)

// secretHistory describes every version of a secret, oldest first.
func (b *Broker) secretHistory(r *http.Request) ([]control.SecretVersion, error) {
	agent, name := r.FormValue("agent"), r.FormValue("name")
	all, err := b.store.History(agent, name)
	if err != nil {
		return nil, noSecret(err, agent, name, 0)
	}
	using := map[int]int{} // sessions by version
	for _, s := range b.sessions(agent) {
		if sec, ok := s.secrets().Current(name); ok && !s.secrets().Revoked(name) {
			using[sec.Meta.Version]++
		}
	}
	versions := make([]control.SecretVersion, 0, len(all))
	for i := range all {
		v := versionInfo(&all[i], time.Now())
		if v.State == control.VersionCurrent && i < len(all)-1 {
			v.State = control.VersionSuperseded
		}
		v.Sessions = using[v.Version]
		versions = append(versions, v)
	}
	return versions, nil
}

// versionInfo describes a version that may be the newest.
func versionInfo(ver *store.Version, now time.Time) control.SecretVersion {
	v := control.SecretVersion{Meta: ver.Meta, State: control.VersionCurrent, Revoked: ver.Revoked, Uses: ver.Uses, LastUsed: ver.Last}
	switch {
	case !ver.Revoked.IsZero():
		v.State = control.VersionRevoked
	case !ver.Expires.IsZero() && !now.Before(ver.Expires):
		v.State = control.VersionExpired
	}
	return v
}

// revokeSecret destroys one version of a secret, or all that are there, and ends their use at once in every
// session. Who waits for its answer knows that nothing is open any more that had it.
func (b *Broker) revokeSecret(r *http.Request) ([]control.SecretVersion, error) {
	agent, name := r.FormValue("agent"), r.FormValue("name")
	number := 0
	if text := r.FormValue("version"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("version %q is not a number from 1", text)}
		}
		number = n
	}
	revoked, err := b.store.RevokeSecret(agent, name, number)
	if err != nil {
		return nil, noSecret(err, agent, name, number)
	}
	b.revokeAll(agent, name, number)
	versions := make([]control.SecretVersion, 0, len(revoked))
	for i := range revoked {
		versions = append(versions, versionInfo(&revoked[i], time.Now()))
	}
	return versions, nil
}

// revokeAll ends the use of one version of a secret, or of all for 0, in every live session of the agent.
func (b *Broker) revokeAll(agent, name string, number int) {
	for _, s := range b.sessions(agent) {
		s.revokeSecret(name, number)
	}
}

// noSecret says to an operator why a secret, or one version of it, is not there.
func noSecret(err error, agent, name string, number int) error {
	switch {
	case errors.Is(err, store.ErrNotFound) && number > 0:
		return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("agent %q has no secret %q with a version %d", agent, name, number),
			Hint: fmt.Sprintf("torno secrets history %s %s", agent, name)}
	case errors.Is(err, store.ErrNotFound):
		return &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("agent %q has no secret %q", agent, name),
			Hint: "torno secrets list " + agent}
	case errors.Is(err, store.ErrRevoked):
		return &control.Error{Code: control.CodeConflict, Message: name + " is revoked already", Hint: fmt.Sprintf("torno secrets history %s %s", agent, name)}
	}
	return explain(err)
}
