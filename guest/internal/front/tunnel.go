package front

import (
	"context"
	"fmt"
	"net"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
)

// tunnel asks for a tunnel to where the client believes to be connected, and carries its bytes. That is for whatever is
// neither TLS nor HTTP: the bytes carry no name, so the address that was dialled says whom the client means. A client
// that is refused is reset.
func (c *conn) tunnel(ctx context.Context, s *sniffed) error {
	stream, err := c.openTunnel(ctx)
	if err != nil {
		c.reset()
		return err
	}
	_ = s.SetDeadline(time.Time{})
	return c.carryTunnel(stream, s)
}

// openTunnel returns the stream of a tunnel that the broker has opened.
func (c *conn) openTunnel(ctx context.Context) (*relay.Stream, error) {
	name, err := c.nameFor("")
	if err != nil {
		return nil, err
	}
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
		err = fmt.Errorf("tunnel to %q refused: %d %s", c.req.Authority, c.resp.Status, c.resp.Fields.Get(protocol.FieldReason))
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
