package broker

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A rereadDesk is a desk whose operator's file can be written anew.
type rereadDesk struct {
	*desk
	mu   sync.Mutex
	file control.Config
	err  error
}

func newRereadDesk(t *testing.T, up http.Handler, agents map[string]control.Ceiling) *rereadDesk {
	t.Helper()
	srv := httptest.NewTLSServer(up)
	t.Cleanup(srv.Close)
	r := &rereadDesk{desk: newDesk(t, srv)}
	r.stop()
	r.cfg.Operator.Agents = agents
	r.cfg.Reread = func() (control.Config, error) {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.file, r.err
	}
	r.file = r.cfg.Operator
	r.start()
	r.must(r.set("a", "KEY", testKey, 1))
	return r
}

// reload writes what the file says of agent a and has it read again.
func (r *rereadDesk) reload(c control.Ceiling) (control.Reloaded, error) {
	r.write(func() { r.file.Agents = map[string]control.Ceiling{"a": c} })
	var out control.Reloaded
	err := r.call("POST", control.PathReload, nil, &out)
	return out, err
}

// write changes the file, or how reading it fails.
func (r *rereadDesk) write(change func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change()
}

// guest opens a session and returns what opens streams of it.
func (r *rereadDesk) guest() (control.SessionCreated, func() *peer) {
	s := r.session("a")
	h, err := r.hello(s.Broker, 1)
	r.must(err)
	return s, func() *peer {
		p, err := r.dial(s.Broker, protocol.KindForward, h.Token)
		r.must(err)
		return p
	}
}

func status(t *testing.T, p *peer, path string) int {
	t.Helper()
	resp, _, err := p.ask(get(path), "")
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status
}

// What the operator closes is closed to a live session at once, also where it is open; what the operator opens is open to
// new sessions alone.
func TestAttack26ReloadNarrows(t *testing.T) {
	arrived, gate := make(chan bool, 1), make(chan bool)
	defer close(gate)
	r := newRereadDesk(t, http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/slow" {
			arrived <- true
			select {
			case <-gate:
			case <-req.Context().Done():
			}
		}
	}), map[string]control.Ceiling{"a": {Egress: &control.Egress{Allow: []string{"example.com"}, Deny: []string{"example.com/closed"}}}})
	_, stream := r.guest()
	cut := make(chan error, 1)
	slow := stream()
	go func() {
		resp, _, err := slow.ask(get("/slow"), "")
		if err == nil && resp.Status == 200 {
			cut <- errors.New("it went on")
		}
		cut <- nil
	}()
	<-arrived
	began := time.Now()
	_, err := r.reload(control.Ceiling{Egress: &control.Egress{Allow: []string{"example.com"}, Deny: []string{"example.com/slow", "example.com/new"}}})
	r.must(err)
	r.must(<-cut)
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("cut after %v", d)
	}
	hold := func(who string, stream func() *peer, want map[string]int) {
		t.Helper()
		for path, want := range want {
			if got := status(t, stream(), path); got != want {
				t.Errorf("%s: %s: %d, want %d", who, path, got, want)
			}
		}
	}
	hold("live session", stream, map[string]int{"/": 200, "/new": 403, "/slow": 403, "/closed": 403})
	_, later := r.guest()
	hold("new session", later, map[string]int{"/": 200, "/new": 403, "/closed": 200})
	_, err = r.reload(control.Ceiling{})
	r.must(err)
	hold("live session, opened wide", stream, map[string]int{"/new": 200, "/closed": 403})
	if n := r.events("", eventReloaded); n != 2 {
		t.Errorf("%d records of it, want 2", n)
	}
}

