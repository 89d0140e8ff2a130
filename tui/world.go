package tui

import (
	"cmp"
	"errors"
	"slices"
	"time"

	"torno.internal/protocol/control"
)

// A world is what the broker last said. Pages read it; Desk.Update alone changes it.
type world struct {
	now   time.Time
	still bool // nothing may move by itself
	wide  bool // details stand beside lists

	reach   reach
	problem string    // why the broker can't be asked
	asked   time.Time // when the question that is open was asked; zero: none is
	heard   time.Time // when the broker last answered

	health   control.Health
	key      control.KeyInfo
	presets  []control.Preset
	secrets  []control.SecretInfo
	sessions []control.SessionInfo
	waiting  []control.Approval // for a person, who was asked first first
	log      requestLog
}

// reach says whether the broker answers.
type reach int

const (
	reachUnknown reach = iota // nobody has been asked yet
	reachUp
	reachDown
)

// slowAfter is how long an answer may take before a person is told that we wait for it.
const slowAfter = 3 * time.Second

// slow reports whether the broker leaves us waiting.
func (w *world) slow() bool { return !w.asked.IsZero() && w.now.Sub(w.asked) > slowAfter }

// take takes over what the broker answered, in an order that does not change from one answer to the next.
func (w *world) take(m polledMsg) {
	w.asked = time.Time{}
	if m.err != nil {
		w.problem = m.err.Error()
		var answered *control.Error
		if w.reach = reachDown; errors.As(m.err, &answered) {
			w.reach = reachUp
		}
		return
	}
	w.reach, w.problem, w.heard = reachUp, "", w.now
	if w.health.StateDir != "" && w.health.StateDir != m.health.StateDir {
		w.log = requestLog{live: w.log.live} // another broker's audit counts anew
	}
	w.health, w.key, w.secrets, w.sessions, w.waiting = m.health, m.key, m.secrets, m.sessions, m.approvals
	slices.SortFunc(w.secrets, func(a, b control.SecretInfo) int {
		return cmp.Or(cmp.Compare(a.Agent, b.Agent), cmp.Compare(a.Name, b.Name))
	})
	slices.SortFunc(w.sessions, func(a, b control.SessionInfo) int {
		return cmp.Or(b.Created.Compare(a.Created), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(w.waiting, func(a, b control.Approval) int {
		return cmp.Or(a.Asked.Compare(b.Asked), cmp.Compare(a.ID, b.ID))
	})
}

// overdue reports whether an approval's time is over: nobody can decide on it any more.
func (w *world) overdue(a *control.Approval) bool { return !a.Expires.After(w.now) }

// preset returns the preset that a secret's name means.
func (w *world) preset(name string) (control.Preset, bool) {
	i := slices.IndexFunc(w.presets, func(p control.Preset) bool { return slices.Contains(p.Keys, name) })
	if i < 0 {
		return control.Preset{}, false
	}
	return w.presets[i], true
}

// secret returns what is known of a secret that is set.
func (w *world) secret(agent, name string) (control.SecretInfo, bool) {
	i := slices.IndexFunc(w.secrets, func(s control.SecretInfo) bool { return s.Agent == agent && s.Name == name })
	if i < 0 {
		return control.SecretInfo{}, false
	}
	return w.secrets[i], true
}

// users are the live sessions that use a secret, by agent and name.
func (w *world) users(agent, name string) []control.SessionInfo {
	var users []control.SessionInfo
	for _, s := range w.sessions {
		if s.Agent == agent && slices.ContainsFunc(s.Secrets, func(u control.SecretUse) bool { return u.Name == name }) {
			users = append(users, s)
		}
	}
	return users
}
