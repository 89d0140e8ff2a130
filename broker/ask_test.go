package broker

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An askDesk is a desk whose agent's ceiling asks about POST to example.com.
type askDesk struct {
	*desk
	session control.SessionCreated
	token   []byte
	arrived atomic.Int64 // requests at the upstream
}

// newAskDesk starts a broker under limits and a session of agent a.
func newAskDesk(t *testing.T, limits control.Limits, egress control.Egress) *askDesk {
	t.Helper()
	return askDeskWith(t, limits, egress, nil)
}

// newSlowAskDesk is newAskDesk for POST to example.com/v1/*, at an upstream that says on greeted when a connection comes and
// goes on with it once that is let go.
func newSlowAskDesk(t *testing.T, greeted chan<- struct{}, let <-chan struct{}) *askDesk {
	t.Helper()
	return askDeskWith(t, control.Limits{}, control.Egress{Ask: []string{"POST example.com/v1/*"}, Allow: []string{"example.com"}},
		&tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			greeted <- struct{}{}
			<-let
			return nil, nil
		}})
}

func askDeskWith(t *testing.T, limits control.Limits, egress control.Egress, cfg *tls.Config) *askDesk {
	t.Helper()
	a := &askDesk{}
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.arrived.Add(1)
		checkKey(w, r)
	}))
	up.TLS = cfg
	up.StartTLS()
	t.Cleanup(up.Close)
	a.desk = newDesk(t, up)
	a.stop()
	a.cfg.Operator.Limits = limits
	a.cfg.Operator.Agents = map[string]control.Ceiling{"a": {Egress: &egress}}
	a.start()
	a.must(a.set("a", "KEY", testKey, 1))
	a.session = a.desk.session("a")
	h, err := a.hello(a.session.Broker, 1)
	a.must(err)
	a.token = h.Token
	return a
}

var asksForPosts = control.Egress{Ask: []string{"POST example.com/v1/**"}, Allow: []string{"example.com"}}

// An asked exchange is one that has been sent and not been answered.
type asked struct {
	resp protocol.Response
	body string
	err  error
}

// send sends a request on a stream of its own.
func (a *askDesk) send(req *protocol.Request, content string) (*peer, <-chan asked) {
	p, err := a.dial(a.session.Broker, protocol.KindForward, a.token)
	a.must(err)
	_ = p.SetDeadline(time.Now().Add(time.Minute))
	done := make(chan asked, 1)
	go func() {
		var r asked
		r.resp, r.body, r.err = p.ask(req, content)
		done <- r
	}()
	return p, done
}

