package broker

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const mib = 1 << 20

// limited starts a broker whose agent a has these limits, by the operator's word, in front of an upstream.
func limited(t *testing.T, up http.Handler, l control.AgentLimits) (*desk, control.SessionCreated, func() *peer) {
	t.Helper()
	srv := httptest.NewTLSServer(up)
	t.Cleanup(srv.Close)
	d := newDesk(t, srv)
	d.stop()
	d.cfg.Operator.Agents = map[string]control.Ceiling{"a": {Limits: l}}
	d.start()
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return d, s, func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
}

// Of ten requests at once a burst of three goes; the others are told how long to wait. A rule's limit holds for what the
// rule matches, in any spelling, and the session's for all.
func TestLimitRate(t *testing.T) {
	d, s, stream := limited(t, http.HandlerFunc(checkKey), control.AgentLimits{
		Bounds: control.Bounds{RequestsPerSecond: 0.01, Burst: 7},
		Rules:  []control.RuleLimits{{Rule: "GET example.com/slow/**", Bounds: control.Bounds{RequestsPerSecond: 0.02, Burst: 3}}},
	})
	p := stream()
	count := func(path string) (passed int, last protocol.Response) {
		for range 10 {
			resp, _, err := p.ask(get(path), "")
			d.must(err)
			if resp.Status == 200 {
				passed++
			} else {
				last = resp
			}
		}
		return passed, last
	}
	for _, tt := range []struct {
		path   string
		passed int
		after  int // seconds until one of the bound that was met first comes back
	}{{"/slow/%61", 3, 50}, {"/x/../slow/a", 0, 50}, {"/quick", 4, 100}} {
		passed, last := count(tt.path)
		after, _ := strconv.Atoi(last.Fields.Get("retry-after"))
		if passed != tt.passed || last.Status != 429 || last.Fields.Get(protocol.FieldReason) != "rate_limited" || after > tt.after || after < tt.after-10 {
			t.Errorf("%s: %d passed, then %d %v; want %d, and to wait %d s", tt.path, passed, last.Status, last.Fields, tt.passed, tt.after)
		}
	}
	want := control.AgentLimits{Bounds: control.Bounds{RequestsPerSecond: 0.01, Burst: 7}}
	if got := d.info(s.ID).Limits; got == nil || got.Bounds != want.Bounds || len(got.Rules) != 1 {
		t.Errorf("shown: %+v", got)
	}
}

// The agent's own file and the operator's hold both.
func TestLimitsOfBothFiles(t *testing.T) {
	d, _, _ := limited(t, http.HandlerFunc(checkKey), control.AgentLimits{Bounds: control.Bounds{RequestsPerSecond: 0.01, Burst: 5}, IdleSeconds: 3600})
	for _, tt := range []struct{ burst, passed int }{{2, 2}, {50, 5}} {
		file := control.TrustedFile{Agent: "a", File: []byte(strconv.Itoa(tt.burst)), Policy: control.AgentPolicy{Name: "a", Secrets: []string{"KEY"},
			Limits: control.AgentLimits{Bounds: control.Bounds{RequestsPerSecond: 0.01, Burst: tt.burst}, IdleSeconds: 7200}}}
		d.must(d.call("PUT", control.PathTrust, file, nil))
		var s control.SessionCreated
		d.must(d.call("POST", control.PathSessions, control.SessionRequest{
			Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: file.File}, &s))
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		passed := 0
		for range 10 {
			resp, _, err := p.ask(get("/"), "")
			d.must(err)
			if resp.Status == 200 {
				passed++
			}
		}
		if passed != tt.passed || d.info(s.ID).Limits.IdleSeconds != 3600 {
			t.Errorf("burst of %d under one of 5: %d passed, want %d; %+v", tt.burst, passed, tt.passed, d.info(s.ID).Limits)
		}
	}
	bad := control.TrustedFile{Agent: "a", File: []byte("x"), Policy: control.AgentPolicy{Name: "a", Limits: control.AgentLimits{Rules: []control.RuleLimits{{Rule: "*"}}}}}
	if err := d.call("PUT", control.PathTrust, bad, nil); err == nil {
		t.Error("a limit with a wrong rule is trusted")
	}
}

// While two are open a third is refused; once one has ended another goes.
func TestLimitConcurrent(t *testing.T) {
	var most, now atomic.Int32
	gate := make(chan bool)
	d, _, stream := limited(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		<-gate
		now.Add(-1)
	}), control.AgentLimits{Bounds: control.Bounds{Concurrent: 2}})
	done := make(chan int, 2)
	for range 2 {
		p := stream()
		go func() {
			resp, _, _ := p.ask(get("/"), "")
			done <- resp.Status
		}()
	}
	for now.Load() < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	third := stream()
	resp, _, err := third.ask(get("/"), "")
	d.must(err)
	if resp.Status != 429 || resp.Fields.Get(protocol.FieldReason) != "concurrency_limited" || resp.Fields.Get("retry-after") != "1" {
		t.Errorf("third: %d %v", resp.Status, resp.Fields)
	}
	close(gate)
	if a, b := <-done, <-done; a != 200 || b != 200 {
		t.Errorf("the two: %d, %d", a, b)
	}
	for range 100 { // an exchange ends a little after its answer
		if resp, _, err = third.ask(get("/"), ""); err != nil || resp.Status == 200 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if resp.Status != 200 || most.Load() > 2 {
		t.Errorf("after them: %d, %v; at most %d were open", resp.Status, err, most.Load())
	}
}

