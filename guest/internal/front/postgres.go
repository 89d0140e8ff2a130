package front

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/postgres"
)

// protoPostgres is the application protocol of PostgreSQL over TLS (RFC 7301).
const protoPostgres = "postgresql"

// maxOffers is how often a client may ask for encryption before it begins.
const maxOffers = 4

// A started connection gives back the startup message that was read from it.
type started struct {
	net.Conn
	early []byte
}

func (s *started) Read(p []byte) (int, error) {
	if len(s.early) == 0 {
		return s.Conn.Read(p)
	}
	n := copy(p, s.early)
	s.early = s.early[n:]
	return n, nil
}

func (s *started) CloseWrite() error {
	if half, ok := s.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return s.Conn.Close()
}

// endPostgres ends the encryption that a client of PostgreSQL on nc asks for, and returns the connection from its
// startup message on. s is what it asks on, unless that is over TLS already.
func (c *conn) endPostgres(ctx context.Context, s *sniffed, nc net.Conn) (*started, error) {
	for range maxOffers {
		var head [postgres.StartupHead]byte
		if _, err := io.ReadFull(nc, head[:]); err != nil {
			return nil, err
		}
		switch code := [4]byte(head[4:]); {
		case code == codeOf(postgres.CodeSSL) && nc == net.Conn(s):
			t, err := c.startTLS(ctx, s)
			if err != nil {
				return nil, err
			}
			nc = t
		case code == codeOf(postgres.CodeSSL), code == codeOf(postgres.CodeGSS):
			if _, err := nc.Write([]byte{'N'}); err != nil {
				return nil, err
			}
		default:
			return &started{nc, head[:]}, nil
		}
	}
	return nil, errors.New("the client asks for nothing but encryption")
}

func codeOf(n uint32) [4]byte { return [4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// startTLS says yes to a client that asks for TLS.
func (c *conn) startTLS(ctx context.Context, s *sniffed) (net.Conn, error) {
	if _, err := s.Write([]byte{'S'}); err != nil {
		return nil, err
	}
	cfg := c.front.tls.Clone()
	cfg.NextProtos = []string{protoPostgres}
	t := tls.Server(s, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS with the client: %w", err)
	}
	return t, nil
}

// refusePostgres tells a client of PostgreSQL why it has no tunnel, in the words that it understands.
func (c *conn) refusePostgres(ctx context.Context, s *sniffed, nc net.Conn, reason protocol.Reason) error {
	_ = s.SetDeadline(time.Now().Add(protocol.HeadTimeout))
	p, err := c.endPostgres(ctx, s, nc)
	if err != nil {
		return err
	}
	if _, _, err := postgres.ReadStartup(p); err != nil {
		return err
	}
	if _, err := p.Write(postgres.AppendRefusal(nil, reason)); err != nil {
		return err
	}
	c.nc = p
	c.linger()
	return nil
}
