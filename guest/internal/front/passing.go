package front

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"time"

	"torno.internal/protocol"
)

// passing are the hosts whose TLS is the client's and the server's own business: clients that pin a certificate take no other.
// The broker decides on each connection; this is where asking it is worth the while.
type passing struct {
	hosts map[protocol.Authority]bool
	below map[protocol.Authority]bool // of what is below the host
	ports map[uint16]bool
}

// newPassing reads host:port, or *.host:port for what is below the host. What it can't read leads nowhere.
func newPassing(tunnels []string) passing {
	p := passing{hosts: map[protocol.Authority]bool{}, below: map[protocol.Authority]bool{}, ports: map[uint16]bool{}}
	for _, text := range tunnels {
		host, below := strings.CutPrefix(text, "*.")
		a, err := protocol.ParseAuthority(host, 0)
		if err != nil || a.Port == 0 {
			continue
		}
		if p.ports[a.Port] = true; below {
			p.below[a] = true
		} else {
			p.hosts[a] = true
		}
	}
	return p
}

func (p *passing) has(a protocol.Authority) bool {
	if p.hosts[a] {
		return true
	}
	for rest := a.Host; ; {
		_, after, more := strings.Cut(rest, ".")
		if !more {
			return false
		}
		if rest = after; p.below[protocol.Authority{Host: rest, Port: a.Port}] {
			return true
		}
	}
}

// errPasses ends our side of a handshake that is to go on with the server.
var errPasses = errors.New("TLS that passes through a tunnel")

// passes decides, on a client hello, whether the connection is to go through a tunnel. Then nothing that our side would still
// say reaches the client.
func (f *Front) passes(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	s, ok := hello.Conn.(*sniffed)
	if !ok || !s.keeps {
		return nil, nil
	}
	c := s.c
	name, err := c.nameFor(hello.ServerName)
	if err == nil && (c.connect == "" || c.connect == name) && f.passing.has(protocol.Authority{Host: name, Port: c.port}) {
		s.muted, c.name = true, name
		return nil, errPasses
	}
	s.keeps, s.kept = false, nil
	return nil, nil
}

// passTLS carries TLS that is the client's own through a tunnel to the host that it names. Where the broker refuses the tunnel, TLS
// ends here after all, so that the client is told why.
func (c *conn) passTLS(ctx context.Context, s *sniffed) error {
	s.muted, s.keeps, s.again, s.kept = false, false, s.kept, nil
	name := c.name
	c.name = ""
	stream, err := c.openTunnel(ctx, name)
	if err != nil {
		c.front.Log.Debug("no tunnel for TLS", "host", name, "error", err)
		return c.endTLS(ctx, s)
	}
	if c.resp.Fields.Get(protocol.FieldProtocol) != "" {
		c.release(stream, false)
		c.reset()
		return errors.New("a tunnel for TLS that speaks another protocol")
	}
	_ = s.SetDeadline(time.Time{})
	return c.carryTunnel(stream, net.Conn(s))
}
