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

// The application protocols that are offered (RFC 7301).
const (
	protoHTTP1 = "http/1.1"
	protoHTTP2 = "h2"
)

// tlsConfig returns how connections of one pool key are secured. Each has its own ticket cache: a
// ticket resumes whoever the first handshake was, so it never leaves the session and the identity. A server can't
// renegotiate: crypto/tls refuses.
func (c *Client) tlsConfig(key PoolKey) *tls.Config {
	roots := c.roots
	if o, ok := c.overrides[key.Authority]; ok && o.Roots != nil {
		roots = o.Roots
	}
	protos := []string{protoHTTP1}
	if key.HTTP2 {
		protos = []string{protoHTTP2, protoHTTP1}
	}
	cfg := &tls.Config{
		ServerName:         key.Authority.Host,
		RootCAs:            roots,
		MinVersion:         tls.VersionTLS12,
		NextProtos:         protos,
		ClientSessionCache: tls.NewLRUClientSessionCache(maxTickets),
	}
	if id := key.Identity; id != nil {
		cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.Certificate() }
	}
	return cfg
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
