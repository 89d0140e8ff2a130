package broker

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A tap is an upstream with a way to keep each kind of thing open, and tells what is open and what arrives.
type tap struct {
	*httptest.Server
	open    chan string // kinds
	arrived chan int    // bytes of uploads and tunnels
}

func newTap(t *testing.T) *tap {
	up := &tap{open: make(chan string, 64), arrived: make(chan int, 1<<16)}
	up.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/socket":
			up.open <- "WebSocket"
			realtime(w, r)
		case "/wait": // no head yet
			up.open <- "exchange"
			<-r.Context().Done()
		case "/events":
			w.Header().Set("Content-Type", "text/event-stream")
			up.open <- "SSE stream"
			for r.Context().Err() == nil {
				_, _ = io.WriteString(w, "data: tick\n\n")
				w.(http.Flusher).Flush()
				time.Sleep(5 * time.Millisecond)
			}
		case "/upload":
			up.open <- "upload"
			up.swallow(r.Body)
		default:
			whose(w, r)
		}
	}))
	up.EnableHTTP2 = true
	up.StartTLS()
	t.Cleanup(up.Close)
	return up
}

func (up *tap) swallow(r io.Reader) {
	b := make([]byte, 4096)
	for {
		n, err := r.Read(b)
		if n > 0 {
			up.arrived <- n
		}
		if err != nil {
			return
		}
	}
}

// wire is a server behind a tunnel: it sends and takes bytes.
func (up *tap) wire(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			up.open <- "tunnel"
			go func() {
				for {
					if _, err := c.Write([]byte("tick")); err != nil {
						return
					}
					time.Sleep(5 * time.Millisecond)
				}
			}()
			go up.swallow(c)
		}
	}()
	return ln.Addr().String()
}

// kinds open one of each thing that can be open, and return what reads until it is cut, and what writes.
var kinds = map[string]func(*peer) (io.Reader, io.Writer, error){
	"exchange": func(p *peer) (io.Reader, io.Writer, error) {
		return headThen{p}, nil, errors.Join(p.w.WriteRequest(get("/wait")), p.w.Close(nil))
	},
	"SSE stream": func(p *peer) (io.Reader, io.Writer, error) {
		return headThen{p}, nil, errors.Join(p.w.WriteRequest(get("/events")), p.w.Close(nil))
	},
	"SSE stream over HTTP/2": func(p *peer) (io.Reader, io.Writer, error) {
		return headThen{p}, nil, errors.Join(p.w.WriteRequest(get("/events", protocol.Field{Name: protocol.FieldHTTP, Value: "2"})), p.w.Close(nil))
	},
	"upload": func(p *peer) (io.Reader, io.Writer, error) {
		req := get("/upload")
		req.Method = "POST"
		return headThen{p}, flushing{p}, errors.Join(p.w.WriteRequest(req), p.w.Flush())
	},
	"WebSocket": func(p *peer) (io.Reader, io.Writer, error) {
		req := get("/socket")
		req.Method, req.Protocol = "CONNECT", "websocket"
		return headThen{p}, flushing{p}, errors.Join(p.w.WriteRequest(req), p.w.Flush())
	},
	"tunnel": func(p *peer) (io.Reader, io.Writer, error) {
		return headThen{p}, flushing{p}, errors.Join(p.w.WriteRequest(&protocol.Request{Method: "CONNECT", Authority: "tunnel.example:443"}), p.w.Flush())
	},
}

// headThen reads a response's head and then its content; a refusal is an error, as the end of a cut is.
type headThen struct{ p *peer }

func (h headThen) WriteTo(io.Writer) (int64, error) {
	var resp protocol.Response
	if err := h.p.r.ReadResponse(&resp); err != nil {
		return 0, err
	}
	if reason := resp.Fields.Get(protocol.FieldReason); reason != "" {
		return 0, errors.New(reason)
	}
	return io.Copy(io.Discard, struct{ io.Reader }{h.p.r})
}

func (headThen) Read([]byte) (int, error) { panic("WriteTo is used") }

type flushing struct{ p *peer }

func (f flushing) Write(b []byte) (int, error) {
	if _, err := f.p.w.Write(b); err != nil {
		return 0, err
	}
	return len(b), f.p.w.Flush()
}

