package broker

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A second hello, a wrong token, a token of another session, a dead session.
func TestAttack3Tokens(t *testing.T) {
	d := newDesk(t, nil)
	a, b := d.session("a"), d.session("b")
	ha, err := d.hello(a.Broker, 1)
	d.must(err)
	again, err := d.hello(a.Broker, 1)
	d.must(err)
	if !bytes.Equal(ha.Token, again.Token) {
		t.Error("the same nonce got another token")
	}
	if _, err := d.hello(a.Broker, 2); err == nil {
		t.Error("another nonce was answered")
	}
	hb, err := d.hello(b.Broker, 1)
	d.must(err)
	_, err = d.dial(a.Broker, protocol.KindForward, ha.Token)
	d.must(err)
	for name, want := range map[string]struct {
		kind   protocol.Kind
		token  []byte
		status protocol.Status
	}{
		"hello after use":  {protocol.KindHello, nil, protocol.StatusHelloUsed},
		"no token":         {protocol.KindForward, nil, protocol.StatusToken},
		"run kind":         {protocol.KindRun, ha.Token, protocol.StatusKind},
		"unknown kind":     {99, ha.Token, protocol.StatusKind},
		"channel no token": {protocol.KindChannel, nil, protocol.StatusToken},
	} {
		_, err := d.dial(a.Broker, want.kind, want.token)
		var se *protocol.StatusError
		if !errors.As(err, &se) || se.Status != want.status {
			t.Errorf("%s: %v, want status %v", name, err, want.status)
		}
	}
	d.must(d.call("DELETE", control.PathSession+a.ID, nil, nil))
	if _, err := d.dial(a.Broker, protocol.KindForward, ha.Token); err == nil {
		t.Error("a revoked session still answers")
	}
	c := d.session("a")
	if _, err := d.dial(c.Broker, protocol.KindForward, hb.Token); statusOf(err) != protocol.StatusToken {
		t.Errorf("another's token: %v", err)
	}
}

// A session outlives its broker: token, CA and versions are on record.
func TestSessionSurvivesRestart(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(checkKey))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	d.must(d.set("a", "KEY", "sk-another-value-0123456789abcdef", 2)) // pinned: not for this session
	d.stop()
	d.start()
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if resp, body, err := p.ask(get("/"), ""); err != nil || resp.Status != 200 || !strings.HasPrefix(body, "true") {
		t.Errorf("after a restart: %d %q %v", resp.Status, body, err)
	}
}

// Revoking cuts what is open within a second.
func TestAttack26RevokeCuts(t *testing.T) {
	started := make(chan struct{}, 1)
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	}))
	defer up.Close()
	for _, how := range []string{"session", "secret"} {
		d := newDesk(t, up)
		d.must(d.set("a", "KEY", testKey, 1))
		s := d.session("a")
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		d.must(p.w.WriteRequest(get("/")))
		d.must(p.w.Close(nil))
		var resp protocol.Response
		d.must(p.r.ReadResponse(&resp))
		<-started
		begun := time.Now()
		path := control.PathSession + s.ID
		if how == "secret" {
			path = control.PathSecrets + "?" + url.Values{"agent": {"a"}, "name": {"KEY"}}.Encode()
		}
		d.must(d.call("DELETE", path, nil, nil))
		if _, err := io.ReadAll(p.r); err == nil {
			t.Errorf("%s: the cut answer ended as if it were whole", how)
		}
		if took := time.Since(begun); took > protocol.RevokeDeadline {
			t.Errorf("%s: cut after %v, want at most %v", how, took, protocol.RevokeDeadline)
		}
		d.stop()
	}
}

// A guest that is gone without a word, as after kill -9 of torno run, ends its session; one that waits for
// its guest, or has one, goes on.
func TestAbandonedSessionEnds(t *testing.T) {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Abandoned = 300 * time.Millisecond
	d.start()
	gone, alive, waiting := d.session("a"), d.session("a"), d.session("a")
	for _, s := range []control.SessionCreated{gone, alive} {
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		if s.ID == gone.ID {
			p.Close()
		}
	}
	time.Sleep(time.Second)
	for s, want := range map[string]string{gone.ID: "ended", alive.ID: "live", waiting.ID: "waiting"} {
		var i control.SessionInfo
		d.must(d.call("GET", control.PathSession+s, nil, &i))
		if i.State != want {
			t.Errorf("state %q, want %q", i.State, want)
		}
	}
}

