package main

import (
	"context"
	"encoding/json"
	"maps"
	"time"
)

// renewInterval is how often leases are looked at.
const renewInterval = time.Second

// renewAll keeps the token and the leases alive, until ctx ends.
func (s *source) renewAll(ctx context.Context) {
	defer close(s.ended)
	tick := time.NewTicker(renewInterval)
	defer tick.Stop()
	var again time.Time // not before, after a failure
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if time.Now().Before(again) {
			continue
		}
		if !s.renewToken(ctx) {
			again = time.Now().Add(5 * time.Second)
			continue
		}
		s.mu.Lock()
		leases := maps.Clone(s.leases)
		s.mu.Unlock()
		for path, l := range leases {
			s.renew(ctx, path, l)
		}
	}
}

// renewToken renews the token where it is time to, or gets another. It reports whether there is one.
func (s *source) renewToken(ctx context.Context) bool {
	s.mu.Lock()
	t := s.token
	s.mu.Unlock()
	now := time.Now()
	if !t.due(now) {
		return true
	}
	if t.renewable && !t.over(now) {
		r, err := s.client.call(ctx, "POST", "auth/token/renew-self", map[string]string{})
		if err == nil && r.Auth != nil && seconds(r.Auth.Lasts) > t.lasts/2 { // else it nears the end of its life
			s.mu.Lock()
			s.token.got, s.token.lasts = now, seconds(r.Auth.Lasts)
			s.mu.Unlock()
			return true
		}
	}
	if s.roleID != "" {
		return s.logIn(ctx) == nil
	}
	return !t.over(now)
}

// renew renews a lease where it is time to. One that has ended, or can't be renewed until shortly before its end, is forgotten:
// then another is taken.
func (s *source) renew(ctx context.Context, path string, l *lease) {
	now := time.Now()
	s.mu.Lock()
	due, over, renewable := l.due(now), l.over(now), l.renewable
	s.mu.Unlock()
	if !due {
		return
	}
	if renewable && !over {
		r, err := s.client.call(ctx, "POST", "sys/leases/renew", map[string]json.RawMessage{"lease_id": quoted(l.id)})
		if err == nil && seconds(r.Lasts) > 0 {
			s.mu.Lock()
			l.got, l.lasts = now, seconds(r.Lasts)
			s.mu.Unlock()
			return
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases[path] == l {
		delete(s.leases, path)
	}
}

func quoted(s string) json.RawMessage {
	b, _ := json.Marshal(s) // strings always can be
	return b
}
