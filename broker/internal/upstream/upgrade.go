package upstream

import (
	"errors"
	"fmt"
	"strings"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/http1"
	"torno.internal/protocol/websocket"
)

// WriteUpgrade sends the handshake of a WebSocket (RFC 6455 §4.1), which is how the extended CONNECT req
// (RFC 8441) is said in HTTP/1.1. What belongs to the handshake of another connection is left out of req's
// fields: the key is a fresh one.
func (x *Exchange) WriteUpgrade(req *protocol.Request, creds []credential.Field) error {
	if x.conn.h2 != nil {
		return protocol.Refuse(protocol.ReasonUnsupported, errors.New("WebSocket over HTTP/2"))
	}
	get := protocol.Request{Method: "GET", Scheme: req.Scheme, Authority: req.Authority, Path: req.Path}
	for _, l := range req.Fields {
		switch l.Name {
		case "sec-websocket-key", "sec-websocket-version", "sec-websocket-accept", "expect":
		default:
			get.Fields = append(get.Fields, l)
		}
	}
	x.key = websocket.NewKey()
	err := x.writeHead(&get, creds, 0, protocol.Fields{
		{Name: "upgrade", Value: protocolWebSocket},
		{Name: "sec-websocket-version", Value: websocket.Version},
		{Name: "sec-websocket-key", Value: x.key},
	})
	if err != nil {
		return err
	}
	return x.CloseWrite(nil)
}

// protocolWebSocket is the value of Upgrade and of :protocol.
const protocolWebSocket = "websocket"

// switched checks a response 101 and makes of it the 200 of an extended CONNECT (RFC 8441 §5).
func (x *Exchange) switched(resp *protocol.Response) error {
	err := func() error {
		switch f := resp.Fields; {
		case x.key == "":
			return errors.New("status 101 to a request without upgrade")
		case !strings.EqualFold(f.Get("upgrade"), protocolWebSocket) || f.Count("upgrade") > 1:
			return fmt.Errorf("upgraded to %q", f.Get("upgrade"))
		case !http1.HasOption(f, "upgrade"):
			return errors.New("status 101 without Connection: upgrade")
		case f.Get("sec-websocket-accept") != websocket.Accept(x.key) || f.Count("sec-websocket-accept") > 1:
			return errors.New("Sec-WebSocket-Accept does not answer the key")
		}
		return nil
	}()
	if err != nil {
		return protocol.Refuse(protocol.ReasonUpstreamProtocol, err)
	}
	resp.Status = 200
	resp.Fields = resp.Fields.DelFunc(func(l protocol.Field) bool {
		return l.Name == "sec-websocket-accept" || l.Name == "content-length"
	})
	x.raw = true
	return nil
}

// Upgraded returns the bytes of the WebSocket, or nil where ReadResponse returned another answer. It lives as
// long as the exchange.
func (x *Exchange) Upgraded() *Upgraded {
	if !x.raw {
		return nil
	}
	u := &Upgraded{conn: x.conn}
	if r, ok := x.conn.r.(*http1.Reader); ok {
		u.early = r.TakeBuffered()
	}
	return u
}

// An Upgraded connection carries bytes both ways. One goroutine may read while another writes.
type Upgraded struct {
	conn  *conn
	early []byte // what came together with the answer's head
}

// Read reads what the other side sends. The end of a TLS stream without close_notify is io.ErrUnexpectedEOF.
func (u *Upgraded) Read(p []byte) (int, error) {
	if len(u.early) > 0 {
		n := copy(p, u.early)
		u.early = u.early[n:]
		return n, nil
	}
	return u.conn.Read(p)
}

func (u *Upgraded) Write(p []byte) (int, error) { return u.conn.Write(p) }

// CloseWrite ends our direction.
func (u *Upgraded) CloseWrite() error {
	if c, ok := u.conn.rw.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
