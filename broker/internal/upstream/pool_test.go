package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
)

const hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"

// begin opens an exchange and sends a request without content.
func (s *upstreamServer) begin(t testing.TB, ctx context.Context) *Exchange {
	t.Helper()
	x, err := s.client.Open(ctx, s.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.WriteHead(get("/"), nil, 0), x.CloseWrite(nil)); err != nil {
		t.Fatal(err)
	}
	return x
}

func TestReuse(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		s := newScript(t, scheme, answer(hello))
		for range 5 {
			s.mustDo(t, get("/"), "")
		}
		s.wantConns(t, 1)

		// Two at once need two connections, and both are kept.
		for range 3 {
			a, b := s.begin(t, t.Context()), s.begin(t, t.Context())
			for _, x := range []*Exchange{a, b} {
				if _, err := receive(x); err != nil {
					t.Error(err)
				}
				x.Release(true)
			}
		}
		s.wantConns(t, 2)
	}
}

// TestAttack45Sessions asks for one host from two sessions. They share no connection and no ticket.
func TestAttack45Sessions(t *testing.T) {
	resumed := make(chan bool, 8)
	s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resumed <- r.TLS.DidResume
		w.Header().Set("Connection", "close")
	}))
	for _, step := range []struct {
		session string
		resumes bool
	}{{"a", false}, {"a", true}, {"b", false}, {"b", true}, {"a", true}} {
		s.key.Session = step.session
		s.mustDo(t, get("/"), "")
		if got := <-resumed; got != step.resumes {
			t.Errorf("session %s resumed %v, want %v", step.session, got, step.resumes)
		}
	}
	s.client.CloseSession("a")
	s.key.Session = "a"
	s.mustDo(t, get("/"), "")
	if <-resumed {
		t.Error("a closed session's ticket was used")
	}
}

func TestSessionsShareNoConnection(t *testing.T) {
	s := newScript(t, "https", answer(hello))
	for _, session := range []string{"a", "b", "a", "b"} {
		s.key.Session = session
		s.mustDo(t, get("/"), "")
	}
	s.wantConns(t, 2)
}

// TestAttack15Origins asks one server under other ports and schemes. None shares a connection, so what
// was authorised for one is never on another's.
func TestAttack15Origins(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	dial := s.client.overrides[s.key.Authority].Dial
	for i, a := range []protocol.Authority{{Host: "example.com", Port: 80}, {Host: "example.com", Port: 8080}, {Host: "example.org", Port: 80}} {
		s.client.overrides[a] = Override{Authority: a, Dial: dial}
		s.key.Authority = a
		s.mustDo(t, get("/"), "")
		s.wantConns(t, int64(i+1))
	}
	s.key.Scheme = "https"
	if c := s.client.pool.take(s.key); c != nil {
		t.Error("https takes a connection without TLS")
	}
}

// TestStale lets the server close idle connections: the next exchange notices before it writes.
func TestStale(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		s := newScript(t, scheme, func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, hello)
		})
		for range 3 {
			s.mustDo(t, get("/"), "")
			time.Sleep(30 * time.Millisecond)
		}
		s.wantConns(t, 3)
	}
}

func TestNotReused(t *testing.T) {
	big := "HTTP/1.1 200 OK\r\nContent-Length: 50000\r\n\r\n" + string(make([]byte, 50000))
	for name, end := range map[string]func(x *Exchange){
		"content unread":  func(x *Exchange) { _ = x.ReadResponse(new(protocol.Response)); x.Release(true) },
		"head unread":     func(x *Exchange) { x.Release(true) },
		"caller objects":  func(x *Exchange) { _, _ = receive(x); x.Release(false) },
		"aborted":         func(x *Exchange) { _, _ = receive(x); x.Abort(); x.Release(true) },
		"released before": func(x *Exchange) { _, _ = receive(x); x.Release(false); x.Abort(); x.Release(true) },
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, "https", answer(big))
			end(s.begin(t, t.Context()))
			s.mustDo(t, get("/"), "")
			s.wantConns(t, 2)
		})
	}
}

// TestAbortAfterRelease must not cut the exchange that has the connection now.
func TestAbortAfterRelease(t *testing.T) {
	s := newScript(t, "https", answer(hello))
	old := s.begin(t, t.Context())
	_, _ = receive(old)
	old.Release(true)
	x := s.begin(t, t.Context())
	old.Abort()
	old.Release(false)
	if res, err := receive(x); err != nil || res.Content != "hello" {
		t.Errorf("content %q, %v", res.Content, err)
	}
	x.Release(true)
	s.wantConns(t, 1)
}