// TestAttack26Kinds ends the use of a secret in every way while one of every kind is open in two sessions, and
// measures how long the last of them lives on, as the workload sees it and as the upstream does. A third
// session, of another agent, is the control: it goes on.
func TestAttack26Kinds(t *testing.T) {
	up := newTap(t)
	wire := up.wire(t)
	for how, revoke := range map[string]func(*desk, []string) error{
		"secrets revoke":           func(d *desk, _ []string) error { return d.call("POST", revocation("KEY", ""), nil, nil) },
		"secrets revoke --version": func(d *desk, _ []string) error { return d.call("POST", revocation("KEY", "1"), nil, nil) },
		"secrets delete":           func(d *desk, _ []string) error { return d.call("DELETE", deletion("KEY"), nil, nil) },
		"sessions revoke": func(d *desk, sessions []string) error {
			var errs []error
			for _, id := range sessions {
				errs = append(errs, d.call("DELETE", control.PathSession+id, nil, nil))
			}
			return errors.Join(errs...)
		},
	} {
		t.Run(how, func(t *testing.T) { testAttack26(t, up, wire, strings.HasPrefix(how, "secrets"), revoke) })
	}
}

func testAttack26(t *testing.T, up *tap, wire string, secrets bool, revoke func(*desk, []string) error) {
	d := newDesk(t, up.Server)
	d.stop()
	d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, control.Upstream{Host: "tunnel.example", Dial: wire})
	d.start()
	var sessions []string
	var streams []func() *peer
	for i, agent := range []string{"a", "a", "b"} {
		m := bearerOf("KEY", 1, "")
		m.Agent = agent
		if i != 1 {
			d.must(d.setMeta(m, keyOf(1)))
		}
		policy := control.AgentPolicy{Name: agent, Secrets: []string{"KEY"}, Egress: control.Egress{Tunnel: []string{"tunnel.example"}}}
		d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: agent, File: []byte(agent), Policy: policy}, nil))
		var s control.SessionCreated
		d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: agent, Isolation: protocol.IsolationNamespace,
			Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte(agent)}, &s))
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		sessions = append(sessions, s.ID)
		streams = append(streams, func() *peer {
			p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
			d.must(err)
			return p
		})
	}
	type ended struct {
		kind string
		who  int
		at   time.Time
		err  error
	}
	ends := make(chan ended, 64)
	var writers []io.Writer
	alive := streams[0]() // keep-alive
	want(t, "before", alive.says(), "1")
	for kind, open := range kinds {
		for who := range sessions {
			r, w, err := open(streams[who]())
			d.must(err)
			go func() {
				_, err := io.Copy(io.Discard, r)
				ends <- ended{kind, who, time.Now(), err}
			}()
			if w != nil && who < 2 {
				writers = append(writers, w)
			}
			<-up.open
		}
	}
	for _, w := range writers { // the control: it does arrive
		_, err := w.Write([]byte("\x82\x84\x00\x00\x00\x00more"))
		d.must(err)
	}
	<-up.arrived
	begun := time.Now()
	d.must(revoke(d, sessions[:2]))
	answered := time.Since(begun)
	for range 2 * len(kinds) {
		select {
		case e := <-ends:
			if e.who == 2 || e.err == nil || e.kind == "exchange" && secrets && e.err.Error() != "revoked" {
				t.Errorf("%s of session %d ended: %v", e.kind, e.who, e.err)
			}
			if took := e.at.Sub(begun); took > protocol.RevokeDeadline {
				t.Errorf("%s: cut after %v, want at most %v", e.kind, took, protocol.RevokeDeadline)
			} else {
				t.Logf("%s: cut after %v", e.kind, took)
			}
		case <-time.After(10 * time.Second):
			t.Fatal("something is open still")
		}
	}
	t.Logf("answered after %v", answered)
	for len(up.arrived) > 0 {
		<-up.arrived
	}
	for _, w := range writers {
		_, _ = w.Write([]byte("\x82\x84\x00\x00\x00\x00more"))
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(up.arrived); n > 0 {
		t.Errorf("%d pieces arrived upstream afterwards", n)
	}
	if got := alive.says(); got == "1" {
		t.Error("the next request on the kept connection got the key")
	}
	want(t, "another agent", streams[2]().says(), "1")
	select {
	case e := <-ends:
		t.Errorf("the %s of another agent ended: %v", e.kind, e.err)
	default:
	}
}

// TestAttack26RevokeWhileDialling revokes a secret while the connection for its request is being made.
func TestAttack26RevokeWhileDialling(t *testing.T) {
	greeted, revoked := make(chan struct{}, 1), make(chan struct{})
	arrived := make(chan string, 1)
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get("Authorization")
	}))
	up.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		greeted <- struct{}{}
		<-revoked
		return nil, nil
	}}
	up.StartTLS()
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setMeta(bearerOf("KEY", 1, control.RotationFollow), keyOf(1)))
	_, stream := d.enter()
	p := stream()
	d.must(p.w.WriteRequest(get("/")))
	d.must(p.w.Close(nil))
	<-greeted
	d.must(d.call("POST", revocation("KEY", ""), nil, nil))
	close(revoked)
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err == nil && resp.Fields.Get(protocol.FieldReason) == "" {
		t.Errorf("answer %+v", resp)
	}
	select {
	case got := <-arrived:
		t.Errorf("%q arrived after the revocation", got)
	default:
	}
}

