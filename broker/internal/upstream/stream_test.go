package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// TestBulk sends and receives 200 MB at once and looks at the heap.
func TestBulk(t *testing.T) {
	const size = 200 << 20
	for name, length := range map[string]int64{"declared": size, "chunked": -1} {
		t.Run(name, func(t *testing.T) {
			s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).EnableFullDuplex()
				_, _ = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r.Body}, make([]byte, 64<<10))
			}))
			x, err := s.client.Open(t.Context(), s.key)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Release(true)
			before, most := liveHeap(), int64(0)
			if err := errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, length), x.Flush()); err != nil {
				t.Fatal(err)
			}
			sent := make(chan error, 1)
			go func() {
				p := make([]byte, protocol.MaxChunk)
				for n := 0; n < size; n += len(p) {
					if _, err := x.Write(p); err != nil {
						sent <- err
						return
					}
				}
				sent <- x.CloseWrite(nil)
			}()
			var resp protocol.Response
			if err := x.ReadResponse(&resp); err != nil {
				t.Fatal(err)
			}
			p, got := make([]byte, 64<<10), 0
			for err == nil {
				var n int
				n, err = x.Read(p)
				if got += n; got%(32<<20) < n {
					most = max(most, liveHeap())
				}
			}
			if !errors.Is(err, io.EOF) || got != size {
				t.Errorf("%d bytes and %v, want %d", got, err, size)
			}
			if err := <-sent; err != nil {
				t.Error(err)
			}
			if grown := most - before; grown > 4<<20 {
				t.Errorf("the heap grew by %d bytes on the way", grown)
			}
		})
	}
}

// liveHeap returns how many bytes of the heap are in use after a collection.
func liveHeap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestTrailers sends trailers up and gets those down that may stand there.
func TestTrailers(t *testing.T) {
	up := make(chan http.Header, 1)
	s := newServer(t, "https", http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		up <- r.Trailer
	}))
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	req := &protocol.Request{Method: "POST", Path: "/", Fields: protocol.Fields{field("trailer", "x-sum, authorization, x-key")}}
	creds := []credential.Field{cred("x-key", "sk-1")}
	if err := x.WriteHead(req, creds, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := x.Write([]byte("content")); err != nil {
		t.Fatal(err)
	}
	err = x.CloseWrite(protocol.Fields{field("x-sum", "1"), field("authorization", "Bearer mine"), field("x-key", "mine"),
		field("x_key", "mine"), field("content_length", "3"), field("content-length", "3"), field("transfer-encoding", "chunked"), field("host", "evil.example"), field("cookie", "a=b")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := receive(x); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"X-Sum": {"1"}, "X-Key": nil, "Authorization": nil}
	if diff := cmp.Diff(want, <-up, cmpopts.EquateEmpty(), cmpopts.IgnoreMapEntries(func(_ string, v []string) bool { return v == nil })); diff != "" {
		t.Errorf("trailers (-want +got):\n%s", diff)
	}
}

// TestExpectContinue waits for 100 before it sends content.
func TestExpectContinue(t *testing.T) {
	s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(w, r.Body) // net/http sends 100 at the first read
	}))
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	req := &protocol.Request{Method: "PUT", Path: "/", Fields: protocol.Fields{field("expect", "100-continue")}}
	if err := errors.Join(x.WriteHead(req, nil, 5), x.Flush()); err != nil {
		t.Fatal(err)
	}
	var resp protocol.Response
	if err := x.ReadResponse(&resp); err != nil || resp.Status != 100 {
		t.Fatalf("status %d, %v, want 100", resp.Status, err)
	}
	if _, err := x.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := x.CloseWrite(nil); err != nil {
		t.Fatal(err)
	}
	res, err := receive(x)
	if err != nil || res.Content != "hello" {
		t.Errorf("content %q, %v", res.Content, err)
	}
}