// A guest that goes away while the upstream thinks, or in the middle of its content, ends the upstream's
// exchange: nobody pays for an answer that nobody waits for, and nothing half-sent is taken for whole.
func TestGuestGone(t *testing.T) {
	ended := make(chan error, 1)
	up := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil {
			<-r.Context().Done()
		}
		ended <- err
	}))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for _, whole := range []bool{true, false} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		req := get("/")
		if !whole {
			req.Method, req.Fields = "POST", protocol.Fields{{Name: "content-length", Value: "10"}}
		}
		d.must(p.w.WriteRequest(req))
		if whole {
			d.must(p.w.Close(nil))
		} else {
			_, _ = io.WriteString(p.w, "half")
			d.must(p.w.Flush())
		}
		time.Sleep(100 * time.Millisecond)
		p.Close()
		select {
		case err := <-ended:
			if (err == nil) != whole {
				t.Errorf("whole %v: the upstream saw %v", whole, err)
			}
		case <-time.After(3 * watchInterval):
			t.Errorf("whole %v: the upstream was not told", whole)
		}
	}
}

// Content that is not as long as was said never ends as a whole request.
func TestAttack18LengthDisagrees(t *testing.T) {
	seen := make(chan string, 4)
	up := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		seen <- fmt.Sprintf("%d %v", len(b), err == nil)
	}))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for said, sent := range map[string]string{"10": "short", "3": "too long", "+5": "right", "5, 5": "right"} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		req := get("/")
		req.Method, req.Fields = "POST", protocol.Fields{{Name: "content-length", Value: said}}
		if resp, body, err := p.ask(req, sent); err == nil && resp.Status == 200 {
			t.Errorf("%s for %d bytes: %d %q", said, len(sent), resp.Status, body)
		}
	}
	close(seen)
	for got := range seen {
		if strings.HasSuffix(got, "true") {
			t.Errorf("the upstream saw a whole request: %s", got)
		}
	}
}

// Garbage, and heads beyond every limit, cost the broker one stream each and nothing else.
func TestMalformedStreams(t *testing.T) {
	d := newDesk(t, nil)
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for name, junk := range map[string][]byte{
		"garbage":     []byte("GET / HTTP/1.1\r\n\r\n"),
		"giant field": append([]byte{2, 3, 'G', 'E', 'T', 5, 'h', 't', 't', 'p', 's', 1, 'a', 1, '/'}, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"zeros":       make([]byte, 4096),
	} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		_, _ = p.Write(junk)
		if n, err := p.Read(make([]byte, 1)); err == nil && n > 0 {
			t.Errorf("%s: answered", name)
		}
	}
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Status != 403 {
		t.Errorf("the next stream: %d %v", resp.Status, err)
	}
}

// Every stream beyond MaxStreams is told so, and none is left waiting.
func TestStreamLimit(t *testing.T) {
	d := newDesk(t, nil)
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for i := range protocol.MaxStreams {
		if _, err := d.dial(s.Broker, protocol.KindForward, h.Token); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	var se *protocol.StatusError
	if _, err := d.dial(s.Broker, protocol.KindForward, h.Token); !errors.As(err, &se) || se.Status != protocol.StatusBusy {
		t.Errorf("one more: %v, want %v", err, protocol.StatusBusy)
	}
	if _, err := d.dial(s.Broker, protocol.KindChannel, h.Token); err != nil {
		t.Errorf("a channel stream: %v", err)
	}
}

// TestResumedSessionStaysNarrow restarts the broker under a session whose agent file narrows a secret's hosts.
func TestResumedSessionStaysNarrow(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(checkKey))
	defer up.Close()
	d := newDesk(t, up)
	d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, d.cfg.Operator.Upstreams[0])
	d.cfg.Operator.Upstreams[1].Host = "other.example"
	d.stop()
	d.start()
	d.must(d.setFor("a", "KEY", testKey, 1, "https://example.com", "https://other.example"))
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("x"), Policy: control.AgentPolicy{Name: "a",
		Secrets: []string{"KEY"}, Secret: map[string]control.Assertion{"KEY": {Hosts: []string{"example.com"}}}}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace,
		Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("x")}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	ask := func() int {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		req := get("/")
		req.Authority = "other.example"
		resp, _, err := p.ask(req, "")
		d.must(err)
		return resp.Status
	}
	if got := ask(); got != 403 {
		t.Fatalf("before: %d", got)
	}
	d.stop()
	d.start()
	if got := ask(); got != 403 {
		t.Errorf("after a restart: %d, want 403", got)
	}
}
