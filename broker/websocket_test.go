package broker

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	wsproto "torno.internal/protocol/websocket"
)

// socketTo opens a WebSocket through the broker. What it returns is the client's side of the frames.
func socketTo(t *testing.T, p *peer, path string, fields ...protocol.Field) (protocol.Response, net.Conn) {
	t.Helper()
	req := get(path, fields...)
	req.Method, req.Protocol = "CONNECT", "websocket"
	if err := p.w.WriteRequest(req); err != nil {
		t.Fatal(err)
	}
	if err := p.w.Flush(); err != nil {
		t.Fatal(err)
	}
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err != nil {
		t.Fatal(err)
	}
	return resp, socket{p.Conn, p}
}

// A socket is a stream whose content are a WebSocket's bytes.
type socket struct {
	net.Conn
	p *peer
}

func (s socket) Read(b []byte) (int, error) { return s.p.r.Read(b) }

func (s socket) Write(b []byte) (int, error) {
	if _, err := s.p.w.Write(b); err != nil {
		return 0, err
	}
	return len(b), s.p.w.Flush()
}

// client makes a client of the library of a socket, by answering its handshake.
func client(t *testing.T, nc net.Conn) *websocket.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	go func() {
		r := bufio.NewReader(theirs)
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		fmt.Fprintf(theirs, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n\r\n",
			wsproto.Accept(req.Header.Get("Sec-WebSocket-Key")))
		go func() { _, _ = io.Copy(nc, r) }()
		_, _ = io.Copy(theirs, nc)
		theirs.Close()
	}()
	tr := &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return ours, nil }}
	c, _, err := websocket.Dial(t.Context(), "ws://x/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: tr}})
	if err != nil {
		t.Fatal(err)
	}
	c.SetReadLimit(1 << 20)
	return c
}

// realtime is a server like those of speech models: it takes the key in the handshake and answers each message with
// one that holds the key, whole, in pieces, and in a ping.
func realtime(w http.ResponseWriter, r *http.Request) {
	auth := r.Header.Get("Authorization")
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionContextTakeover})
	if err != nil {
		return
	}
	defer c.CloseNow()
	for {
		kind, b, err := c.Read(r.Context())
		if err != nil {
			return
		}
		mw, err := c.Writer(r.Context(), kind)
		if err != nil {
			return
		}
		for _, piece := range []string{string(b) + " ", auth[:15], auth[15:30], auth[30:], " " + r.Header.Get("Sec-WebSocket-Extensions")} {
			_, _ = io.WriteString(mw, piece)
		}
		_ = mw.Close()
	}
}

// TestWebSocket speaks with a server that would compress, and repeats the key in fragments.
func TestWebSocket(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(realtime), generous)
	resp, nc := socketTo(t, stream(), "/v1/realtime?model=x", protocol.Field{Name: "sec-websocket-extensions", Value: "permessage-deflate"},
		protocol.Field{Name: "authorization", Value: "Bearer mine"})
	if resp.Status != 200 || resp.Fields.Get("sec-websocket-accept")+resp.Fields.Get("sec-websocket-extensions") != "" {
		t.Fatalf("%+v", resp)
	}
	c := client(t, nc)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i := range 50 {
		if err := c.Write(ctx, websocket.MessageText, fmt.Appendf(nil, "%d", i)); err != nil {
			t.Fatal(err)
		}
		_, b, err := c.Read(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if leaks(string(b)) || !strings.HasPrefix(string(b), fmt.Sprintf("%d Bearer ", i)) || !strings.Contains(string(b), "****") || !strings.HasSuffix(string(b), " ") {
			t.Fatalf("message %d: %q", i, b)
		}
	}
}

// TestWebSocketRefused passes on an ordinary answer to the handshake.
func TestWebSocketRefused(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no "+r.Header.Get("Authorization"), http.StatusUnauthorized)
	}), generous)
	resp, nc := socketTo(t, stream(), "/")
	body, err := io.ReadAll(nc)
	if resp.Status != 401 || err != nil || leaks(string(body)) || !strings.HasPrefix(string(body), "no Bearer ***") {
		t.Errorf("%d %q, %v", resp.Status, body, err)
	}
}

// TestAttack28WebSocketServer lets servers answer the handshake, and frame, as they must not.
func TestAttack28WebSocketServer(t *testing.T) {
	answer := map[string]string{
		"wrong accept":        "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"no accept":           "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
		"another protocol":    "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n",
		"no connection":       "HTTP/1.1 101 S\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n",
		"unasked extension":   "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
		"frame: compressed":   "\xc1\x05hello",
		"frame: masked":       "\x81\x85\x01\x02\x03\x04hello",
		"frame: good":         "\x81\x05hello",
		"frame: good and bad": "\x81\x05hello\xc1\x05hello",
	}
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		text := answer[r.URL.Query().Get("case")]
		if !strings.HasPrefix(text, "HTTP") {
			text = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n" + text
		}
		_, _ = io.WriteString(rw, strings.ReplaceAll(text, "ACCEPT", wsproto.Accept(r.Header.Get("Sec-WebSocket-Key"))))
		_ = rw.Flush()
		_, _ = io.Copy(io.Discard, rw)
	}), generous)
	for name := range answer {
		resp, nc := socketTo(t, stream(), "/?case="+strings.ReplaceAll(name, " ", "+"))
		if !strings.HasPrefix(name, "frame") {
			if resp.Status != 502 || resp.Fields.Get(protocol.FieldReason) != "upstream_protocol" {
				t.Errorf("%s: %+v", name, resp)
			}
			continue
		}
		_ = nc.SetReadDeadline(time.Now().Add(time.Second))
		got, err := io.ReadAll(nc)
		want := map[string]string{"frame: good": "\x81\x05hello", "frame: good and bad": "\x81\x05hello\x88\x02\x03\xea"}[name]
		if want == "" {
			want = "\x88\x02\x03\xea"
		}
		if string(got) != want || (err != nil) != (name == "frame: good") {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
	}
}

// TestRevokeCutsWebSocket ends what is open within a second.
func TestRevokeCutsWebSocket(t *testing.T) {
	d, s, stream := opened(t, http.HandlerFunc(realtime), generous)
	_, nc := socketTo(t, stream(), "/")
	d.must(d.call("DELETE", control.PathSession+s.ID, nil, nil))
	_ = nc.SetReadDeadline(time.Now().Add(time.Second))
	if _, err := io.ReadAll(nc); err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
		t.Errorf("after the revocation: %v", err)
	}
}
