package broker

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/postgres"
	"torno.internal/broker/internal/redact"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	pgwire "torno.internal/protocol/postgres"
)

// roles returns the passwords that are bound to a.
func (s *live) roles(a protocol.Authority) []credential.Secret {
	return s.apart(control.SchemePostgres, a)
}

// apart returns the usable secrets of a scheme that are bound to a.
func (s *live) apart(scheme string, a protocol.Authority) []credential.Secret {
	return slices.DeleteFunc(s.secrets().Apart(scheme), func(sec credential.Secret) bool {
		all, err := sec.Meta.Authorities()
		return err != nil || !slices.Contains(all, a)
	})
}

// judgeTunnel refuses a tunnel that is there for a secret alone, where that is in use no more.
func (x *exchange) judgeTunnel() error {
	x.s.readyFor(x.authority)
	roles, keys := x.s.roles(x.authority), x.s.apart(control.SchemeSSH, x.authority)
	if x.decision.List == policy.ListAudience && len(roles)+len(keys) == 0 {
		return protocol.Refuse(protocol.ReasonRevoked, nil)
	}
	if len(roles) == 1 {
		x.role = &roles[0].Meta
	}
	return nil
}

// A database is one connection of the workload to a database.
type database struct {
	x     *exchange
	start *postgres.Start
	role  credential.Secret
}

// postgres serves a tunnel to a database that a password is bound to: it logs in upstream, and then carries bytes. How
// it is refused is said in the database's own words.
func (x *exchange) postgres(ctx context.Context) error {
	x.outcome.Status = 200
	head := protocol.Response{Status: 200, Fields: protocol.Fields{{Name: protocol.FieldProtocol, Value: protocol.ProtocolPostgres}}}
	if err := x.st.w.WriteResponse(&head); err != nil {
		return err
	}
	if err := x.st.w.Flush(); err != nil {
		return err
	}
	_ = x.st.conn.SetReadDeadline(time.Now().Add(protocol.HeadTimeout))
	d := &database{x: x}
	err := d.begin()
	if err == nil && d.start.Cancel != nil {
		return d.cancel(ctx)
	}
	if err == nil {
		err = d.serve(ctx)
	}
	var refused *protocol.RefusedError
	var said *postgres.ServerError
	switch {
	case errors.As(err, &said):
		x.outcome.Reason = protocol.ReasonUpstreamAuth.String()
		return errors.Join(err, x.say(said.Message))
	case errors.As(err, &refused):
		x.outcome.Reason = refused.Reason.String()
		x.s.log.Info("login to a database refused", "authority", x.name, "err", err)
		return errors.Join(err, x.say(pgwire.AppendRefusal(nil, refused.Reason)))
	}
	return err
}

// say says the last words on a stream.
func (x *exchange) say(b []byte) error {
	if _, err := x.st.w.Write(b); err != nil {
		return err
	}
	return x.st.w.Close(nil)
}

// begin reads how the client begins, and decides as whom it may go on.
func (d *database) begin() error {
	content := agentWire{d.x.st}
	var err error
	if d.start, err = postgres.ReadStart(content); err != nil {
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) {
			err = protocol.Refuse(protocol.ReasonBadRequest, err)
		}
		return err
	}
	if d.start.Cancel != nil {
		return nil
	}
	if d.role, err = d.x.s.roleFor(d.x.authority, d.start); err != nil {
		return err
	}
	if b := postgres.AppendVersion(nil, d.start); len(b) > 0 {
		if _, err := content.Write(b); err != nil {
			return err
		}
	}
	if d.role.Placeholder == "" {
		return nil
	}
	password, err := postgres.AskPassword(content)
	if err != nil {
		return protocol.Refuse(protocol.ReasonBadRequest, err)
	}
	if subtle.ConstantTimeCompare([]byte(password), []byte(d.role.Placeholder)) != 1 {
		return protocol.Refuse(protocol.ReasonWrongRole, errors.New("the password is not the placeholder"))
	}
	return nil
}

