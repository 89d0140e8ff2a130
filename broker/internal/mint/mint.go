// Package mint trades secrets for access tokens at token endpoints (OAuth 2.0, RFC 6749 §3.2, and what grew
// around it) or for temporary keys at AWS's Security Token Service (awsrole.go), and keeps what it gets in memory until shortly
// before it expires. A secret that mints never goes to the hosts that it is for: they get tokens, or what keys have signed.
//
// Where a token endpoint is, is sealed with the secret. It is reached through the same guarded dialer as
// every upstream, no redirect is followed, and what it answers is bounded and checked before anything is made
// of it.
package mint

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Limits on tokens.
const (
	maxTokens    = 128              // of one version of a secret, that are kept
	maxRefreshed = 16               // refresh tokens that took the secret's place, that are searched for
	maxAnswer    = 64 << 10         // bytes of a token endpoint's answer
	maxToken     = 16 << 10         // bytes of a token
	minLifetime  = 30 * time.Second // what a shorter lifetime is taken for
	maxLifetime  = 24 * time.Hour   // and a longer one
	maxWorth     = 30 * maxLifetime // for how long at most a token is searched for in answers
	lifetime     = 5 * time.Minute  // and none at all
	ahead        = 5 * time.Minute  // how long before its end a token is renewed; at most a quarter of its life
	freshness    = 10 * time.Second // Minter.Fresh where that is zero
	timeout      = 20 * time.Second // one call of a token endpoint, the dial included
	minBackOff   = time.Second      // after a call that failed, doubled each time
	maxBackOff   = time.Minute
)

// Timeout is how long one call of a token endpoint may take.
const Timeout = timeout

// A Source is a secret that mints.
type Source struct {
	Meta  control.Meta
	Value secret.Value

	// Replace stores what takes the value's place from now on, with a refresh token that was issued with an
	// access token (RFC 6749 §6). It is called while no other token of the secret is used.
	Replace func(value []byte) error
}

// A Token is an access token, or temporary keys that sign. It is immutable, and never wiped while somebody may use it.
type Token struct {
	Value secret.Value // of keys: ID:SECRET:TOKEN, as control.ParseAWSKeys reads it

	parts               []Part
	bound               *binding // nil: whoever has it may send it
	asked               asked    // by a registry
	got, renew, expires time.Time
	worthless           time.Time // when no host takes it any more, as far as anybody has said
}

// A Fetcher calls token endpoints. It follows no redirect and returns answers of any status.
type Fetcher interface {
	Fetch(ctx context.Context, agent string, req *Request) (*Answer, error)
}

// An Event says that a token endpoint was called.
type Event struct {
	Meta     *control.Meta
	Endpoint protocol.Authority
	Err      error // nil: there is a token. It quotes no secret
}

// A Minter keeps tokens. It is safe for concurrent use. Close it when done.
type Minter struct {
	Fetcher Fetcher
	Notify  func(Event)   // called after each call of a token endpoint, and where a token could not be made without one; nil: nobody is told
	Fresh   time.Duration // a token that is younger is not renewed because a host refuses it; zero: 10 s

	ctx    context.Context // of all flights
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	families map[family]*tokens
}

// A family is one version of a secret.
type family struct {
	agent, name string
	version     int
}

// tokens are those of one family, by what they are for.
type tokens struct {
	current    map[string]*entry
	former     []*Token // replaced ones, which hosts may still repeat
	generation uint64   // how many there have been
	refreshed  []*Token // what took the place of the secret's value, the last one now
	bound      *binding // that tokens are bound to; nil: not yet, or they are not
	asks       asks     // of registries
}

// An entry is what is known of one token.
type entry struct {
	token   *Token  // nil: none yet
	flight  *flight // nil: none under way
	err     error   // of the last call, if it failed
	retry   time.Time
	backOff time.Duration
}

// New returns a Minter.
func New(f Fetcher, notify func(Event)) *Minter {
	m := &Minter{Fetcher: f, Notify: notify, families: map[family]*tokens{}}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	return m
}

// Close ends the calls that are under way and forgets all tokens.
func (m *Minter) Close() {
	m.mu.Lock()
	m.closed = true
	m.families = nil
	m.mu.Unlock()
	m.cancel()
	m.wg.Wait()
}

var (
	errClosed   = errors.New("the broker is ending")
	errTooMany  = errors.New("too many different tokens of one secret")
	errNoMinter = errors.New("the secret mints nothing")
)

// Token returns a token for src that has not expired. Purpose is what of a request decides which token it
// needs, as Purpose returns it. One that is about to expire is renewed while it is still used; whoever needs one that is not
// there waits for the one call that is under way. The token is nil where only a challenge of the host's can say how one is
// got, see Challenged. Errors are *protocol.RefusedError.
func (m *Minter) Token(ctx context.Context, src *Source, purpose string) (*Token, error) {
	now := time.Now()
	t, f, err := m.look(src, purpose, now)
	if err != nil {
		return nil, protocol.Refuse(protocol.ReasonCredential, err)
	}
	if f == nil || t != nil && now.Before(t.expires) {
		return t, nil
	}
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, protocol.Refuse(protocol.ReasonSessionEnded, context.Cause(ctx))
	}
	if f.err != nil {
		return nil, protocol.Refuse(protocol.ReasonCredential, f.err)
	}
	return f.token, nil
}