// TestRequestUnfinished answers before the request has ended: the connection still waits for content.
func TestRequestUnfinished(t *testing.T) {
	s := newScript(t, "https", answer("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno"))
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, 100), x.Flush()); err != nil {
		t.Fatal(err)
	}
	if res, err := receive(x); err != nil || res.Status != 413 || res.Content != "no" {
		t.Errorf("response %v, error %v", res, err)
	}
	x.Release(true)
	s.mustDo(t, get("/"), "")
	s.wantConns(t, 2)
}

func TestKeepAliveTimeout(t *testing.T) {
	for value, want := range map[string]time.Duration{
		"timeout=5":           4 * time.Second,
		"max=100, Timeout=10": 9 * time.Second,
		"timeout=1":           0,
		"timeout=0":           -time.Second,
		"timeout=99999":       idleTimeout,
		"timeout=120":         idleTimeout,
		"timeout=-1":          idleTimeout,
		"timeout":             idleTimeout,
		"":                    idleTimeout,
	} {
		if got := keepAliveTimeout(value); got != want {
			t.Errorf("keepAliveTimeout(%q) = %v, want %v", value, got, want)
		}
	}
	s := newScript(t, "https", answer("HTTP/1.1 204 No Content\r\nKeep-Alive: timeout=1\r\n\r\n"))
	s.mustDo(t, get("/"), "")
	s.mustDo(t, get("/"), "")
	s.wantConns(t, 2)
}

// TestIdleLimits counts what is kept: 64 of one key, and all of it goes when its time is over.
func TestIdleLimits(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	var open []*Exchange
	for range maxIdleConns + 6 {
		open = append(open, s.begin(t, t.Context()))
	}
	for _, x := range open {
		if _, err := receive(x); err != nil {
			t.Fatal(err)
		}
		x.Release(true)
	}
	p := &s.client.pool
	o := p.sessions["s1"].origins[s.key]
	if len(o.idle) != maxIdleConns || o.places != maxIdleConns {
		t.Errorf("%d idle, %d places, want %d", len(o.idle), o.places, maxIdleConns)
	}
	for _, c := range o.idle[:10] {
		c.expires = time.Now()
	}
	p.mu.Lock()
	left := p.expire(time.Now())
	p.mu.Unlock()
	if want := maxIdleConns - 10; left != want || len(o.idle) != want || o.places != want || len(o.session.open) != want {
		t.Errorf("after a sweep %d idle, %d places, %d open, want %d", len(o.idle), o.places, len(o.session.open), want)
	}
	p.closeSession("s1")
	s.mustDo(t, get("/"), "")
	s.wantConns(t, maxIdleConns+7)
}

// TestSessionFull fills a session: idle connections to other hosts make room, busy ones do not.
func TestSessionFull(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	s.mustDo(t, get("/"), "")
	other := s.key
	other.Authority.Port = 81
	s.client.overrides[other.Authority] = s.client.overrides[s.key.Authority]
	p := &s.client.pool
	p.sessions["s1"].places += maxSessionConns - 1
	x, err := s.client.Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(p.sessions["s1"].origins[s.key].idle); n != 0 {
		t.Errorf("%d idle connections kept in a full session", n)
	}
	_, err = s.client.Open(t.Context(), s.key)
	wantReason(t, err, protocol.ReasonStreamsExhausted)
	s.key.Session = "s2"
	s.mustDo(t, get("/"), "")
	x.Release(false)
}

// TestOriginsForgotten lets a workload ask for many names: what is remembered of them is bounded.
func TestOriginsForgotten(t *testing.T) {
	c := newClient(t, Config{Resolver: &fakeResolver{err: errors.New("no such host")}})
	for port := range uint16(3 * maxOrigins) {
		_, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: "host.example", Port: port + 1}})
		wantReason(t, err, protocol.ReasonUnknownName)
	}
	if n := len(c.pool.sessions["s"].origins); n > maxOrigins {
		t.Errorf("%d origins remembered, want at most %d", n, maxOrigins)
	}
	if n := c.pool.sessions["s"].places; n != 0 {
		t.Errorf("%d places taken by failed dials", n)
	}
}