// roleFor returns the password of the user and the database that a client wants at a.
func (s *live) roleFor(a protocol.Authority, start *postgres.Start) (credential.Secret, error) {
	for _, sec := range s.roles(a) {
		in := sec.Meta.Inject
		if db := in.Param(control.ParamDatabase); in.Param(control.ParamUser) == start.Get("user") && (db == "" || db == start.Database()) {
			return sec, nil
		}
	}
	return credential.Secret{}, protocol.Refuse(protocol.ReasonWrongRole, fmt.Errorf("no secret for user %q and database %q", start.Get("user"), start.Database()))
}

// connect connects to the database's server, over TLS unless the operator wants none.
func (d *database) connect(ctx context.Context, in control.Injector) (conn duplexConn, state *tls.ConnectionState, err error) {
	x := d.x
	key := upstream.PoolKey{Session: x.s.id, Authority: x.authority}
	began := time.Now()
	nc, err := x.s.b.upstream.Tunnel(ctx, key)
	x.outcome.Dial = time.Since(began)
	if err != nil {
		return nil, nil, err
	}
	x.outcome.Upstream, x.outcome.Via = nc.RemoteAddr().String(), x.s.b.upstream.Via(x.authority)
	if in.Param(control.ParamTLS) == control.TLSOff {
		return halfCloser{nc}, nil, nil
	}
	_ = nc.SetDeadline(time.Now().Add(protocol.TLSTimeout))
	if err := postgres.AskTLS(nc); err != nil {
		return nil, nil, errors.Join(upstreamFault(err), nc.Close())
	}
	t, err := x.s.b.upstream.Secure(ctx, key, nc)
	if err != nil {
		return nil, nil, errors.Join(err, nc.Close())
	}
	_ = nc.SetDeadline(time.Time{})
	s := t.ConnectionState()
	return overTunnel{t, nc}, &s, nil
}

// A duplexConn is a connection whose writing half can be closed.
type duplexConn interface {
	net.Conn
	CloseWrite() error
}

// overTunnel is TLS over a tunnel, which closes with it.
type overTunnel struct {
	*tls.Conn
	below net.Conn
}

func (o overTunnel) Close() error { return o.below.Close() }

// upstreamFault gives an error of talking to a server the reason that it lacks.
func upstreamFault(err error) error {
	var refused *protocol.RefusedError
	var said *postgres.ServerError
	var timeout net.Error
	switch {
	case errors.As(err, &refused), errors.As(err, &said):
		return err
	case errors.As(err, &timeout) && timeout.Timeout():
		return protocol.Refuse(protocol.ReasonUpstreamTimeout, err)
	}
	return protocol.Refuse(protocol.ReasonUpstreamProtocol, err)
}

// serve logs in and carries what follows.
func (d *database) serve(ctx context.Context) error {
	x, in := d.x, d.role.Meta.Inject
	conn, state, err := d.connect(ctx, in)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := x.s.roleFor(x.authority, d.start); err != nil || x.s.suspended.Load() { // revoked meanwhile
		return errors.Join(err, protocol.Refuse(protocol.ReasonRevoked, nil))
	}
	login := postgres.Login{
		User: d.start.Get("user"), Database: d.start.Database(), Params: d.start.Params, Password: d.role.Value,
		Auth: orText(in.Param(control.ParamAuth), control.AuthScram), TLS: state,
	}
	_ = conn.SetDeadline(time.Now().Add(protocol.HeadTimeout))
	greeting, err := login.Do(conn)
	if err != nil {
		return upstreamFault(err)
	}
	_ = conn.SetDeadline(time.Time{})
	if d.role.Used != nil {
		d.role.Used(time.Now())
	}
	return d.carry(conn, greeting)
}