// TestRevokeOneVersion revokes versions one by one under a session that pins and one that follows.
func TestRevokeOneVersion(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setMeta(bearerOf("KEY", 1, ""), keyOf(1)))
	_, pinned := d.enter()
	d.must(d.setMeta(bearerOf("KEY", 2, control.RotationFollow), keyOf(2)))
	_, following := d.enter()
	d.must(d.setMeta(bearerOf("KEY", 3, control.RotationFollow), keyOf(3)))
	want(t, "pinned", pinned().says(), "1")
	want(t, "following", following().says(), "3")
	d.must(d.call("POST", revocation("KEY", "2"), nil, nil)) // the one that was followed before
	want(t, "pinned", pinned().says(), "1")
	want(t, "following", following().says(), "3")
	d.must(d.call("POST", revocation("KEY", "1"), nil, nil))
	want(t, "pinned to what is revoked", pinned().says(), "revoked")
	want(t, "following", following().says(), "3")
	d.must(d.call("POST", revocation("KEY", "3"), nil, nil))
	want(t, "the newest is revoked", following().says(), "revoked")
	_, empty := d.enter()
	want(t, "no session falls back to an older version", empty().says(), "denied")
	if err := d.call("POST", revocation("KEY", ""), nil, nil); err == nil {
		t.Error("what is revoked is revoked again")
	}
	d.stop()
	d.start()
	want(t, "pinned, after a restart", pinned().says(), "revoked")
	want(t, "following, after a restart", following().says(), "revoked")
	d.must(d.setMeta(bearerOf("KEY", 4, control.RotationFollow), keyOf(4)))
	want(t, "a new version", following().says(), "4")
	want(t, "pinned is pinned", pinned().says(), "revoked")
	var history []control.SecretVersion
	d.must(d.call("GET", control.PathHistory+"?agent=a&name=KEY", nil, &history))
	var states []string
	for _, v := range history {
		states = append(states, string(v.State))
	}
	if got := len(states); got != 4 || states[0] != "revoked" || states[2] != "revoked" || states[3] != "current" {
		t.Errorf("history: %v", states)
	}
	for path, want := range map[string]string{
		revocation("KEY", "9"): control.CodeNotFound, revocation("NONE", ""): control.CodeNotFound,
		revocation("KEY", "x"): control.CodeInvalid, revocation("KEY", "0"): control.CodeInvalid, revocation("KEY", "1"): control.CodeConflict,
	} {
		var ce *control.Error
		if err := d.call("POST", path, nil, nil); !errors.As(err, &ce) || ce.Code != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
}

// TestUsesSurvive counts requests, and finds the count after the broker has ended.
func TestUsesSurvive(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setMeta(bearerOf("KEY", 1, control.RotationFollow), keyOf(1)))
	d.must(d.setMeta(bearerOf("UNUSED", 1, ""), keyOf(5)))
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("a"), Policy: control.AgentPolicy{Name: "a", Secrets: []string{"KEY"}}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace,
		Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("a")}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	began := time.Now()
	for v := 1; v <= 2; v++ {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		for range 10 * v {
			p.says()
		}
		if v == 1 {
			d.must(d.setMeta(bearerOf("KEY", 2, control.RotationFollow), keyOf(2)))
		}
	}
	check := func(when string) {
		var history []control.SecretVersion
		d.must(d.call("GET", control.PathHistory+"?agent=a&name=KEY", nil, &history))
		if history[0].Uses != 10 || history[1].Uses != 20 || history[1].LastUsed.Before(began) {
			t.Errorf("%s: %+v", when, history)
		}
		var infos []control.SecretInfo
		d.must(d.call("GET", control.PathSecrets+"?agent=a", nil, &infos))
		if infos[0].Uses != 30 || infos[1].Uses != 0 || !infos[1].LastUsed.IsZero() {
			t.Errorf("%s: %+v", when, infos)
		}
	}
	check("at once")
	d.stop()
	if _, err := os.Stat(d.cfg.StateDir); err != nil {
		t.Fatal(err)
	}
	d.start()
	check("after a restart")
}