// TestCloseSession cuts what is in use and what is idle, in this session alone.
func TestCloseSession(t *testing.T) {
	s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		_, _ = io.Copy(io.Discard, r)
	})
	x := s.begin(t, t.Context())
	s.key.Session = "s2"
	bystander := s.begin(t, t.Context())
	var resp protocol.Response
	if err := errors.Join(x.ReadResponse(&resp), bystander.ReadResponse(&resp)); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { s.client.CloseSession("s1") })
	start := time.Now()
	_, err := io.ReadAll(x)
	wantReason(t, err, protocol.ReasonSessionEnded)
	if took := time.Since(start); took > protocol.RevokeDeadline {
		t.Errorf("took %v", took)
	}
	x.Release(true)
	if n, err := bystander.Read(make([]byte, 10)); n != 5 || err != nil {
		t.Errorf("the other session read %d, %v", n, err)
	}
	bystander.Release(false)
}

// TestCloseSessionWhileDialling closes the session between the dial's begin and its end.
func TestCloseSessionWhileDialling(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	o, err := s.client.pool.reserve(s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.client.CloseSession("s1")
	a, b := net.Pipe()
	defer b.Close()
	if err := s.client.pool.attach(o, pipeAborter{a}); !errors.Is(err, errSessionClosed) {
		t.Errorf("attach to a closed session: %v", err)
	}
	if _, err := b.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("connection is open: %v", err)
	}
}

// TestCutOrigins cuts what leads to one authority, idle, in use and being dialled, and leaves the session's others.
func TestCutOrigins(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	other := s.key
	other.Authority.Port = 81
	s.client.overrides[other.Authority] = s.client.overrides[s.key.Authority]
	bystander, err := s.client.Open(t.Context(), other)
	if err != nil {
		t.Fatal(err)
	}
	idle, cut := s.begin(t, t.Context()), s.begin(t, t.Context())
	if _, err := receive(idle); err != nil {
		t.Fatal(err)
	}
	idle.Release(true)
	p := &s.client.pool
	dialling, err := p.reserve(s.key)
	if err != nil {
		t.Fatal(err)
	}
	s.client.CutOrigins("s1", []protocol.Authority{s.key.Authority})
	s.client.CutOrigins("s9", []protocol.Authority{s.key.Authority})
	_, err = receive(cut)
	wantReason(t, err, protocol.ReasonSessionEnded)
	cut.Release(true)
	a, b := net.Pipe()
	defer b.Close()
	if err := p.attach(dialling, pipeAborter{a}); !errors.Is(err, errSessionClosed) {
		t.Errorf("attach to an origin that was cut: %v", err)
	}
	if n := p.sessions["s1"]; n.places != 1 || len(n.open) != 1 || len(n.origins) != 1 {
		t.Errorf("%d places, %d open, %d origins, want the other one's", n.places, len(n.open), len(n.origins))
	}
	s.mustDo(t, get("/"), "")
	s.wantConns(t, 4)
	if err := errors.Join(bystander.WriteHead(get("/"), nil, 0), bystander.CloseWrite(nil)); err != nil {
		t.Fatal(err)
	}
	if res, err := receive(bystander); err != nil || res.Content != "hello" {
		t.Errorf("the other authority: %q, %v", res.Content, err)
	}
	bystander.Release(true)
}

type pipeAborter struct{ net.Conn }

func (p pipeAborter) abort() { p.Close() }

func TestClosed(t *testing.T) {
	s := newScript(t, "http", answer(hello))
	s.mustDo(t, get("/"), "")
	_ = s.client.Close()
	_, err := s.client.Open(t.Context(), s.key)
	wantReason(t, err, protocol.ReasonBrokerUnavailable)
	_, err = s.client.Tunnel(t.Context(), s.key)
	wantReason(t, err, protocol.ReasonBrokerUnavailable)
}

// TestConcurrent runs exchanges of several sessions at once.
func TestConcurrent(t *testing.T) {
	s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_, _ = w.Write(b)
	}))
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			mine := &upstreamServer{client: s.client, key: s.key}
			mine.key.Session = string(rune('a' + i%4))
			for j := range 20 {
				content := string(make([]byte, 100*j))
				req := &protocol.Request{Method: "POST", Path: "/"}
				if res, err := mine.do(context.Background(), req, content); err != nil || res.Content != content {
					t.Errorf("%d bytes back, error %v", len(res.Content), err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.conns.Load(); n > 32 {
		t.Errorf("%d connections for 32 at a time", n)
	}
}