// look returns a token that can be used, or the flight that will bring one.
func (m *Minter) look(src *Source, purpose string, now time.Time) (*Token, *flight, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, nil, errClosed
	}
	fam := family{src.Meta.Agent, src.Meta.Name, src.Meta.Version}
	all := m.families[fam]
	if all == nil {
		all = &tokens{current: map[string]*entry{}}
		m.families[fam] = all
	}
	e := all.current[purpose]
	usable := e != nil && e.token != nil && now.Before(e.token.expires)
	if usable && now.Before(e.token.renew) {
		return e.token, nil, nil
	}
	g, err := all.grant(src, purpose)
	if g == nil {
		return nil, nil, err
	}
	if e == nil {
		if all.expire(now); len(all.current)+len(all.former) >= maxTokens {
			return nil, nil, errTooMany
		}
		e = &entry{}
		all.current[purpose] = e
	}
	if e.flight == nil {
		if now.Before(e.retry) {
			if usable {
				return e.token, nil, nil
			}
			return nil, nil, e.err
		}
		if err := m.start(fam, all, e, &call{grant: g, purpose: purpose}, src); err != nil {
			return nil, nil, err
		}
	}
	return e.token, e.flight, nil
}

// grant returns the grant that a token for purpose is got by; nil where only a challenge can say how.
func (all *tokens) grant(src *Source, purpose string) (grant, error) {
	g, err := newGrant(&src.Meta)
	if err != nil {
		return nil, err
	}
	r, ok := g.(registry)
	if !ok {
		return g, nil
	}
	if r.asked, ok = all.asks.of(r, purpose); !ok {
		return nil, nil
	}
	return r, nil
}

// expire ends the use of tokens that have expired, and forgets those that no host takes any more: where there are too many,
// those too of which that is likely, the oldest first.
func (all *tokens) expire(now time.Time) {
	for purpose, e := range all.current {
		if e.flight != nil || now.Before(e.retry) || e.token != nil && now.Before(e.token.expires) {
			continue
		}
		if e.token != nil {
			all.former = append(all.former, e.token)
		}
		delete(all.current, purpose)
	}
	all.former = slices.DeleteFunc(all.former, func(t *Token) bool { return !now.Before(t.worthless) })
	tooMany := len(all.current) + len(all.former) - maxTokens + 1
	all.former = slices.DeleteFunc(all.former, func(t *Token) bool {
		likely := tooMany > 0 && !now.Before(t.expires)
		if likely {
			tooMany--
		}
		return likely
	})
	if n := len(all.refreshed); n > maxRefreshed {
		all.refreshed = slices.Delete(all.refreshed, 0, n-maxRefreshed)
	}
}

// has reports whether e is still what is known of a token.
func (all *tokens) has(e *entry) bool {
	for _, known := range all.current {
		if known == e {
			return true
		}
	}
	return false
}

// Refused says that a host did not take t. The next Token is another one, unless t is so young that another
// would not help.
func (m *Minter) Refused(src *Source, purpose string, t *Token) (another bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.families[family{src.Meta.Agent, src.Meta.Name, src.Meta.Version}]
	if all == nil || all.current[purpose] == nil {
		return false
	}
	e := all.current[purpose]
	if e.token != t {
		return e.token != nil
	}
	now := time.Now()
	return now.Sub(t.got) >= cmp.Or(m.Fresh, freshness) && !now.Before(e.retry) && all.retire(e, now)
}

// retire gives e's token up, unless there are too many that hosts may still take.
func (all *tokens) retire(e *entry, now time.Time) bool {
	if all.expire(now); !all.has(e) {
		return true // it had expired
	}
	if len(all.current)+len(all.former) >= maxTokens {
		return false
	}
	all.former = append(all.former, e.token)
	e.token = nil
	return true
}

// Live returns the tokens of one version of a secret that a host may have been given and still take, and how
// many there have been: while that stays the same, so do they, but for those that expire.
func (m *Minter) Live(meta *control.Meta) ([]*Token, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.families[family{meta.Agent, meta.Name, meta.Version}]
	if all == nil {
		return nil, 0
	}
	live := slices.Concat(all.former, all.refreshed)
	for _, e := range all.current {
		if e.token != nil {
			live = append(live, e.token)
		}
	}
	return live, all.generation
}

// Generation returns how many tokens there have been of one version of a secret.
func (m *Minter) Generation(meta *control.Meta) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if all := m.families[family{meta.Agent, meta.Name, meta.Version}]; all != nil {
		return all.generation
	}
	return 0
}

// Forget ends the use of the tokens of one version of a secret, or of all for 0. Live still returns them: hosts
// that were given them may repeat them.
func (m *Minter) Forget(agent, name string, version int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for fam, all := range m.families {
		if fam.agent != agent || fam.name != name || version != 0 && fam.version != version {
			continue
		}
		for _, e := range all.current {
			if e.token != nil {
				all.former = append(all.former, e.token)
			}
		}
		clear(all.current)
	}
}
