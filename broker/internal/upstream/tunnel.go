package upstream

import (
	"context"
	"crypto/tls"
	"net"
)

// A tunnel is a raw connection that its session can cut.
type tunnel struct {
	*net.TCPConn // with CloseWrite, for half-closed tunnels
	pool         *pool
	origin       *origin
	stop         func() bool
}

// Tunnel connects to the authority of key, guarded as for exchanges, and returns the connection as it
// is, without TLS. It can close its writing half by CloseWrite. It is cut when ctx ends and when the
// session is closed. How long it may live is up to the caller. Errors are *protocol.RefusedError.
func (c *Client) Tunnel(ctx context.Context, key PoolKey) (net.Conn, error) {
	key.Scheme = ""
	o, err := c.pool.reserve(key)
	if err != nil {
		return nil, err
	}
	tcp, err := c.dial(ctx, o)
	if err != nil {
		c.pool.unreserve(o)
		return nil, err
	}
	t := &tunnel{TCPConn: tcp, pool: &c.pool, origin: o}
	if err := c.pool.attach(o, t); err != nil {
		return nil, err
	}
	t.stop = context.AfterFunc(ctx, t.abort)
	return t, nil
}

// Secure makes nc, a tunnel to the authority of key, one over TLS that is verified as exchanges are. It offers no
// application protocol. Its error is a *protocol.RefusedError.
func (c *Client) Secure(ctx context.Context, key PoolKey, nc net.Conn) (*tls.Conn, error) {
	cfg := c.tlsConfig(key)
	cfg.NextProtos, cfg.ClientSessionCache = nil, nil
	return handshake(ctx, nc, cfg)
}

func (t *tunnel) abort() { _ = t.TCPConn.Close() }

// Close closes both halves.
func (t *tunnel) Close() error {
	t.stop()
	t.pool.forgetOpen(t.origin, t)
	return t.TCPConn.Close()
}

var _ interface{ CloseWrite() error } = (*tunnel)(nil)
