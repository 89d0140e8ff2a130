package session

import "slices"

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
