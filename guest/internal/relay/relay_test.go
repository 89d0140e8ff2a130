package relay

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A broker is one that does as a test says.
type broker struct {
	ln     net.Listener
	path   string
	status func(protocol.Preface) protocol.Status
	answer func(req *protocol.Request, body string) (status int, content string)
	opened atomic.Int64 // streams
	conns  sync.WaitGroup

	mu   sync.Mutex
	open []net.Conn
}

func newBroker(t *testing.T) *broker {
	t.Helper()
	b := &broker{path: filepath.Join(t.TempDir(), "b")}
	b.status = func(protocol.Preface) protocol.Status { return protocol.StatusOK }
	b.answer = func(req *protocol.Request, body string) (int, string) {
		return 200, req.Method + " " + req.Path + " " + body
	}
	b.listen(t)
	t.Cleanup(b.stop)
	return b
}

func (b *broker) listen(t *testing.T) {
	ln, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.ln = ln
	b.conns.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.opened.Add(1)
			b.mu.Lock()
			b.open = append(b.open, c)
			b.mu.Unlock()
			b.conns.Go(func() { defer c.Close(); b.serve(c) })
		}
	})
}

// cut closes every open stream.
func (b *broker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.open {
		c.Close()
	}
	b.open = nil
}

func (b *broker) stop() {
	b.ln.Close()
	b.cut()
	b.conns.Wait()
}

func (b *broker) serve(c net.Conn) {
	p, err := protocol.ReadPreface(c)
	if err != nil {
		return
	}
	status := b.status(p)
	if _, err := c.Write(protocol.PrefaceReply{Version: protocol.Version, Status: status}.AppendTo(nil)); err != nil || status != protocol.StatusOK {
		return
	}
	r, w := bhttp.NewReader(c), bhttp.NewWriter(c)
	var req protocol.Request
	var trailer protocol.Fields
	for r.ReadRequest(&req) == nil {
		body, err := io.ReadAll(r)
		if err != nil || r.ReadTrailer(&trailer) != nil {
			return
		}
		status, content := b.answer(&req, string(body))
		if w.WriteResponse(&protocol.Response{Status: status}) != nil {
			return
		}
		if _, err := io.WriteString(w, content); err != nil || w.Close(nil) != nil {
			return
		}
	}
}

func (b *broker) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", b.path)
}

// exchange makes one exchange on s and leaves it for Release.
func exchange(s *Stream, path string) (string, error) {
	err := s.WriteRequest(&protocol.Request{Method: "GET", Scheme: "https", Authority: "x.example", Path: path})
	if err == nil {
		err = s.CloseWrite(nil)
	}
	if err != nil {
		return "", err
	}
	var resp protocol.Response
	if err := s.ReadResponse(&resp); err != nil {
		return "", err
	}
	body, err := io.ReadAll(s)
	if err != nil {
		return "", err
	}
	var trailer protocol.Fields
	return string(body), s.ReadTrailer(&trailer)
}

func TestReuse(t *testing.T) {
	b := newBroker(t)
	p := New(b.dial, protocol.Token{})
	defer p.Close()
	for range 10 {
		s, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := exchange(s, "/x"); err != nil || got != "GET /x " {
			t.Fatalf("%q, %v", got, err)
		}
		s.Release()
	}
	if n := b.opened.Load(); n != 1 {
		t.Errorf("%d streams for 10 exchanges, want 1", n)
	}
	b.cut() // while idle: noticed before the next use
	time.Sleep(20 * time.Millisecond)
	s, err := p.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exchange(s, "/y"); err != nil {
		t.Errorf("after the broker cut the idle stream: %v", err)
	}
	s.Abort()
	if n := b.opened.Load(); n != 2 {
		t.Errorf("%d streams, want 2", n)
	}
}

func TestRefusals(t *testing.T) {
	b := newBroker(t)
	for status, want := range map[protocol.Status]protocol.Status{
		protocol.StatusBusy: protocol.StatusBusy, protocol.StatusToken: protocol.StatusToken, protocol.StatusNoSession: protocol.StatusNoSession,
	} {
		b.status = func(protocol.Preface) protocol.Status { return status }
		p := New(b.dial, protocol.Token{})
		s, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		_, err = exchange(s, "/")
		var se *protocol.StatusError
		if !errors.As(err, &se) || se.Status != want {
			t.Errorf("%v: %v", status, err)
		}
		s.Abort()
	}
	gone := New(func(context.Context) (net.Conn, error) { return nil, errors.New("nobody") }, protocol.Token{})
	var refused *protocol.RefusedError
	if _, err := gone.Open(t.Context()); !errors.As(err, &refused) || refused.Reason != protocol.ReasonBrokerUnavailable {
		t.Errorf("no broker: %v", err)
	}
	if n := len(gone.slots); n != 0 {
		t.Errorf("%d slots are lost", n)
	}
}