// TestCancel ends the context in every phase: reads and writes under way return at once.
func TestCancel(t *testing.T) {
	wait := func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.Copy(io.Discard, r)
	}
	part := func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")
		_, _ = io.Copy(io.Discard, r)
	}
	stuck := make(chan struct{})
	defer close(stuck)
	for _, tt := range []struct {
		name   string
		script func(net.Conn, *bufio.Reader)
		run    func(x *Exchange) error
	}{
		{"head", wait, func(x *Exchange) error { return x.ReadResponse(new(protocol.Response)) }},
		{"content", part, func(x *Exchange) error {
			if err := x.ReadResponse(new(protocol.Response)); err != nil {
				return err
			}
			_, err := io.ReadAll(x)
			if !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("error %v does not match io.ErrUnexpectedEOF", err)
			}
			return err
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, "https", tt.script)
			ctx, cancel := context.WithCancel(t.Context())
			x := s.begin(t, ctx)
			defer x.Release(true)
			time.AfterFunc(30*time.Millisecond, cancel)
			start := time.Now()
			wantReason(t, tt.run(x), protocol.ReasonSessionEnded)
			if took := time.Since(start); took > time.Second {
				t.Errorf("took %v", took)
			}
		})
	}
	t.Run("upload", func(t *testing.T) {
		s := newScript(t, "https", func(_ net.Conn, r *bufio.Reader) {
			readHead(r)
			<-stuck
		})
		defer func() { stuck <- struct{}{} }()
		ctx, cancel := context.WithCancel(t.Context())
		x, err := s.client.Open(ctx, s.key)
		if err != nil {
			t.Fatal(err)
		}
		defer x.Release(true)
		if err := x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, -1); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(30*time.Millisecond, cancel)
		for p := make([]byte, 64<<10); err == nil; {
			_, err = x.Write(p)
		}
		wantReason(t, err, protocol.ReasonSessionEnded)
	})
	for _, tt := range []struct {
		cause error
		want  protocol.Reason
	}{
		{nil, protocol.ReasonSessionEnded},
		{protocol.Refuse(protocol.ReasonRevoked, nil), protocol.ReasonRevoked},
		{context.DeadlineExceeded, protocol.ReasonUpstreamTimeout},
	} {
		t.Run("before", func(t *testing.T) {
			s := newScript(t, "https", answer(hello))
			s.mustDo(t, get("/"), "") // leaves an idle connection
			ctx, cancel := context.WithCancelCause(t.Context())
			cancel(tt.cause)
			_, err := s.client.Open(ctx, s.key)
			wantReason(t, err, tt.want)
			s.key.Session = "new"
			_, err = s.client.Open(ctx, s.key)
			wantReason(t, err, tt.want)
		})
	}
	t.Run("handshake", func(t *testing.T) {
		s := newScript(t, "http", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
		o := s.client.overrides[s.key.Authority]
		c := newClient(t, Config{Overrides: []Override{o}})
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(30*time.Millisecond, func() { cancel(protocol.Refuse(protocol.ReasonRevoked, nil)) })
		_, err := c.Open(ctx, PoolKey{Session: "s", Scheme: "https", Authority: s.key.Authority})
		wantReason(t, err, protocol.ReasonRevoked)
	})
}

// TestEarlyAnswer refuses an upload and closes while it runs: the answer can still be read.
func TestEarlyAnswer(t *testing.T) {
	s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		_, _ = io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig")
		_ = c.(*tls.Conn).CloseWrite()
		_, _ = io.CopyN(io.Discard, r, 1<<20)
	})
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
	res, err := receive(x)
	if err != nil || res.Status != 413 || res.Content != "big" {
		t.Errorf("response %d %q, %v", res.Status, res.Content, err)
	}
	if err := <-sent; !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("upload ended with %v", err)
	}
}

// TestEvents passes events on one by one, as they come.
func TestEvents(t *testing.T) {
	next := make(chan struct{})
	s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for range 3 {
			_, _ = io.WriteString(w, "data: x\n\n")
			w.(http.Flusher).Flush()
			<-next
		}
	}))
	x := s.begin(t, t.Context())
	defer x.Release(true)
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4096)
	for range 3 {
		n, err := x.Read(p)
		if err != nil || string(p[:n]) != "data: x\n\n" {
			t.Fatalf("read %q, %v", p[:n], err)
		}
		next <- struct{}{}
	}
	if _, err := x.Read(p); !errors.Is(err, io.EOF) {
		t.Errorf("read %v, want io.EOF", err)
	}
}

