package broker

import (
	"context"
	"errors"
	"io"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/websocket"
)

// protocolWebSocket is the one protocol that an extended CONNECT may ask for.
const protocolWebSocket = "websocket"

// websocket makes a WebSocket upstream and carries its bytes both ways. The handshake upstream is the broker's
// own. Where a secret is bound to the host no extension is agreed upon, so that the frames from there can be
// read, and their payloads are masked in place.
func (x *exchange) websocket(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, protocol.TunnelTimeout)
	defer cancel()
	key := upstream.PoolKey{Session: x.s.id, Scheme: x.req.Scheme, Authority: x.authority}
	up, err := x.open(ctx, key)
	if err != nil {
		return false, x.fail(err)
	}
	defer up.Release(false)
	if err := x.reauthorise(); err != nil {
		return false, x.fail(err)
	}
	if x.guarded != nil {
		x.req.Fields = x.req.Fields.DelFunc(func(l protocol.Field) bool { return l.Name == "sec-websocket-extensions" })
	}
	if err := x.authorised(func(creds []credential.Field) error { return up.WriteUpgrade(x.req, creds) }); err != nil {
		return false, x.fail(err)
	}
	x.s.watch.add(x.st, up) // the server may take its time
	var resp protocol.Response
	err = x.readHead(up, body{whole: true}, &resp)
	x.s.watch.remove(x.st)
	if err != nil {
		return false, x.fail(err)
	}
	ws := up.Upgraded()
	if ws == nil { // an ordinary answer: why there is no WebSocket
		_, err := x.deliver(up, &resp)
		return false, err
	}
	if x.guarded != nil && resp.Fields.Get("sec-websocket-extensions") != "" {
		return false, x.fail(protocol.Refuse(protocol.ReasonUpstreamProtocol, errors.New("WebSocket extension that nobody offered")))
	}
	x.outcome.Status, x.outcome.Head = resp.Status, time.Since(x.started)
	if err := x.st.w.WriteResponse(&resp); err != nil {
		return false, err
	}
	if err := x.st.w.Flush(); err != nil {
		return false, err
	}
	from, done := x.frames(ws)
	defer done()
	return false, x.splice(ws, up.Abort, from)
}

// A duplex is the upstream's side of bytes that go both ways.
type duplex interface {
	io.ReadWriter
	CloseWrite() error
}

// splice carries bytes between the guest and conn until both directions have ended: from is what goes down. The end
// of one direction is passed on as its half-close.
func (x *exchange) splice(conn duplex, abort func(), from io.Reader) error {
	uploaded := x.s.beside(func() error {
		n, err := bhttp.Copy(conn, x.upward(x.st.r), func(int64) error { return nil })
		x.outcome.BytesUp = n
		if err == nil {
			err = conn.CloseWrite()
		}
		if err != nil {
			abort()
		}
		return err
	}, abort)
	n, err := bhttp.Copy(x.st.w, x.downward(from), func(int64) error { return x.st.w.Flush() })
	x.outcome.BytesDown = n
	if err == nil {
		err = x.st.w.Close(nil)
	}
	if err != nil {
		x.outcome.Aborted = true
		x.blame()
		x.st.conn.Close()
		abort()
	}
	return errors.Join(err, <-uploaded)
}

// frames returns r, or what the workload may have of it where a secret is bound to the host. done ends it.
func (x *exchange) frames(r io.Reader) (from io.Reader, done func()) {
	if x.guarded == nil || x.guarded.matcher.Empty() && !x.s.follows {
		return r, func() {}
	}
	f := &frames{x: x, from: r, data: x.masks(), control: x.masks()}
	return f, func() { f.data.close(); f.control.close() }
}

// frames masks the payloads of a server's frames. Messages are one text, whatever they are cut into.
type frames struct {
	x             *exchange
	from          io.Reader
	follow        websocket.Frames
	data, control *masks
	closing       bool // the server broke the protocol, and a Close frame has been said in its place
}

func (f *frames) Read(p []byte) (int, error) {
	if f.closing {
		return 0, io.EOF
	}
	room := max(len(p)-len(websocket.CloseProtocolError), 1)
	n, err := f.from.Read(p[:room])
	whole, ferr := f.follow.Next(p[:n], f.mask)
	switch {
	case ferr == nil:
		return n, err
	case errors.Is(ferr, errReflected) || errors.Is(ferr, errTooManyVersions) || whole < 0 || len(p) < room+len(websocket.CloseProtocolError):
		clear(p[:n])
		return 0, ferr
	}
	f.x.s.log.Info("WebSocket frame refused", "authority", f.x.name, "err", ferr)
	f.closing = true
	f.x.outcome.Reason = protocol.ReasonUpstreamProtocol.String()
	return whole + copy(p[whole:], websocket.CloseProtocolError[:]), nil
}

func (f *frames) mask(b []byte, control bool) error {
	m := f.data
	if control {
		m = f.control
	}
	runs, err := m.mask(b)
	if err != nil {
		return err
	}
	return f.x.reflected(runs)
}