// The 513th exchange waits for StreamWait and is then refused; one that is given back in time goes on.
func TestStreamsExhausted(t *testing.T) {
	b := newBroker(t)
	p := New(b.dial, protocol.Token{})
	defer p.Close()
	var held []*Stream
	for range protocol.MaxStreams {
		s, err := p.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, s)
	}
	begun := time.Now()
	_, err := p.Open(t.Context())
	var refused *protocol.RefusedError
	if !errors.As(err, &refused) || refused.Reason != protocol.ReasonStreamsExhausted || time.Since(begun) < protocol.StreamWait {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
	time.AfterFunc(100*time.Millisecond, held[0].Abort)
	s, err := p.Open(t.Context())
	if err != nil {
		t.Errorf("with one given back: %v", err)
	} else {
		s.Abort()
	}
	for _, s := range held[1:] {
		s.Abort()
	}
	if n := len(p.slots); n != 0 {
		t.Errorf("%d slots are lost", n)
	}
}

// Whatever becomes of exchanges, no slot and no stream is lost.
func TestNothingIsLost(t *testing.T) {
	b := newBroker(t)
	p := New(b.dial, protocol.Token{})
	defer p.Close()
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			for j := range 50 {
				s, err := p.Open(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				_, err = exchange(s, "/")
				switch {
				case err != nil:
					s.Abort()
				case (i+j)%7 == 0:
					s.Cut()
					s.Release()
				case (i+j)%5 == 0:
					s.Abort()
				default:
					s.Release()
				}
				if i == 0 && j%10 == 0 {
					b.cut()
				}
			}
		})
	}
	wg.Wait()
	if n := len(p.slots); n != 0 {
		t.Errorf("%d slots are lost", n)
	}
}

// Hello is tried again, with the same nonce, while the broker is not there; its refusal is final.
func TestHello(t *testing.T) {
	b := newBroker(t)
	b.answer = func(_ *protocol.Request, body string) (int, string) {
		var req protocol.HelloRequest
		if json.Unmarshal([]byte(body), &req) != nil || string(req.Nonce) != "nonce" {
			return 400, ""
		}
		return 200, `{"agent":"a"}`
	}
	tries := 0
	flaky := func(ctx context.Context) (net.Conn, error) {
		if tries++; tries < 3 {
			return nil, errors.New("not yet")
		}
		return b.dial(ctx)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	h, err := Hello(ctx, flaky, protocol.HelloRequest{Nonce: []byte("nonce")})
	if err != nil || h.Agent != "a" || tries != 3 {
		t.Errorf("%+v, %v after %d tries", h, err, tries)
	}
	b.status = func(protocol.Preface) protocol.Status { return protocol.StatusHelloUsed }
	var se *protocol.StatusError
	if _, err := Hello(ctx, b.dial, protocol.HelloRequest{}); !errors.As(err, &se) {
		t.Errorf("a used hello: %v", err)
	}
}

// A leaf is had again after the broker closed the stream; a refusal comes through and keeps the stream.
func TestLeaf(t *testing.T) {
	b := newBroker(t)
	b.answer = func(_ *protocol.Request, body string) (int, string) {
		var req protocol.LeafRequest
		_ = json.Unmarshal([]byte(body), &req)
		if req.Name == "bad" {
			return 400, ""
		}
		return 200, `{"certificate":"` + "AQ==" + `"}`
	}
	c := NewChannel(b.dial, protocol.Token{})
	defer c.Close()
	for i := range 4 {
		if i == 2 {
			b.cut()
		}
		if l, err := c.Leaf(t.Context(), "x.example", nil); err != nil || len(l.Certificate) != 1 {
			t.Errorf("leaf %d: %+v, %v", i, l, err)
		}
	}
	if _, err := c.Leaf(t.Context(), "bad", nil); err == nil {
		t.Error("a refused leaf came back without an error")
	}
}

func TestEvents(t *testing.T) {
	b := newBroker(t)
	b.answer = func(*protocol.Request, string) (int, string) {
		return 200, "{\"type\":\"clock\"}\n{\"type\":\"unknown\",\"more\":1}\n{\"type\":\"shutdown\"}\n"
	}
	c := NewChannel(b.dial, protocol.Token{})
	var got []protocol.EventType
	if err := c.Events(t.Context(), func(e protocol.Event) { got = append(got, e.Type) }); err != nil {
		t.Error(err)
	}
	if len(got) != 3 || got[2] != protocol.EventShutdown {
		t.Errorf("events %v", got)
	}
}
