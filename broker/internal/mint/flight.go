package mint

import (
	"context"
	"fmt"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol/control"
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
func (m *Minter) start(fam family, all *tokens, e *entry, c *call, src *Source) (err error) {
	own := *src
	if n := len(all.refreshed); n > 0 {
		own.Value = all.refreshed[n-1].Value
	}
	own.Value = secret.New(own.Value.AppendTo(nil))
	if alg := src.Meta.Inject.Param(control.ParamDPoP); alg != "" && all.bound == nil {
		if all.bound, err = newBinding(alg, own.Value); err != nil {
			own.Value.Wipe()
			return err
		}
	}
	c.src, c.bound = &own, all.bound
	f := &flight{done: make(chan struct{})}
	e.flight = f
	m.wg.Go(func() {
		defer own.Value.Wipe()
		token, replacement, err := m.fetch(c)
		if replacement != nil {
			err = m.replace(&own, replacement.Value)
		}
		a, _, called := own.Meta.Inject.TokenEndpoint()
		m.land(fam, e, f, token, replacement, err)
		if (called || err != nil) && m.Notify != nil && m.ctx.Err() == nil {
			m.Notify(Event{Meta: &own.Meta, Endpoint: a, Err: err})
		}
	})
	return nil
}

// A call is one of a token endpoint.
type call struct {
	grant
	src     *Source
	purpose string
	bound   *binding // nil: tokens are bound to nothing
}

// fetch calls the token endpoint, and once more if it wants a nonce, or makes the token.
func (m *Minter) fetch(c *call) (token, replacement *Token, err error) {
	ctx, cancel := context.WithTimeout(m.ctx, timeout)
	defer cancel()
	now := time.Now()
	if l, ok := c.grant.(local); ok {
		var made *answered
		err := c.src.Value.Use(func(value []byte) (err error) { made, err = l.make(value, now); return err })
		if err != nil {
			return nil, nil, err
		}
		return made.token(now), nil, nil
	}
	answer, again, err := m.ask(ctx, c, now)
	if err == nil && again {
		secret.Wipe(answer.Content)
		answer, _, err = m.ask(ctx, c, now)
	}
	if err != nil {
		return nil, nil, err
	}
	defer secret.Wipe(answer.Content)
	got, err := readAnswer(c.grant, answer, now)
	if err == nil {
		err = c.check(got)
	}
	if err != nil {
		return nil, nil, err
	}
	if r, ok := c.grant.(replacer); ok && len(got.refresh) > 0 {
		replacement, err = c.replacement(r, got.refresh)
	}
	token = got.token(now)
	token.bound = c.bound
	if r, ok := c.grant.(registry); ok {
		token.asked = r.asked
	}
	return token, replacement, err
}

// ask sends one request to the token endpoint. again says that its answer is worth a second one.
func (m *Minter) ask(ctx context.Context, c *call, now time.Time) (answer *Answer, again bool, err error) {
	var req *Request
	err = c.src.Value.Use(func(value []byte) (err error) {
		req, err = c.request(value, c.purpose, now)
		return err
	})
	if err != nil {
		return nil, false, err
	}
	defer req.wipe()
	var proof Proof
	if c.bound != nil {
		if proof, err = c.bound.prove(req.Method, req.Authority, req.Path, secret.Value{}, now); err != nil {
			return nil, false, err
		}
		req.Proof = append(req.Proof, sign.Field{Name: "dpop", Value: proof.Value})
	}
	if answer, err = m.Fetcher.Fetch(ctx, c.src.Meta.Agent, req); err != nil {
		return nil, false, fmt.Errorf("calling the token endpoint: %w", err)
	}
	answer.asked = c.src.Value
	return answer, c.bound != nil && c.bound.wanted(req.Authority, proof, answer), nil
}

// check refuses a token that is not bound as it should be: whoever got hold of it could send it.
func (c *call) check(got *answered) error {
	if c.bound == nil {
		return nil
	}
	err := c.bound.checkBound(got.access)
	if err != nil {
		secret.Wipe(got.access)
	}
	return err
}

// A replacer is a grant whose secret an answer may replace.
type replacer interface {
	// replacement returns what takes the place of the value old. key is what the refresh token is bound to, in PEM; empty:
	// nothing.
	replacement(old, refresh, key []byte) ([]byte, error)
}

// replacement returns what takes the place of the secret's value.
func (c *call) replacement(r replacer, refresh []byte) (*Token, error) {
	var key []byte
	if c.bound != nil {
		var err error
		if key, err = c.bound.PEM(); err != nil {
			return nil, err
		}
		defer secret.Wipe(key)
	}
	var value []byte
	err := c.src.Value.Use(func(old []byte) (err error) {
		value, err = r.replacement(old, refresh, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &Token{Value: secret.New(value), parts: []Part{{Value: secret.New(refresh)}}}, nil
}

// replace stores what takes the value's place, before anything is made of the answer: the old one may be
// worthless by now.
func (m *Minter) replace(src *Source, value secret.Value) error {
	if src.Replace == nil {
		return nil
	}
	if err := value.Use(src.Replace); err != nil {
		return fmt.Errorf("storing the refresh token that was issued: %w", err)
	}
	return nil
}

// land ends a flight.
func (m *Minter) land(fam family, e *entry, f *flight, token, replacement *Token, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer close(f.done)
	f.token, f.err, e.flight, e.err = token, err, nil, err
	all := m.families[fam]
	if replacement != nil && all != nil {
		all.refreshed = append(all.refreshed, replacement)
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
