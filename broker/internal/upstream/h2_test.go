package upstream

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// newH2Server is newServer for HTTP/2.
func newH2Server(t testing.TB, h http.Handler) *upstreamServer {
	t.Helper()
	s := newServer(t, "https", h)
	s.key.HTTP2 = true
	return s
}

// TestH2Exchange sends requests to net/http's server, all over one connection.
func TestH2Exchange(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Seen", fmt.Sprintf("%s %s %s%s auth %q length %d te %q", r.Proto, r.Method, r.Host, r.URL.RequestURI(),
			r.Header["Authorization"], r.ContentLength, r.Header["Te"]))
		h.Set("Alt-Svc", `h3=":443"`)
		h.Set("Torno-Reason", "x")
		switch r.URL.Path {
		case "/hints":
			h.Set("Link", "</a.css>")
			w.WriteHeader(103)
			w.WriteHeader(103)
		case "/none":
			w.WriteHeader(204)
			return
		case "/same":
			w.WriteHeader(304)
			return
		case "/empty":
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	long := strings.Repeat("0123456789", 10<<10)
	for _, tt := range []struct {
		name, method, path, content string
		status, interim             int
		seen, want                  string
	}{
		{"get", "GET", "/a?b=c", "", 200, 0, `GET example.com/a?b=c auth ["Bearer sk-1"] length 0 te ["trailers"]`, ""},
		{"head", "HEAD", "/", "", 200, 0, `HEAD example.com/ auth ["Bearer sk-1"] length 0 te ["trailers"]`, ""},
		{"star", "OPTIONS", "*", "", 200, 0, "", ""},
		{"post", "POST", "/", "hello", 200, 0, `POST example.com/ auth ["Bearer sk-1"] length 5 te ["trailers"]`, "hello"},
		{"post nothing", "POST", "/", "", 200, 0, `POST example.com/ auth ["Bearer sk-1"] length 0 te ["trailers"]`, ""},
		{"post long", "POST", "/", long, 200, 0, `POST example.com/ auth ["Bearer sk-1"] length 102400 te ["trailers"]`, long},
		{"interim", "GET", "/hints", "", 200, 2, "", ""},
		{"no content", "GET", "/none", "", 204, 0, "", ""},
		{"not modified", "GET", "/same", "", 304, 0, "", ""},
		{"empty", "GET", "/empty", "", 200, 0, "", ""},
		{"long path", "GET", "/" + strings.Repeat("a", 15<<10), "", 200, 0, "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := get(tt.path, field("authorization", "Bearer mine"), field("te", "trailers"), field("connection", "x"))
			req.Method = tt.method
			res := s.mustDo(t, req, tt.content, cred("authorization", "Bearer sk-1"))
			if res.Status != tt.status || len(res.Interim) != tt.interim || res.Content != tt.want {
				t.Errorf("status %d after %d, content of %d bytes, want %d, %d, %d",
					res.Status, len(res.Interim), len(res.Content), tt.status, tt.interim, len(tt.want))
			}
			if got := res.Fields.Get("x-seen"); tt.seen != "" && got != "HTTP/2.0 "+tt.seen {
				t.Errorf("server saw\n%s, want\n%s", got, tt.seen)
			}
			if res.Fields.Count("alt-svc")+res.Fields.Count("torno-reason") != 0 {
				t.Errorf("fields %v", res.Fields)
			}
		})
	}
	s.wantConns(t, 1)
}

// TestH2Negotiation takes HTTP/2 only where both want it.
func TestH2Negotiation(t *testing.T) {
	proto := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })
	both, plain := newH2Server(t, proto), newServer(t, "http", proto)
	for _, tt := range []struct {
		s     *upstreamServer
		http2 bool
		want  string
	}{{both, true, "HTTP/2.0"}, {both, false, "HTTP/1.1"}, {plain, true, "HTTP/1.1"}, {plain, false, "HTTP/1.1"}} {
		tt.s.key.HTTP2 = tt.http2
		for range 2 {
			if got := tt.s.mustDo(t, get("/"), "").Content; got != tt.want {
				t.Errorf("HTTP2 %v: got %s, want %s", tt.http2, got, tt.want)
			}
		}
	}
	both.wantConns(t, 2)
	old := newScript(t, "https", answer(hello)) // knows nothing of ALPN
	old.key.HTTP2 = true
	if res := old.mustDo(t, get("/"), ""); res.Status != 200 {
		t.Errorf("status %d", res.Status)
	}
}

// TestH2Trailers sends trailers up and gets those down that may stand there.
func TestH2Trailers(t *testing.T) {
	up := make(chan http.Header, 1)
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status, Set-Cookie")
		_, _ = io.Copy(w, r.Body)
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set("Set-Cookie", "a=b")
		up <- r.Trailer
	}))
	for _, length := range []int64{-1, 7} {
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Release(true)
		req := &protocol.Request{Method: "POST", Path: "/", Fields: protocol.Fields{field("trailer", "x-sum, x-key"), field("te", "trailers")}}
		if err := x.WriteHead(req, []credential.Field{cred("x-key", "sk-1")}, length); err != nil {
			t.Fatal(err)
		}
		if _, err := x.Write([]byte("content")); err != nil {
			t.Fatal(err)
		}
		if err := x.CloseWrite(protocol.Fields{field("x-sum", "1"), field("x-key", "mine"), field("authorization", "mine")}); err != nil {
			t.Fatal(err)
		}
		res, err := receive(x)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(protocol.Fields{field("grpc-status", "0")}, res.Trailer); diff != "" {
			t.Errorf("trailers down (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(http.Header{"X-Sum": {"1"}, "X-Key": nil}, <-up); diff != "" {
			t.Errorf("trailers up (-want +got):\n%s", diff)
		}
		x.Release(true)
	}
	s.wantConns(t, 1)
}