// waiting returns what waits, once that is n requests.
func (d *desk) waiting(n int) []control.Approval {
	d.t.Helper()
	var list []control.Approval
	for range 500 {
		d.must(d.call("GET", control.PathApprovals, nil, &list))
		if len(list) == n {
			return list
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Fatalf("%d requests wait, want %d: %+v", len(list), n, list)
	return nil
}

func (d *desk) decide(id string, allow, session bool) error {
	return d.call("POST", control.PathApprovals, control.ApprovalDecision{ID: id, Allow: allow, Session: session}, nil)
}

func post(path string, fields ...protocol.Field) *protocol.Request {
	r := get(path, fields...)
	r.Method = "POST"
	return r
}

// A request waits until a person allows or denies it. The audit names who; nothing goes upstream before.
func TestAsk(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	fields := protocol.Fields{{Name: "content-type", Value: "application/json"}, {Name: "content-length", Value: "4"}}
	_, done := a.send(post("/v1/refunds?x=1&api_key=s3cret", fields...), "{\"\"}")
	w := a.waiting(1)[0]
	length := int64(4)
	want := control.Approval{ID: w.ID, Session: a.session.ID, Agent: "a", Asked: w.Asked, Expires: w.Expires, Method: "POST", Scheme: "https",
		Authority: "example.com:443", Path: "/v1/refunds?x=1&api_key=***", ContentType: "application/json", ContentLength: &length,
		List: "ceiling", Rule: "POST example.com/v1/**", Secret: "KEY", Version: 1, Grant: "POST example.com/v1/**"}
	if got, want := show(t, w), show(t, want); got != want {
		t.Errorf("shown:\n%s\nwant:\n%s", got, want)
	}
	if n := a.arrived.Load(); n != 0 {
		t.Errorf("%d requests went upstream before anybody said a word", n)
	}
	a.must(a.decide(w.ID, true, false))
	if r := <-done; r.err != nil || r.resp.Status != 200 || r.body != "true 4 " {
		t.Errorf("allowed: %d %q, %v", r.resp.Status, r.body, r.err)
	}
	_, done = a.send(post("/v1/refunds"), "")
	a.must(a.decide(a.waiting(1)[0].ID, false, false))
	if r := <-done; r.err != nil || r.resp.Status != 403 || r.resp.Fields.Get(protocol.FieldReason) != "ask_denied" {
		t.Errorf("denied: %d %v, %v", r.resp.Status, r.resp.Fields, r.err)
	}
	if n := a.arrived.Load(); n != 1 {
		t.Errorf("%d requests went upstream, want 1", n)
	}
	if err := a.decide(w.ID, true, false); err == nil || err.(*control.Error).Code != control.CodeNotFound {
		t.Errorf("deciding twice: %v", err)
	}
	if got := a.approvals(); len(got) != 2 || !strings.HasPrefix(got[0], "allowed by uid ") || !strings.HasPrefix(got[1], "denied by uid ") || !strings.Contains(got[1], "pid ") {
		t.Errorf("the audit has %q", got)
	}
}

// show prints an approval as the API gives it.
func show(t *testing.T, a control.Approval) string {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// approvals returns what the audit says of approvals, oldest first.
func (d *desk) approvals() (all []string) {
	d.t.Helper()
	resp, err := d.client.Get("http://torno" + control.PathAudit + "?last=1000")
	d.must(err)
	defer resp.Body.Close()
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		var r control.AuditRecord
		d.must(json.Unmarshal(lines.Bytes(), &r))
		if r.Approval != "" {
			all = append(all, r.Approval)
		}
	}
	return all
}

// What is allowed for the session is asked about once, also by a broker that starts again; what else the rule has
// is still asked about.
func TestAskForTheSession(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, control.Egress{Ask: []string{"example.com/v1/*"}, Allow: []string{"example.com"}})
	_, first := a.send(post("/v1/refunds"), "")
	_, second := a.send(post("/v1/charges"), "")
	_, other := a.send(&protocol.Request{Method: "DELETE", Scheme: "https", Authority: "example.com", Path: "/v1/refunds"}, "")
	list := a.waiting(3)
	at := slices.IndexFunc(list, func(w control.Approval) bool { return w.Path == "/v1/refunds" && w.Method == "POST" })
	a.must(a.decide(list[at].ID, true, true))
	for _, done := range []<-chan asked{first, second} {
		if r := <-done; r.resp.Status != 200 {
			t.Errorf("%d, %v", r.resp.Status, r.err)
		}
	}
	a.must(a.decide(a.waiting(1)[0].ID, false, false))
	if r := <-other; r.resp.Status != 403 {
		t.Errorf("another method: %d, %v", r.resp.Status, r.err)
	}
	if got := a.info(a.session.ID).Grants; !slices.Equal(got, []control.Grant{control.NewGrant("POST example.com/v1/*")}) {
		t.Errorf("grants %q", got)
	}
	a.stop()
	a.start()
	_, third := a.send(post("/v1/more"), "")
	if r := <-third; r.resp.Status != 200 {
		t.Errorf("after a restart: %d, %v", r.resp.Status, r.err)
	}
	if got := a.approvals(); !slices.Contains(got, "granted for the session before") {
		t.Errorf("the audit has %q", got)
	}
}

// Nobody answers: 403 after the time that the operator set. Nothing of it reaches the upstream.
func TestAskTimesOut(t *testing.T) {
	a := newAskDesk(t, control.Limits{AskSeconds: 1}, asksForPosts)
	began := time.Now()
	_, done := a.send(post("/v1/x"), "")
	if r := <-done; r.resp.Status != 403 || r.resp.Fields.Get(protocol.FieldReason) != "ask_denied" || time.Since(began) < time.Second {
		t.Errorf("%d after %v, %v", r.resp.Status, time.Since(began), r.err)
	}
	if got := a.approvals(); !slices.Equal(got, []string{"timed out"}) || a.arrived.Load() > 0 {
		t.Errorf("the audit has %q, %d went upstream", got, a.arrived.Load())
	}
}

// At most so many wait: the next is told so at once. A guest that goes away makes room. Revoking the session ends all.
func TestAttack10AskFlood(t *testing.T) {
	a := newAskDesk(t, control.Limits{AsksPerSession: 3}, asksForPosts)
	before := runtime.NumGoroutine()
	var peers []*peer
	var answers []<-chan asked
	for range 3 {
		p, done := a.send(post("/v1/x"), "")
		peers, answers = append(peers, p), append(answers, done)
	}
	a.waiting(3)
	_, fourth := a.send(post("/v1/x"), "")
	if r := <-fourth; r.resp.Status != 429 || r.resp.Fields.Get("retry-after") == "" {
		t.Errorf("fourth: %d %v, %v", r.resp.Status, r.resp.Fields, r.err)
	}
	peers[0].Close()
	a.waiting(2)
	a.must(a.call("DELETE", control.PathSession+a.session.ID, nil, nil))
	a.waiting(0)
	for _, done := range answers {
		if r := <-done; r.err == nil && r.resp.Status == 200 {
			t.Errorf("%d", r.resp.Status)
		}
	}
	if a.arrived.Load() > 0 {
		t.Errorf("%d went upstream", a.arrived.Load())
	}
	for range 100 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// A request that waits holds no connection upstream, and its content is not read: 64 MiB stay where they are.
func TestAskHoldsNothing(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	p, err := a.dial(a.session.Broker, protocol.KindForward, a.token)
	a.must(err)
	a.must(p.w.WriteRequest(post("/v1/x")))
	a.must(p.w.Flush())
	var sent atomic.Int64
	go func() {
		piece := make([]byte, 64<<10)
		for range 1024 {
			n, err := p.w.Write(piece)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	}()
	id := a.waiting(1)[0].ID
	last := int64(-1)
	for sent.Load() != last {
		last = sent.Load()
		time.Sleep(300 * time.Millisecond)
	}
	if last > 4<<20 {
		t.Errorf("%d bytes of content were taken", last)
	}
	a.must(a.decide(id, false, false))
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err != nil || resp.Status != 403 {
		t.Errorf("%d, %v", resp.Status, err)
	}
}

// A secret that is deleted while a person thinks is not sent, whatever they say.
func TestAttack26RevokedWhileAsking(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	_, done := a.send(post("/v1/x"), "")
	id := a.waiting(1)[0].ID
	a.must(a.call("DELETE", control.PathSecrets+"?agent=a&name=KEY", nil, nil))
	a.must(a.decide(id, true, false))
	if r := <-done; r.err != nil || r.resp.Status == 200 || a.arrived.Load() > 0 {
		t.Errorf("%d, %v, %d went upstream", r.resp.Status, r.err, a.arrived.Load())
	}
}

// What a server may take for another request is shown as both, and allowed once at a time.
func TestAttack21AskShowsBothReadings(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, control.Egress{Ask: []string{"POST,DELETE example.com"}, Allow: []string{"example.com"}})
	_, done := a.send(post("/v1/x", protocol.Field{Name: "x-http-method-override", Value: "delete"}), "")
	w := a.waiting(1)[0]
	if w.Method != "POST" || w.Also != "DELETE /v1/x" || w.Grant != "" {
		t.Errorf("%+v", w)
	}
	if err := a.decide(w.ID, true, true); err == nil {
		t.Error("allowed for the session")
	}
	a.must(a.decide(w.ID, true, false))
	if r := <-done; r.resp.Status != 200 {
		t.Errorf("%d, %v", r.resp.Status, r.err)
	}
}

// TestAttack48AskLongReading has a workload make up a second reading whose end a person would not see: that it goes on is
// said.
func TestAttack48AskLongReading(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	for _, n := range []int{100, 8 << 10} {
		other := "/v1/" + strings.Repeat("b", n)
		_, done := a.send(post("/v1/x", protocol.Field{Name: "x-original-url", Value: other}), "")
		w := a.waiting(1)[0]
		whole := "POST " + other
		if n == 100 && w.Also != whole {
			t.Errorf("the control: %q", w.Also)
		}
		if said := fmt.Sprintf("… (%d bytes in all)", len(whole)); n > 100 && (!strings.HasSuffix(w.Also, said) || len(w.Also) > control.MaxShownPath+len(said)) {
			t.Errorf("%d bytes of %d are shown, and end in %q", len(w.Also), len(whole), w.Also[len(w.Also)-20:])
		}
		a.must(a.decide(w.ID, false, false))
		<-done
	}
}

// A person is shown a bounded, JSON-escaped part of what a workload makes up, and how long the rest is.
func TestAttack48AskHugeURL(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, asksForPosts)
	path := "/v1/" + strings.Repeat("a", 15<<10)
	kind := "text/plain; \u202exyz\x1b[2J" + strings.Repeat("b", 8<<10)
	_, done := a.send(post(path, protocol.Field{Name: "content-type", Value: strings.ReplaceAll(kind, "\x1b", "\t")}), "")
	w := a.waiting(1)[0]
	if len(w.Path) != control.MaxShownPath || w.PathBytes != len(path) || len(w.ContentType) > control.MaxShownType {
		t.Errorf("path of %d bytes, said to have %d; type of %d bytes", len(w.Path), w.PathBytes, len(w.ContentType))
	}
	resp, err := a.client.Get("http://torno" + control.PathApprovals)
	a.must(err)
	defer resp.Body.Close()
	all, err := io.ReadAll(resp.Body)
	a.must(err)
	if len(all) > 4<<10 {
		t.Errorf("%d bytes for one request", len(all))
	}
	a.must(a.decide(w.ID, false, false))
	<-done
}
