package front

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/postgres"
)

// tunnel asks for a tunnel to where the client believes to be connected, and carries its bytes. That is for whatever is
// neither TLS nor HTTP: the bytes carry no name, so the address that was dialled says whom the client means. A client
// that is refused is reset, unless it speaks what it can be told in.
func (c *conn) tunnel(ctx context.Context, s *sniffed) error {
	speaks := postgres.BeginsStartup(s.first[:s.have])
	return c.tunnelFor(ctx, s, s, speaks)
}

// tunnelFor asks for a tunnel for a client on nc, which is s or TLS over it. speaks says that it speaks PostgreSQL.
func (c *conn) tunnelFor(ctx context.Context, s *sniffed, nc net.Conn, speaks bool) error {
	name, err := c.nameFor("")
	if err != nil {
		c.reset()
		return err
	}
	stream, err := c.openTunnel(ctx, name)
	if err != nil && speaks {
		return errors.Join(err, c.refusePostgres(ctx, s, nc, reasonOf(err)))
	}
	if err != nil {
		c.reset()
		return err
	}
	inside := nc
	switch c.resp.Fields.Get(protocol.FieldProtocol) {
	case protocol.ProtocolPostgres:
		var p *started
		if p, err = c.endPostgres(ctx, s, nc); err == nil {
			inside = p
		}
	case "":
		if nc != net.Conn(s) {
			err = errors.New("a tunnel for what TLS was ended for")
		}
	default:
		err = errors.New("a protocol that is not known")
	}
	if err != nil {
		c.release(stream, false)
		c.reset()
		return err
	}
	_ = s.SetDeadline(time.Time{})
	return c.carryTunnel(stream, inside)
}

// openTunnel returns the stream of a tunnel to a host that the broker has opened.
func (c *conn) openTunnel(ctx context.Context, name string) (*relay.Stream, error) {
	c.req = protocol.Request{Method: "CONNECT", Authority: protocol.Authority{Host: name, Port: c.port}.String()}
	if c.dialledText != "" {
		c.req.Fields = protocol.Fields{{Name: protocol.FieldDialled, Value: c.dialledText}}
	}
	stream, err := c.announce(ctx)
	if err != nil {
		return nil, err
	}
	for err = stream.ReadResponse(&c.resp); err == nil && c.resp.Interim(); {
		err = stream.ReadResponse(&c.resp)
	}
	if err == nil && c.resp.Status/100 != 2 {
		reason, perr := protocol.ParseReason(c.resp.Fields.Get(protocol.FieldReason))
		if perr != nil {
			reason = protocol.ReasonInternal
		}
		err = protocol.Refuse(reason, fmt.Errorf("no tunnel to %q", c.req.Authority))
	}
	if err != nil {
		c.release(stream, false)
		return nil, err
	}
	return stream, nil
}

// carryTunnel carries bytes between the client and a tunnel until both directions have ended.
func (c *conn) carryTunnel(stream *relay.Stream, nc net.Conn) error {
	c.nc = nc
	c.let(stream)
	err := c.carry(stream, nc, nil, protocol.IdleTimeout)
	c.release(stream, false) // the broker closes it, too
	if err != nil {
		c.reset() // an end that is none
	}
	return err
}