func orText(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// carry tells the client that it is logged in and carries bytes until both directions have ended. What repeats the
// password on its way down is masked.
func (d *database) carry(conn duplexConn, greeting *postgres.Greeting) error {
	x := d.x
	key := fmt.Sprintf("%s %s postgres %s@%d", x.s.agent, x.name, d.role.Meta.Name, d.role.Meta.Version)
	matcher := x.s.b.matchers.Get(key, func() []redact.Secret { return []redact.Secret{{Value: d.role.Value}} })
	defer x.s.b.matchers.Put(key)
	m := &masked{x: x, from: conn, scan: matcher.Scanner()}
	defer m.scan.Close()
	ours := x.s.cancels.add(x.authority, d.role.Meta.Inject, greeting.Key)
	defer x.s.cancels.remove(ours)
	first := greeting.Append(postgres.AppendAccepted(nil), ours)
	if err := m.mask(first); err != nil {
		return err
	}
	if _, err := (agentWire{x.st}).Write(first); err != nil {
		return err
	}
	x.st.conn.enter(phaseContent)
	return x.splice(conn, func() { conn.Close() }, m)
}

// masked is a server's words without what repeats the password. Messages keep their length.
type masked struct {
	x    *exchange
	from io.Reader
	scan *redact.Scanner
}

func (m *masked) Read(p []byte) (int, error) {
	n, err := m.from.Read(p)
	if merr := m.mask(p[:n]); merr != nil {
		return 0, merr
	}
	return n, err
}

func (m *masked) mask(b []byte) error { return m.x.reflected(m.scan.Mask(b)) }

// cancels are the connections to databases that a session may cancel, by the keys that its workload knows.
type cancels struct {
	mu  sync.Mutex
	all map[postgres.Key]cancelled
}

// A cancelled connection is called key at the server.
type cancelled struct {
	authority protocol.Authority
	inject    control.Injector
	key       postgres.Key
}

// add gives a connection a key of the session's own. There is none where the server gave none.
func (c *cancels) add(a protocol.Authority, in control.Injector, key *postgres.Key) *postgres.Key {
	if key == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[postgres.Key]cancelled{}
	}
	for {
		var b [8]byte
		_, _ = rand.Read(b[:])
		ours := postgres.Key{Process: binary.BigEndian.Uint32(b[:]) >> 1, Secret: binary.BigEndian.Uint32(b[4:])} // clients take the first for positive
		if _, taken := c.all[ours]; !taken {
			c.all[ours] = cancelled{a, in, *key}
			return &ours
		}
	}
}

func (c *cancels) remove(key *postgres.Key) {
	if key == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, *key)
}

func (c *cancels) find(a protocol.Authority, key postgres.Key) (cancelled, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.all[key]
	return at, ok && at.authority == a
}

// cancel passes on a wish to cancel, if it is about a connection of this session. There is no answer, whatever comes of
// it.
func (d *database) cancel(ctx context.Context) error {
	at, ok := d.x.s.cancels.find(d.x.authority, *d.start.Cancel)
	if !ok {
		d.x.outcome.Reason = protocol.ReasonDenied.String()
		return d.x.st.w.Close(nil)
	}
	conn, _, err := d.connect(ctx, at.inject)
	if err != nil {
		return errors.Join(err, d.x.st.w.Close(nil))
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(protocol.HeadTimeout))
	err = postgres.Cancel(conn, at.key)
	if err == nil { // the server closes when it is done, and clients wait for that
		_, _ = io.Copy(io.Discard, io.LimitReader(conn, 1))
	}
	return errors.Join(err, d.x.st.w.Close(nil))
}

// shown returns what the workload's variable holds for a secret with a placeholder: for a database's password the address
// with the placeholder in its place.
func (s *live) shown(name, placeholder string) string {
	sec, ok := s.secrets().Current(name)
	if !ok || sec.Meta.Inject.Scheme != control.SchemePostgres {
		return placeholder
	}
	_, host, _ := strings.Cut(sec.Meta.Audience[0], "://")
	in := sec.Meta.Inject
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(in.Param(control.ParamUser), placeholder), Host: host,
		Path: "/" + in.Param(control.ParamDatabase), RawQuery: "sslmode=require"}
	return u.String()
}