// Limits that come with the file hold for live sessions as well.
func TestReloadLimits(t *testing.T) {
	r := newRereadDesk(t, http.HandlerFunc(checkKey), nil)
	s, stream := r.guest()
	p := stream()
	if got := status(t, p, "/"); got != 200 {
		t.Errorf("before: %d", got)
	}
	out, err := r.reload(control.Ceiling{Limits: control.AgentLimits{Bounds: control.Bounds{RequestsPerSecond: 0.001, Burst: 2}, TotalSeconds: 5}})
	if err != nil || out.Narrowed != 1 || out.Restart != nil {
		t.Errorf("%+v, %v", out, err)
	}
	p = stream()
	if got := []int{status(t, p, "/"), status(t, p, "/"), status(t, p, "/")}; !slices.Equal(got, []int{200, 200, 429}) {
		t.Errorf("limits: %v", got)
	}
	for range 400 {
		if r.info(s.ID).State == "ended" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("its total time is over, and it goes on")
}

// TestReloadServiceLimits has limits of the broker itself read again: what is about asking and the audit holds for all at once,
// and live sessions are suspended as early as they were, or earlier.
func TestReloadServiceLimits(t *testing.T) {
	r := newRereadDesk(t, http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		_, _ = w.Write([]byte(req.Header.Get("Authorization") + " " + req.Header.Get("Authorization")))
	}), map[string]control.Ceiling{"a": {Egress: &control.Egress{Ask: []string{"POST example.com"}, Allow: []string{"example.com"}}}})
	limit := func(want string, l control.Limits) {
		t.Helper()
		r.write(func() { r.file.Limits = l })
		var out control.Reloaded
		if err := r.call("POST", control.PathReload, nil, &out); err != nil || out.Narrowed != 0 || out.Restart != nil || strings.Join(out.Changed, " ") != want {
			t.Errorf("%+v, %v; want %q changed", out, err, want)
		}
	}
	_, stream := r.guest()
	_, other := r.guest()
	limit("limits.reflections_per_response limits.reflections_per_session", control.Limits{ReflectionsPerResponse: 100, ReflectionsPerSession: 3})
	if got := stream().says(); strings.Contains(got, testKey) || !strings.Contains(got, "*") {
		t.Errorf("two runs: %q", got)
	}
	if got := stream().says(); strings.Contains(got, "*") {
		t.Errorf("four runs: %q", got)
	}
	want(t, "afterwards", stream().says(), "reflection")
	limit("limits.reflections_per_response limits.reflections_per_session", control.Limits{ReflectionsPerResponse: 1})
	if got := other().says(); got == "reflection" || strings.Contains(got, "*") {
		t.Errorf("two runs where one may be: %q", got)
	}
	want(t, "afterwards", other().says(), "reflection")

	_, third := r.guest()
	limit("limits.reflections_per_response limits.ask_seconds limits.asks_per_session", control.Limits{AskSeconds: 1, AsksPerSession: 1})
	ask := func() string {
		resp, _, err := third().ask(post("/"), "")
		if err != nil {
			return err.Error()
		}
		return resp.Fields.Get(protocol.FieldReason)
	}
	first := make(chan string, 1)
	began := time.Now()
	go func() { first <- ask() }()
	r.waiting(1)
	want(t, "a second that would wait", ask(), "rate_limited")
	want(t, "the first, after a second", <-first, "ask_denied")
	if d := time.Since(began); d < time.Second || d > 30*time.Second {
		t.Errorf("denied after %v", d)
	}

	limit("limits.audit_records_per_second limits.ask_seconds limits.asks_per_session", control.Limits{AuditRecordsPerSecond: 1})
	_, fourth := r.guest()
	refused := map[string]int{}
	for range 15 {
		refused[fourth().says()]++
	}
	if refused["rate_limited"] == 0 {
		t.Errorf("the audit's budget: %v", refused)
	}
}

// A file that wants more of misplaced placeholders wants it of live sessions too, and one that wants less does not.
func TestReloadPlaceholders(t *testing.T) {
	s := &live{agent: "a", b: &Broker{}}
	for began, all := range map[string]map[string]string{
		"":          {"": "block", "log": "block", "terminate": "terminate"},
		"log":       {"": "block", "log": "log", "terminate": "terminate", "block": "block"},
		"terminate": {"": "terminate", "log": "terminate", "block": "terminate"},
	} {
		s.operator = &control.Config{Agents: map[string]control.Ceiling{"a": {Placeholders: began}}}
		for now, want := range all {
			s.b.operator.Store(&control.Config{Agents: map[string]control.Ceiling{"a": {Placeholders: now}}})
			if got := s.placeholders(); got != want {
				t.Errorf("%q, then %q: %q, want %q", began, now, got, want)
			}
		}
	}
}

// A wrong file changes nothing, and its faults are said. What takes a restart is named.
func TestReloadRefused(t *testing.T) {
	r := newRereadDesk(t, http.HandlerFunc(checkKey), nil)
	_, stream := r.guest()
	for _, c := range []control.Ceiling{
		{Egress: &control.Egress{Allow: []string{"*"}}}, {AllowPrivate: []string{"10.0.0.0/33"}},
		{Limits: control.AgentLimits{Rules: []control.RuleLimits{{Rule: "*.com"}}}},
	} {
		var ce *control.Error
		if _, err := r.reload(c); !errors.As(err, &ce) || ce.Code != control.CodeInvalid {
			t.Errorf("%+v: %v", c, err)
		}
	}
	r.write(func() { r.err = errors.New("line 3: unknown key") })
	if _, err := r.reload(control.Ceiling{Egress: &control.Egress{}}); err == nil || err.Error() != "the operator's file: line 3: unknown key" {
		t.Errorf("%v", err)
	}
	if got := status(t, stream(), "/"); got != 200 {
		t.Errorf("after them: %d", got)
	}
	r.write(func() {
		r.err = nil
		r.file.Limits.Asks, r.file.Listen, r.file.Upstreams = 7, "vsock://2:618", nil
		r.file.Egress.Proxy, r.file.Audit.KeepDays = "http://proxy.example:3128", 3
		r.file.Plugins = map[string]control.Plugin{"vault": {}}
	})
	for range 2 { // what was ignored is still so
		out, err := r.reload(control.Ceiling{})
		if err != nil || !slices.Equal(out.Restart, []string{"listen", "upstream", "egress.proxy", "audit.keep_days", "plugins.vault"}) {
			t.Errorf("%+v, %v", out, err)
		}
	}
	d := newDesk(t, nil)
	if err := d.call("POST", control.PathReload, nil, nil); err == nil || err.(*control.Error).Code != control.CodeConflict {
		t.Errorf("without a file: %v", err)
	}
}