// TestH2PingPong waits for each of a thousand messages before it sends the next, up and down on one
// stream.
func TestH2PingPong(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for buf := make([]byte, 512); ; {
			n, err := r.Body.Read(buf)
			_, _ = w.Write(buf[:n])
			_ = http.NewResponseController(w).Flush()
			if err != nil {
				return
			}
		}
	}))
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	req := &protocol.Request{Method: "POST", Path: "/"}
	if err := errors.Join(x.WriteHead(req, nil, -1), x.Flush(), x.ReadResponse(new(protocol.Response))); err != nil {
		t.Fatal(err)
	}
	message, back := make([]byte, 300), make([]byte, 300)
	for i := range 1000 {
		binary.BigEndian.PutUint32(message, uint32(i))
		if _, err := x.Write(message); err != nil {
			t.Fatal(err)
		}
		if err := x.Flush(); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(x, back); err != nil || !bytes.Equal(message, back) {
			t.Fatalf("message %d: got % x, %v", i, back[:4], err)
		}
	}
	if err := x.CloseWrite(nil); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(x); err != nil || len(rest) > 0 {
		t.Errorf("at the end %d bytes, %v", len(rest), err)
	}
}

// h2Bulk sends size bytes up while it receives as many, and returns the hashes of both.
func h2Bulk(t testing.TB, s *upstreamServer, path string, size int) (up, down hash.Hash, grown int64) {
	t.Helper()
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	if err := errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: path}, nil, int64(size)), x.Flush()); err != nil {
		t.Fatal(err)
	}
	up, down = sha256.New(), sha256.New()
	before, sent := liveHeap(), make(chan error, 1)
	go func() {
		p, left := make([]byte, 50_001), size
		for i := byte(0); left > 0; i++ {
			p = p[:min(left, len(p))]
			p[0], p[len(p)-1] = i, i
			up.Write(p)
			if _, err := x.Write(p); err != nil {
				sent <- err
				return
			}
			left -= len(p)
		}
		sent <- x.CloseWrite(nil)
	}()
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	p, n := make([]byte, 64<<10), 0
	for err == nil {
		n, err = x.Read(p)
		down.Write(p[:n])
	}
	if !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	return up, down, liveHeap() - before
}

// TestH2Bulk sends 64 MiB both ways at once.
func TestH2Bulk(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r.Body}, make([]byte, 64<<10))
	}))
	for range 2 {
		up, down, grown := h2Bulk(t, s, "/", 64<<20)
		if !bytes.Equal(up.Sum(nil), down.Sum(nil)) {
			t.Error("what came back is not what was sent")
		}
		if grown > 4<<20 {
			t.Errorf("the heap grew by %d bytes", grown)
		}
	}
	s.wantConns(t, 1)
}

// TestH2EarlyAnswer reads the answer of a server that wants no more of the request.
func TestH2EarlyAnswer(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(413)
		_, _ = io.WriteString(w, "big")
	}))
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	if err := x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, -1); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() {
		var err error
		for p := make([]byte, 64<<10); err == nil; {
			_, err = x.Write(p)
		}
		sent <- err
	}()
	time.Sleep(20 * time.Millisecond) // the reset comes before the answer is read
	res, err := receive(x)
	if err != nil || res.Status != 413 || res.Content != "big" {
		t.Errorf("response %d %q, %v", res.Status, res.Content, err)
	}
	if err := <-sent; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("upload ended with %v", err)
	}
	x.Release(true)
	if n := s.client.pool.sessions["s1"].places; n != 0 {
		t.Errorf("%d connections kept", n)
	}
}

// TestH2Cancel ends the context in every phase.
func TestH2Cancel(t *testing.T) {
	block := make(chan struct{})
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/content" {
			_, _ = io.WriteString(w, "hello")
			_ = http.NewResponseController(w).Flush()
		}
		<-block
	}))
	t.Cleanup(func() { close(block) })
	for name, run := range map[string]func(x *Exchange) error{
		"/head": func(x *Exchange) error {
			if err := x.CloseWrite(nil); err != nil {
				return err
			}
			return x.ReadResponse(new(protocol.Response))
		},
		"/content": func(x *Exchange) error {
			if err := errors.Join(x.CloseWrite(nil), x.ReadResponse(new(protocol.Response))); err != nil {
				return err
			}
			b, err := io.ReadAll(x)
			if string(b) != "hello" || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("content %q, %v", b, err)
			}
			return err
		},
		"/upload": func(x *Exchange) (err error) {
			for p := make([]byte, 64<<10); err == nil; {
				_, err = x.Write(p)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			x, err := s.client.Open(ctx, s.key)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Release(true)
			if err := x.WriteHead(&protocol.Request{Method: "POST", Path: name}, nil, -1); err != nil {
				t.Fatal(err)
			}
			time.AfterFunc(30*time.Millisecond, cancel)
			start := time.Now()
			wantReason(t, run(x), protocol.ReasonSessionEnded)
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
}
