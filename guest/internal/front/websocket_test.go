package front

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// echoSocket is a broker whose upstreams send back, unmasked, the frames that they get.
func echoSocket(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
	if req.Method != "CONNECT" || req.Protocol != "websocket" || req.Fields.Get("sec-websocket-key") != "" {
		return reply(w, 403, protocol.Fields{{Name: "torno-reason", Value: "denied"}}, fmt.Sprintf("%+v", req), nil)
	}
	if req.Path == "/no" {
		return reply(w, 401, nil, "no key", nil)
	}
	if err := w.WriteResponse(&protocol.Response{Status: 200, Fields: protocol.Fields{{Name: "sec-websocket-protocol", Value: req.Fields.Get("sec-websocket-protocol")}}}); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return err
		}
		rest := make([]byte, 4+int(head[1]&0x7f))
		if _, err := io.ReadFull(r, rest); err != nil {
			return err
		}
		for i := range rest[4:] {
			rest[4+i] ^= rest[i%4]
		}
		if _, err := w.Write(append([]byte{head[0], head[1] & 0x7f}, rest[4:]...)); err != nil {
			return err
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if head[0]&0x0f == 8 {
			var trailer protocol.Fields
			if _, err := io.Copy(io.Discard, r); err != nil {
				return err
			}
			if err := r.ReadTrailer(&trailer); err != nil {
				return err
			}
			return w.Close(nil)
		}
	}
}

func TestWebSocket(t *testing.T) {
	h := newHouse(t)
	h.broker = echoSocket
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range 3 {
		c, resp, err := websocket.Dial(ctx, "wss://a.example/v1/realtime?model=x", &websocket.DialOptions{
			HTTPClient: h.client(), Subprotocols: []string{"realtime"}, HTTPHeader: http.Header{"Authorization": {"Bearer mine"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 101 || c.Subprotocol() != "realtime" {
			t.Errorf("%d, subprotocol %q", resp.StatusCode, c.Subprotocol())
		}
		for i := range 200 {
			if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "message %d", i)); err != nil {
				t.Fatal(err)
			}
			kind, b, err := c.Read(ctx)
			if err != nil || kind != websocket.MessageText || string(b) != fmt.Sprintf("message %d", i) {
				t.Fatalf("%v %q, %v", kind, b, err)
			}
		}
		if err := c.Close(websocket.StatusNormalClosure, "bye"); err != nil {
			t.Errorf("closing: %v", err)
		}
	}
	if _, resp, err := websocket.Dial(ctx, "wss://a.example/no", &websocket.DialOptions{HTTPClient: h.client()}); err == nil || resp == nil || resp.StatusCode != 401 {
		t.Errorf("a refusal of the upstream: %v, %v", resp, err)
	}
}

// TestAttackWebSocketHandshake sends handshakes that two readers might take for different things.
func TestAttackWebSocketHandshake(t *testing.T) {
	h := newHouse(t)
	h.broker = echoSocket
	const good = "Host: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	tests := []struct{ name, text, want string }{
		{"good", "GET / HTTP/1.1\r\n" + good + "\r\n", "101"},
		{"post", "POST / HTTP/1.1\r\nContent-Length: 0\r\n" + good + "\r\n", "400 bad_request"},
		{"content", "GET / HTTP/1.1\r\nContent-Length: 4\r\n" + good + "\r\nbody", "400 bad_request"},
		{"old version", "GET / HTTP/1.1\r\n" + strings.Replace(good, "13", "8", 1) + "\r\n", "400 bad_request"},
		{"no key", "GET / HTTP/1.1\r\n" + strings.Replace(good, "Key: dG", "Kay: dG", 1) + "\r\n", "400 bad_request"},
		{"two keys", "GET / HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + good + "\r\n", "400 bad_request"},
		{"short key", "GET / HTTP/1.1\r\n" + strings.Replace(good, "dGhl", "", 1) + "\r\n", "400 bad_request"},
		{"two protocols", "GET / HTTP/1.1\r\nUpgrade: h2c\r\n" + good + "\r\n", "403 denied"},
		{"other protocol", "GET / HTTP/1.1\r\n" + strings.Replace(good, "websocket", "tcp", 1) + "\r\n", "501 unsupported"},
		{"without connection", "GET / HTTP/1.1\r\n" + strings.Replace(good, "Connection: Upgrade\r\n", "", 1) + "\r\n", "403 denied"},
		{"another host", "GET / HTTP/1.1\r\n" + strings.Replace(good, "a.example", "b.example", 1) + "\r\n", "421 misdirected"},
		{"http 1.0", "GET / HTTP/1.0\r\n" + good + "\r\n", "403 denied"},
	}
	for _, tt := range tests {
		if got := status(h.raw(h.addr, "a.example"), tt.text); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestWebSocketEnds passes on how either side ends: a broker that aborts must not look like a close.
func TestWebSocketEnds(t *testing.T) {
	h := newHouse(t)
	gone := make(chan error, 1)
	h.broker = func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error {
		_ = w.WriteResponse(&protocol.Response{Status: 200})
		_ = w.Flush()
		_, err := io.Copy(io.Discard, r)
		gone <- err
		return io.EOF
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, _, err := websocket.Dial(ctx, "wss://a.example/", &websocket.DialOptions{HTTPClient: h.client()})
	if err != nil {
		t.Fatal(err)
	}
	_ = c.CloseNow()
	select {
	case <-gone:
	case <-ctx.Done():
		t.Error("the broker never heard that the client is gone")
	}
}
