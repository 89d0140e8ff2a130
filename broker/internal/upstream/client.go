// Package upstream reaches the hosts that workloads call: it resolves their names on this host, refuses
// addresses that are not the public internet's, verifies TLS by the one authority that everything else
// was decided by, and speaks HTTP/1.1 (RFC 9112) over connections that no two sessions ever share.
//
// It forwards one request and brings back its answer as it is. It follows no redirect, decompresses
// nothing, retries nothing and adds no field of its own.
package upstream

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// Config says how upstreams are reached. The zero value means the public internet alone, by the host's
// own resolver and roots.
type Config struct {
	Overrides    []Override
	Roots        *x509.CertPool // nil: the host's
	AllowPrivate []netip.Prefix // exempt from the address guard, in every session
	NAT64        []netip.Prefix // whose addresses are judged by the IPv4 address inside, besides the well-known ones
	Proxy        *Proxy         // nil: upstreams are reached directly
	Resolver     Resolver       // nil: net.DefaultResolver
	Log          *slog.Logger   // nil: none
}

// An Override is the operator's word on how one authority is reached.
type Override struct {
	Authority protocol.Authority
	Dial      string         // host:port to connect to instead, not judged by the guard; empty: the authority itself, judged
	Roots     *x509.CertPool // trusted for this authority instead of Config.Roots; nil: Config.Roots
}

// A PoolKey says whose connection is wanted. Connections and TLS tickets are shared within one key
// and nowhere else.
type PoolKey struct {
	Session   string
	Scheme    string // "https" or "http"; empty for tunnels
	Authority protocol.Authority
	Identity  *credential.Identity // who we are in TLS; nil: nobody
	HTTP2     bool                 // offer HTTP/2 (RFC 9113) as well; the upstream may still choose HTTP/1.1
}

// A Client opens exchanges and tunnels. It is safe for concurrent use.
type Client struct {
	dialer    dialer
	roots     *x509.CertPool
	proxy     *Proxy
	overrides map[protocol.Authority]Override
	pool      pool
	log       *slog.Logger
}

// New returns a Client. Close it when done.
func New(cfg Config) *Client {
	c := &Client{
		dialer:    dialer{resolver: cfg.Resolver, guard: guard{allow: cfg.AllowPrivate, nat64: cfg.NAT64}},
		roots:     cfg.Roots,
		proxy:     cfg.Proxy,
		overrides: make(map[protocol.Authority]Override, len(cfg.Overrides)),
		log:       cfg.Log,
	}
	if c.dialer.resolver == nil {
		c.dialer.resolver = net.DefaultResolver
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	for _, o := range cfg.Overrides {
		c.overrides[o.Authority] = o
	}
	c.pool.init(c.newOrigin)
	return c
}

// AllowPrivate exempts prefixes from the address guard in one session, until CloseSession.
func (c *Client) AllowPrivate(session string, prefixes []netip.Prefix) {
	c.pool.allowPrivate(session, prefixes)
}

// Open returns an exchange over an idle connection of key or a new one. The exchange ends, and its
// connection is closed, when ctx does, even where that is after the exchange: those of one session share one context. Errors are *protocol.RefusedError, with the reason of ctx's cause
// where that is one; nothing of a request has been sent, so the caller may try again.
func (c *Client) Open(ctx context.Context, key PoolKey) (*Exchange, error) {
	if protocol.DefaultPort(key.Scheme) == 0 {
		return nil, protocol.Refuse(protocol.ReasonUnsupported, fmt.Errorf("scheme %q", key.Scheme))
	}
	for {
		if ctx.Err() != nil {
			return nil, ended(ctx)
		}
		cn := c.pool.take(key)
		if cn == nil {
			cn, err := c.connect(ctx, key)
			if err != nil && ctx.Err() != nil {
				return nil, ended(ctx)
			}
			if err != nil {
				return nil, err
			}
			return newExchange(ctx, &c.pool, cn), nil
		}
		err := cn.probe()
		if err == nil {
			cn.reused = true
			return newExchange(ctx, &c.pool, cn), nil
		}
		if errors.Is(err, errUnasked) {
			c.log.Warn("upstream connection dropped", "authority", key.Authority.String(), "error", err)
		}
		c.pool.drop(cn)
	}
}

// ended says why ctx ended: the caller's own reason, if its cause has one.
func ended(ctx context.Context) error {
	cause := context.Cause(ctx)
	var refused *protocol.RefusedError
	switch {
	case errors.As(cause, &refused):
		return refused
	case errors.Is(cause, context.DeadlineExceeded):
		return protocol.Refuse(protocol.ReasonUpstreamTimeout, cause)
	}
	return protocol.Refuse(protocol.ReasonSessionEnded, cause)
}

// connect makes a new connection.
func (c *Client) connect(ctx context.Context, key PoolKey) (*conn, error) {
	o, err := c.pool.reserve(key)
	if err != nil {
		return nil, err
	}
	tcp, err := c.dial(ctx, o)
	if err != nil {
		c.pool.unreserve(o)
		return nil, err
	}
	cn, err := newConn(ctx, o, tcp, c.pool.window(o))
	if err != nil {
		_ = tcp.Close()
		c.pool.unreserve(o)
		return nil, err
	}
	if err := c.pool.attach(o, cn); err != nil {
		return nil, err
	}
	return cn, nil
}

// dial connects to the origin's authority, or to where its override points.
func (c *Client) dial(ctx context.Context, o *origin) (*net.TCPConn, error) {
	if ov, ok := c.overrides[o.key.Authority]; ok && ov.Dial != "" {
		a, err := protocol.ParseAuthority(ov.Dial, o.key.Authority.Port)
		if err != nil {
			return nil, protocol.Refuse(protocol.ReasonConnect, err)
		}
		return c.dialer.dialUnguarded(ctx, a)
	}
	if c.proxy.serves(o.key.Authority.Host) {
		return c.dialProxy(ctx, o.key.Authority, c.pool.allowed(o))
	}
	return c.dialer.dial(ctx, o.key.Authority, c.pool.allowed(o))
}

// Via returns the proxy that a is reached through, or "" where it is reached directly.
func (c *Client) Via(a protocol.Authority) string {
	if c.overrides[a].Dial != "" || !c.proxy.serves(a.Host) {
		return ""
	}
	return c.proxy.Authority.String()
}

// CutSession closes every connection of a session, those in use and those being dialled too, and drops
// its TLS tickets. The session may go on with new ones.
func (c *Client) CutSession(session string) { c.pool.cutSession(session) }

// CutOrigins is CutSession for what leads to some authorities, tunnels too.
func (c *Client) CutOrigins(session string, to []protocol.Authority) { c.pool.cutOrigins(session, to) }

// CloseSession is CutSession for good: it forgets the session's exemptions as well. The caller has ended
// the session's contexts before, so that nothing is opened again.
func (c *Client) CloseSession(session string) { c.pool.closeSession(session) }

// Close closes every connection, refuses to open more, and returns nil.
func (c *Client) Close() error {
	c.pool.close()
	return nil
}