// TestAfterTheEnd uses an exchange whose connection is already another's.
func TestAfterTheEnd(t *testing.T) {
	s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
		for i := 0; readHead(r) != nil; i++ {
			trailer := ""
			if i == 1 {
				trailer = "x-second: 1\r\n"
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n"+trailer+"\r\n")
		}
	})
	old := s.begin(t, t.Context())
	if _, err := receive(old); err != nil {
		t.Fatal(err)
	}
	old.Release(true)
	x := s.begin(t, t.Context())
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	if n, err := old.Write([]byte("x")); n != 0 || !errors.Is(err, errEnded) {
		t.Errorf("Write: %d, %v", n, err)
	}
	if err := errors.Join(old.Flush(), old.CloseWrite(nil)); !errors.Is(err, errEnded) {
		t.Errorf("Flush, CloseWrite: %v", err)
	}
	if n, err := old.Read(make([]byte, 9)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("Read: %d, %v", n, err)
	}
	b, err := io.ReadAll(x)
	if err != nil || string(b) != "hi" || x.Trailer().Get("x-second") != "1" || old.Trailer() != nil {
		t.Errorf("content %q, %v, trailers %v and %v", b, err, x.Trailer(), old.Trailer())
	}
	x.Release(true)
	s.wantConns(t, 1)
}

// TestDeadlines looks at the deadlines that are set in each phase; they are too long to wait for.
func TestDeadlines(t *testing.T) {
	s := newScript(t, "https", answer(hello))
	near := func(what string, got time.Time, want time.Duration) {
		t.Helper()
		if d := time.Until(got) - want; d > 0 || d < -5*time.Second {
			t.Errorf("%s: deadline in %v, want %v", what, time.Until(got), want)
		}
	}
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	c := x.conn
	if err := errors.Join(x.WriteHead(&protocol.Request{Method: "POST", Path: "/"}, nil, 1), x.Flush()); err != nil {
		t.Fatal(err)
	}
	near("write", c.writeBy, protocol.IdleTimeout)
	if err := c.extendRead(); err != nil || !c.readBy.IsZero() {
		t.Errorf("read deadline %v, %v while the request is sent, want none", c.readBy, err)
	}
	_, _ = x.Write([]byte("x"))
	if err := x.CloseWrite(nil); err != nil {
		t.Fatal(err)
	}
	near("head", c.readBy, protocol.ResponseHeadTimeout)
	if err := x.ReadResponse(new(protocol.Response)); err != nil {
		t.Fatal(err)
	}
	if err := c.extendRead(); err != nil {
		t.Fatal(err)
	}
	near("content", c.readBy, protocol.IdleTimeout)
	set := c.readBy
	if err := c.extendRead(); err != nil || c.readBy != set {
		t.Errorf("the deadline moved without need: %v, %v", c.readBy.Sub(set), err)
	}
	c.readBy = time.Now().Add(protocol.IdleTimeout - 2*deadlineSlack)
	if err := c.extendRead(); err != nil {
		t.Fatal(err)
	}
	near("content, later", c.readBy, protocol.IdleTimeout)
	x.Release(false)
}

// TestHeadTimeout lets the deadline of the response's head pass.
func TestHeadTimeout(t *testing.T) {
	s := newScript(t, "https", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	x := s.begin(t, t.Context())
	defer x.Release(true)
	time.AfterFunc(20*time.Millisecond, func() { _ = x.conn.rw.SetReadDeadline(time.Now()) })
	wantReason(t, x.ReadResponse(new(protocol.Response)), protocol.ReasonUpstreamTimeout)
}

func TestTunnel(t *testing.T) {
	s := newScript(t, "http", func(c net.Conn, r *bufio.Reader) {
		b, _ := io.ReadAll(r) // up to the half-close
		_, _ = c.Write(append([]byte("got "), b...))
	})
	nc, err := s.client.Tunnel(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(nc, "ping")
	_ = nc.(interface{ CloseWrite() error }).CloseWrite()
	if b, err := io.ReadAll(nc); err != nil || string(b) != "got ping" {
		t.Errorf("read %q, %v", b, err)
	}
	nc.Close()
	nc.Close()
	if n := s.client.pool.sessions["s1"].places; n != 0 {
		t.Errorf("%d places taken after Close", n)
	}
}

func TestTunnelCut(t *testing.T) {
	s := newScript(t, "http", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	for _, by := range []string{"session", "context"} {
		ctx, cancel := context.WithCancel(t.Context())
		nc, err := s.client.Tunnel(ctx, s.key)
		if err != nil {
			t.Fatal(err)
		}
		cut := cancel
		if by == "session" {
			cut = func() { s.client.CloseSession("s1") }
		}
		time.AfterFunc(20*time.Millisecond, cut)
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("%s: read %v", by, err)
		}
		nc.Close()
		cancel()
	}
}
