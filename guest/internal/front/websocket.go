package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/websocket"
)

// upgradeWebSocket is the one protocol that a client may upgrade to.
const upgradeWebSocket = "websocket"

// webSocket serves a WebSocket's handshake (RFC 6455 §4.2) and carries its bytes until both directions have ended.
// On the wire it is an extended CONNECT (RFC 8441): the handshake with the upstream is the broker's, the answer to
// the client's key is ours. It reports whether the connection can carry another request, which it can where there
// was an ordinary answer.
func (c *conn) webSocket(ctx context.Context, head *http1.RequestHead) (keep bool, err error) {
	accept, err := c.handshake(head)
	if err != nil {
		return c.refused(head, err, c.drained(head)), nil
	}
	s, err := c.announce(ctx)
	if err != nil {
		return c.refused(head, err, false), nil
	}
	if err := s.ReadResponse(&c.resp); err != nil {
		c.release(s, false)
		return c.refused(head, err, false), nil
	}
	for c.resp.Interim() {
		if err := s.ReadResponse(&c.resp); err != nil {
			c.release(s, false)
			return c.refused(head, err, false), nil
		}
	}
	if c.resp.Status != 200 { // why there is no WebSocket
		up := startUpload(func() error { return closeUpload(s, nil) })
		keep, err := c.respond(head, s, up)
		return c.finish(s, up, keep, err)
	}
	c.let(s)
	err = c.switched(s, accept)
	c.release(s, false) // the broker closes it, too
	return false, err
}

// handshake checks the client's opening handshake, makes c.req the request for the broker and returns what answers
// the client's key.
func (c *conn) handshake(head *http1.RequestHead) (accept string, err error) {
	f := head.Fields
	key := f.Get("sec-websocket-key")
	bad := func(what string) error {
		return protocol.Refuse(protocol.ReasonBadRequest, fmt.Errorf("WebSocket handshake: %s", what))
	}
	switch {
	case head.Method != "GET" || head.Proto != "HTTP/1.1":
		return "", bad(head.Method + " " + head.Proto)
	case head.Chunked || head.ContentLength > 0:
		return "", bad("with content")
	case f.Count("upgrade") > 1:
		return "", bad("several protocols")
	case f.Count("sec-websocket-key") != 1 || !websocket.ValidKey(key):
		return "", bad("no valid key")
	case f.Count("sec-websocket-version") != 1 || f.Get("sec-websocket-version") != websocket.Version:
		return "", bad("version is not " + websocket.Version)
	}
	if err := c.request(head); err != nil {
		return "", err
	}
	c.req.Method, c.req.Protocol = "CONNECT", upgradeWebSocket
	c.req.Fields = c.req.Fields.DelFunc(func(l protocol.Field) bool {
		return l.Name == "sec-websocket-key" || l.Name == "sec-websocket-version" || l.Name == "content-length"
	})
	return websocket.Accept(key), nil
}

// let tells the watch that the exchange looks after itself: it reads from the client all the time.
func (c *conn) let(s *relay.Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream = nil; c.gone {
		s.Cut()
	}
}

// closeGrace is how long a WebSocket's client may take to close once the server has.
const closeGrace = 10 * time.Second

// switched answers 101 and carries bytes both ways.
func (c *conn) switched(s *relay.Stream, accept string) error {
	f := append(c.resp.Fields, protocol.Field{Name: "upgrade", Value: upgradeWebSocket}, protocol.Field{Name: "sec-websocket-accept", Value: accept})
	if err := c.w.WriteResponse(101, f, http1.NoContent, false, false); err != nil {
		return err
	}
	if err := c.w.Flush(); err != nil {
		return err
	}
	return c.carry(s, c.nc, c.r.TakeBuffered(), closeGrace)
}

// carry carries bytes both ways, early first, until both directions have ended. The client has grace to end its own
// once the server's has.
func (c *conn) carry(s *relay.Stream, nc net.Conn, early []byte, grace time.Duration) error {
	up := startUpload(func() error {
		if _, err := s.Write(early); err != nil {
			return err
		}
		if err := s.Flush(); err != nil {
			return err
		}
		from := &source{Reader: nc}
		if _, err := bhttp.Copy(s, from, func(int64) error { return s.Flush() }); err != nil {
			s.Cut() // neither side can go on without the other
			return err
		}
		return s.CloseWrite(nil)
	})
	_, err := bhttp.Copy(nc, s, func(int64) error { return nil })
	if err == nil {
		err = s.ReadTrailer(&c.trailer)
	}
	if err == nil {
		if half, ok := nc.(interface{ CloseWrite() error }); ok {
			err = half.CloseWrite()
		}
	}
	if err != nil {
		c.joinUpload(s, up)
		return errors.Join(err, up.err)
	}
	if !up.wait(grace) { // the server has said its last word
		c.joinUpload(s, up)
		return io.ErrUnexpectedEOF
	}
	return up.err
}
