package session

import (
	"slices"

	"torno.internal/protocol/control"
)

// Grants returns what a person has allowed for the rest of the session, as rules.
func (s *Session) Grants() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rec.Grants)
}

// Grant adds to what Grants returns, also for a broker that starts again.
func (s *Session) Grant(rule string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.update(func(r *record) { r.Grants = append(slices.Clone(r.Grants), rule) })
}

// Withdraw takes rule away again.
func (s *Session) Withdraw(rule string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.update(func(r *record) {
		r.Grants = slices.DeleteFunc(slices.Clone(r.Grants), func(g string) bool { return g == rule })
	})
}

// grants are rules as people see them.
func grants(rules []string) []control.Grant {
	var all []control.Grant
	for _, r := range rules {
		all = append(all, control.NewGrant(r))
	}
	return all
}
