package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"torno.internal/protocol"
)

// maxTickets bounds the TLS sessions remembered for one pool key.
const maxTickets = 8

// tlsConfig returns how connections of one pool key are secured. Each has its own ticket cache: a
// ticket resumes whoever the first handshake was, so it never leaves the session.
func (c *Client) tlsConfig(a protocol.Authority) *tls.Config {
	roots := c.roots
	if o, ok := c.overrides[a]; ok && o.Roots != nil {
		roots = o.Roots
	}
	return &tls.Config{
		ServerName:         a.Host,
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"http/1.1"},
		ClientSessionCache: tls.NewLRUClientSessionCache(maxTickets),
	}
}

// handshake secures nc. Its errors are *protocol.RefusedError.
func handshake(ctx context.Context, nc net.Conn, cfg *tls.Config) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.TLSTimeout)
	defer cancel()
	tc := tls.Client(nc, cfg)
	if err := tc.HandshakeContext(ctx); err != nil {
		reason := protocol.ReasonUpstreamTLS
		if errors.Is(err, context.DeadlineExceeded) {
			reason = protocol.ReasonUpstreamTimeout
		}
		return nil, protocol.Refuse(reason, fmt.Errorf("%q: %w", cfg.ServerName, err))
	}
	return tc, nil
}
