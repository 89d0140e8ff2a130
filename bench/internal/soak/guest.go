package soak

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/control"
	"torno.internal/protocol/transport"
)

// A guest speaks protocol/SPEC.md with the broker as a machine's guest does, so that thousands of them fit into one
// process. It has no workload.
type guest struct {
	session string
	addr    transport.Addr
	token   protocol.Token
}

// guestTimeout bounds what a guest does in one go.
const guestTimeout = 30 * time.Second

// join says hello in a session that was just registered.
func join(ctx context.Context, s control.SessionCreated) (*guest, error) {
	g := &guest{session: s.ID}
	var err error
	if g.addr, err = transport.ParseAddr(s.Broker); err != nil {
		return nil, err
	}
	st, err := g.open(ctx, protocol.KindHello)
	if err != nil {
		return nil, err
	}
	defer st.Close()
	nonce := make([]byte, protocol.NonceSize)
	_, _ = rand.Read(nonce) // never fails: crypto/rand ends the process instead
	body, err := json.Marshal(protocol.HelloRequest{Nonce: nonce, Guest: "soak"})
	if err != nil {
		return nil, err
	}
	a, err := st.ask(&protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathHello}, body)
	if err != nil {
		return nil, err
	}
	var h protocol.HelloResponse
	if a.status != 200 {
		return nil, fmt.Errorf("hello: %d %s", a.status, a.reason)
	}
	if err := json.Unmarshal(a.body, &h); err != nil || len(h.Token) != protocol.TokenSize {
		return nil, fmt.Errorf("hello: %w", errors.Join(err, errors.New("no token")))
	}
	g.token = protocol.Token(h.Token)
	return g, nil
}

// A stream is one connection of a guest.
type stream struct {
	net.Conn
	r *bhttp.Reader
	w *bhttp.Writer
}

// open opens a stream.
func (g *guest) open(ctx context.Context, kind protocol.Kind) (*stream, error) {
	c, err := transport.Dial(ctx, g.addr)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(guestTimeout))
	if _, err := c.Write(protocol.Preface{Version: protocol.Version, Kind: kind, Token: g.token}.AppendTo(nil)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if err := protocol.ReadPrefaceReply(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &stream{c, bhttp.NewReader(c), bhttp.NewWriter(c)}, nil
}

// events opens the stream on which the host tells a guest what happens, as every guest does, and reads the first event.
func (g *guest) events(ctx context.Context) (*stream, error) {
	st, err := g.open(ctx, protocol.KindChannel)
	if err != nil {
		return nil, err
	}
	req := protocol.Request{Method: "GET", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathEvents}
	resp, err := st.begin(&req)
	if err == nil && resp.Status != 200 {
		err = fmt.Errorf("events: %d", resp.Status)
	}
	if err == nil {
		_, err = io.ReadFull(st.r, make([]byte, 1))
	}
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	return st, st.SetDeadline(time.Time{})
}

// An answer is what came of one exchange.
type answer struct {
	status int
	reason string // torno's, where it refused
	body   []byte
}

// request is a request for path at the upstream.
func request(method, path string) *protocol.Request {
	return &protocol.Request{Method: method, Scheme: "https", Authority: host, Path: path}
}

// begin sends a head without content and reads the head of the answer.
func (st *stream) begin(req *protocol.Request) (protocol.Response, error) {
	var resp protocol.Response
	err := st.w.WriteRequest(req)
	if err == nil && req.Method != "CONNECT" {
		err = st.w.Close(nil)
	} else if err == nil {
		err = st.w.Flush()
	}
	if err == nil {
		err = st.r.ReadResponse(&resp)
	}
	return resp, err
}

// ask sends one request with content and reads the whole answer.
func (st *stream) ask(req *protocol.Request, content []byte) (answer, error) {
	_ = st.SetDeadline(time.Now().Add(guestTimeout))
	var resp protocol.Response
	err := st.w.WriteRequest(req)
	if err == nil {
		_, err = st.w.Write(content)
	}
	if err == nil {
		err = st.w.Close(nil)
	}
	if err == nil {
		err = st.r.ReadResponse(&resp)
	}
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.Status, reason: resp.Fields.Get(protocol.FieldReason)}
	if a.body, err = io.ReadAll(st.r); err != nil {
		return answer{}, err
	}
	var trailer protocol.Fields
	return a, st.r.ReadTrailer(&trailer)
}

// echo opens a WebSocket and sends a frame through it, n times, each of which comes back.
func (st *stream) echo(n int) error {
	req := request("CONNECT", "/socket")
	req.Protocol = "websocket"
	_ = st.SetDeadline(time.Now().Add(guestTimeout))
	resp, err := st.begin(req)
	if err != nil {
		return err
	}
	if resp.Status != 200 {
		return fmt.Errorf("WebSocket: %d %s", resp.Status, resp.Fields.Get(protocol.FieldReason))
	}
	frame, want := []byte("\x81\x84\x00\x00\x00\x00soak"), []byte("\x81\x04soak")
	back := make([]byte, len(want))
	for range n {
		if _, err := st.w.Write(frame); err != nil {
			return err
		}
		if err := st.w.Flush(); err != nil {
			return err
		}
		if _, err := io.ReadFull(st.r, back); err != nil {
			return err
		}
		if !bytes.Equal(back, want) {
			return fmt.Errorf("WebSocket: %q came back", back)
		}
	}
	return nil
}
