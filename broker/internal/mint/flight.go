package mint

import (
	"context"
	"fmt"
	"time"

	"torno.internal/protocol/secret"
)

// A flight is one call of a token endpoint, for all who wait for the same token.
type flight struct {
	done  chan struct{} // closed when token or err is there
	token *Token
	err   error
}

// start begins a flight for e; the Minter's mu is held. The value is copied: who asks may be gone, and the
// value wiped, before the flight ends.
func (m *Minter) start(fam family, all *tokens, e *entry, src *Source, purpose string) error {
	g, err := newGrant(&src.Meta)
	if err != nil {
		return err
	}
	own := *src
	if n := len(all.refreshed); n > 0 {
		own.Value = all.refreshed[n-1].Value
	}
	own.Value = secret.New(own.Value.AppendTo(nil))
	f := &flight{done: make(chan struct{})}
	e.flight = f
	m.wg.Go(func() {
		defer own.Value.Wipe()
		token, replacement, err := m.fetch(g, &own, purpose)
		if len(replacement) > 0 {
			err = m.replace(&own, replacement)
		}
		a, _, called := own.Meta.Inject.TokenEndpoint()
		m.land(fam, e, f, token, replacement, err)
		if (called || err != nil) && m.Notify != nil && m.ctx.Err() == nil {
			m.Notify(Event{Meta: &own.Meta, Endpoint: a, Err: err})
		}
	})
	return nil
}

// fetch calls the token endpoint, or makes the token.
func (m *Minter) fetch(g grant, src *Source, purpose string) (token *Token, replacement []byte, err error) {
	ctx, cancel := context.WithTimeout(m.ctx, timeout)
	defer cancel()
	var req *Request
	now := time.Now()
	if l, ok := g.(local); ok {
		var made *answered
		err := src.Value.Use(func(value []byte) (err error) { made, err = l.make(value, now); return err })
		if err != nil {
			return nil, nil, err
		}
		return made.token(now), nil, nil
	}
	err = src.Value.Use(func(value []byte) (err error) {
		req, err = g.request(value, purpose, now)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	defer req.wipe()
	answer, err := m.Fetcher.Fetch(ctx, src.Meta.Agent, req)
	if err != nil {
		return nil, nil, fmt.Errorf("calling the token endpoint: %w", err)
	}
	defer secret.Wipe(answer.Content)
	got, err := readAnswer(g, answer, now)
	if err != nil {
		return nil, nil, err
	}
	if r, ok := g.(replacer); ok && len(got.refresh) > 0 {
		err = src.Value.Use(func(old []byte) (err error) {
			replacement, err = r.replacement(old, got.refresh)
			return err
		})
	}
	return got.token(now), replacement, err
}

// A replacer is a grant whose secret an answer may replace.
type replacer interface {
	// replacement returns what takes the place of the value old.
	replacement(old, refresh []byte) ([]byte, error)
}

// replace stores what takes the value's place, before anything is made of the answer: the old one may be
// worthless by now.
func (m *Minter) replace(src *Source, value []byte) error {
	if src.Replace == nil {
		return nil
	}
	if err := src.Replace(value); err != nil {
		return fmt.Errorf("storing the refresh token that was issued: %w", err)
	}
	return nil
}

// land ends a flight.
func (m *Minter) land(fam family, e *entry, f *flight, token *Token, replacement []byte, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(f.done)
	f.token, f.err, e.flight, e.err = token, err, nil, err
	all := m.families[fam]
	if len(replacement) > 0 && all != nil {
		all.refreshed = append(all.refreshed, &Token{Value: secret.New(replacement)})
		all.generation++
	}
	if err != nil {
		e.backOff = min(max(2*e.backOff, minBackOff), maxBackOff)
		e.retry = time.Now().Add(e.backOff)
		return
	}
	old := e.token
	e.token, e.backOff = token, 0
	if all == nil {
		return
	}
	all.generation++
	switch {
	case !all.has(e): // it was forgotten meanwhile, and who waits for the token may still send it
		all.former = append(all.former, token)
	case old != nil:
		all.former = append(all.former, old)
	}
	all.expire(time.Now())
}
