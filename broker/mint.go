package broker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"runtime"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/mint"
	"torno.internal/broker/internal/redact"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/http1"
)

// mint gets the access token that the exchange needs, if its secret is one that mints, and has what comes
// back searched for it. Nothing has been sent by then.
func (x *exchange) mint(ctx context.Context) error {
	if x.use == nil || x.bare || !x.use.Mints() {
		return nil
	}
	sec := x.use.Secret()
	x.source = &mint.Source{Meta: sec.Meta, Value: sec.Value}
	if sec.Meta.Source == "" { // else there is no way to write back what replaces it
		x.source.Replace = func(value []byte) error {
			return x.s.b.store.Replace(sec.Meta.Agent, sec.Meta.Name, sec.Meta.Version, value)
		}
	}
	x.purpose = mint.Purpose(sec.Meta.Inject, x.authority, x.req)
	t, err := x.s.b.mints.Token(ctx, x.source, x.purpose)
	if err != nil {
		return err
	}
	x.token, x.unasked = t, t == nil
	x.sent, x.target = x.req.Fields.Clone(), x.req.Path
	x.guarded = x.s.guarded(x.authority, x.req.Scheme)
	return nil
}

// regard has the response searched for tokens that have come since the request was sent.
func (x *exchange) regard() {
	if len(x.guarded.minted.metas) > 0 {
		x.guarded = x.s.guarded(x.authority, x.req.Scheme)
	}
}

// tokenPool names the connections to token endpoints of one agent: no workload's request travels there.
func tokenPool(agent string) string { return "mint " + agent }

// A fetcher calls token endpoints through the broker's own upstream client, and so past the address guard.
type fetcher struct{ upstream *upstream.Client }

// Fetch implements mint.Fetcher.
func (f fetcher) Fetch(ctx context.Context, agent string, req *mint.Request) (*mint.Answer, error) {
	up, err := f.upstream.Open(ctx, upstream.PoolKey{Session: tokenPool(agent), Scheme: "https", Authority: req.Authority})
	if err != nil {
		return nil, err
	}
	defer up.Release(false)
	up.Confide()
	if err := up.WriteHead(tokenRequest(req), tokenCredentials(req), int64(len(req.Content))); err != nil {
		return nil, err
	}
	if len(req.Content) > 0 {
		if _, err := up.Write(req.Content); err != nil {
			return nil, err
		}
	}
	if err := up.CloseWrite(nil); err != nil {
		return nil, err
	}
	var resp protocol.Response
	for resp.Status < 200 { // interim ones are counted by the upstream
		resp = protocol.Response{}
		if err := up.ReadResponse(&resp); err != nil {
			return nil, unquoted(err)
		}
	}
	if c := resp.Fields.Get("content-encoding"); c != "" && c != "identity" {
		return nil, errors.New("the answer is coded, which nobody asked for")
	}
	content, err := io.ReadAll(io.LimitReader(up, mint.MaxAnswer+1))
	if err != nil {
		return nil, unquoted(err)
	}
	up.Release(len(content) <= mint.MaxAnswer)
	return &mint.Answer{Status: resp.Status, Fields: resp.Fields, Content: content}, nil
}

// unquoted returns err, which stands in logs, without what a token endpoint says in it: that may be the secret that it was sent.
func unquoted(err error) error {
	var malformed *http1.Error
	if errors.As(err, &malformed) {
		return errMalformed
	}
	return err
}

var errMalformed = errors.New("the answer is malformed")

func tokenRequest(req *mint.Request) *protocol.Request {
	r := &protocol.Request{
		Method: req.Method, Scheme: "https", Authority: req.Authority.String(), Path: req.Path,
		Fields: protocol.Fields{{Name: "accept", Value: cmp.Or(req.Accept, "application/json")}, {Name: "accept-encoding", Value: "identity"}, {Name: "user-agent", Value: "torno"}},
	}
	if len(req.Content) > 0 {
		r.Fields = append(r.Fields, protocol.Field{Name: "content-type", Value: "application/x-www-form-urlencoded"})
	}
	return r
}

func tokenCredentials(req *mint.Request) []credential.Field {
	var fields []credential.Field
	if req.Authorization.Len() > 0 {
		fields = append(fields, credential.Field{Name: "authorization", Value: req.Authorization})
	}
	for _, f := range req.Proof {
		fields = append(fields, credential.Field(f))
	}
	return fields
}

// noteMint records a call of a token endpoint.
func (b *Broker) noteMint(e mint.Event) {
	r := &audit.Record{
		Agent: e.Meta.Agent, Event: eventMinted, Secret: e.Meta.Name, Version: e.Meta.Version, Authority: e.Endpoint.String(),
	}
	if e.Err != nil {
		r.Event, r.Reason = eventNotMinted, protocol.ReasonCredential.String()
		b.log.Warn("no access token", "agent", e.Meta.Agent, "secret", e.Meta.Name, "endpoint", r.Authority, "err", e.Err)
	}
	b.recordOwn(r)
}

// minted are the secrets of one guarded authority that mint, and which of their tokens it is guarded against.
type minted struct {
	metas       []control.Meta
	generations []uint64
}

func (g *minted) add(m control.Meta) {
	if m.Inject.Mints() {
		g.metas = append(g.metas, m)
		g.generations = append(g.generations, 0)
	}
}

// current reports whether no token has come since.
func (g *minted) current(m *mint.Minter) bool {
	for i := range g.metas {
		if m.Generation(&g.metas[i]) != g.generations[i] {
			return false
		}
	}
	return true
}

// matcher returns one for secrets and the tokens that there are now. It is wiped when nobody has it any more.
func (g *minted) matcher(m *mint.Minter, secrets []redact.Secret) *redact.Matcher {
	for i := range g.metas {
		g.generations[i] = m.Generation(&g.metas[i])
		secrets = append(secrets, liveTokens(m, &g.metas[i])...)
	}
	matcher := redact.NewMatcher(secrets)
	runtime.SetFinalizer(matcher, (*redact.Matcher).Wipe)
	return matcher
}

// liveTokens returns the tokens of a secret that a host may repeat.
func liveTokens(m *mint.Minter, meta *control.Meta) []redact.Secret {
	tokens, _ := m.Live(meta)
	secrets := make([]redact.Secret, 0, len(tokens))
	for _, t := range tokens {
		for _, p := range t.Parts() {
			s := redact.Secret{Value: p.Value}
			if p.Public != "" {
				s.Prefixes = []string{p.Public}
			}
			secrets = append(secrets, s)
		}
	}
	return secrets
}