// A sink counts what it gets, and answers /big with 3 MiB.
type sink struct{ received atomic.Int64 }

var large = bytes.Repeat([]byte("x"), 3*mib)

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n, _ := io.Copy(io.Discard, r.Body)
	s.received.Add(n)
	if r.URL.Path == "/big" {
		_, _ = w.Write(large)
	}
}

// spent reports whether a further request is told that the bytes are used up.
func spent(t *testing.T, p *peer) {
	t.Helper()
	resp, _, err := p.ask(post("/"), "x")
	if err != nil || resp.Status != 429 || resp.Fields.Get(protocol.FieldReason) != "bytes_limited" {
		t.Errorf("next: %d %v, %v", resp.Status, resp.Fields, err)
	}
}

// An upload of 3 MiB is cut at 1 MiB; what comes next is told to wait.
func TestLimitBytesUp(t *testing.T) {
	var s sink
	_, _, stream := limited(t, &s, control.AgentLimits{Bounds: control.Bounds{MiBUpPerHour: 1}})
	if resp, _, err := stream().ask(post("/"), string(large)); err == nil && resp.Status != 429 {
		t.Errorf("%d", resp.Status)
	}
	spent(t, stream())
	if n := s.received.Load(); n > mib {
		t.Errorf("%d bytes went upstream", n)
	}
}

// An answer of 3 MiB is cut at 1 MiB.
func TestLimitBytesDown(t *testing.T) {
	d, s, stream := limited(t, &sink{}, control.AgentLimits{Bounds: control.Bounds{MiBDownPerHour: 1}})
	p := stream()
	d.must(p.w.WriteRequest(get("/big")))
	d.must(p.w.Close(nil))
	var resp protocol.Response
	d.must(p.r.ReadResponse(&resp))
	got, err := io.Copy(io.Discard, p.r)
	if err == nil || got > mib || got < mib/2 {
		t.Errorf("%d bytes came, %v", got, err)
	}
	spent(t, stream())
	if i := d.info(s.ID); i.BytesDown > mib {
		t.Errorf("counted: %+v", i)
	}
}

// Request heads count as well: they carry as much as content.
func TestLimitBytesOfHeads(t *testing.T) {
	_, _, stream := limited(t, &sink{}, control.AgentLimits{Bounds: control.Bounds{MiBUpPerHour: 1}})
	p := stream()
	passed := 0
	for range 40 {
		resp, _, err := p.ask(get("/", protocol.Field{Name: "x-smuggled", Value: string(large[:60<<10])}), "")
		if err != nil {
			t.Fatal(err)
		}
		if resp.Status == 200 {
			passed++
		}
	}
	if passed == 0 || passed > 17 {
		t.Errorf("%d heads of 60 KiB passed", passed)
	}
}

// A WebSocket is cut where its bytes end.
func TestLimitBytesOfWebSockets(t *testing.T) {
	var received atomic.Int64
	_, _, stream := limited(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		for err == nil {
			var b []byte
			_, b, err = c.Read(r.Context())
			received.Add(int64(len(b)))
		}
	}), control.AgentLimits{Bounds: control.Bounds{MiBUpPerHour: 1}})
	_, nc := socketTo(t, stream(), "/")
	c := client(t, nc)
	err := c.Write(context.Background(), websocket.MessageText, large[:30<<10])
	for range 500 { // what is within the limit arrives
		if received.Load() > 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	for i := 0; i < 100 && err == nil; i++ {
		err = c.Write(context.Background(), websocket.MessageText, large[:30<<10])
	}
	if n := received.Load(); err == nil || n > mib || n == 0 {
		t.Errorf("%d bytes went, %v", n, err)
	}
}

// A session ends when nothing was asked for a second, but not while an exchange is open; and at its total time whatever it does.
func TestLimitDeadlines(t *testing.T) {
	ended := func(d *desk, s control.SessionCreated, event string) bool {
		for range 200 {
			if d.info(s.ID).State == "ended" {
				return d.events(s.ID, event) == 1
			}
			time.Sleep(50 * time.Millisecond)
		}
		return false
	}
	gate := make(chan bool)
	d, s, stream := limited(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-gate }), control.AgentLimits{IdleSeconds: 1})
	done := make(chan error, 1)
	p := stream()
	go func() { _, _, err := p.ask(get("/"), ""); done <- err }()
	time.Sleep(3 * time.Second)
	if state := d.info(s.ID).State; state != "live" {
		t.Errorf("with an exchange open: %s", state)
	}
	close(gate)
	d.must(<-done)
	if !ended(d, s, eventIdle) {
		t.Error("idle, and not ended")
	}
	d, s, stream = limited(t, http.HandlerFunc(checkKey), control.AgentLimits{TotalSeconds: 2})
	p = stream()
	for i := 0; i < 100; i++ {
		if _, _, err := p.ask(get("/"), ""); err != nil {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	if !ended(d, s, eventOver) || time.Since(d.info(s.ID).Created) < 2*time.Second {
		t.Error("its time is over, and it goes on")
	}
}
