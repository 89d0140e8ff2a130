package broker

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// grantPath is the path of one grant of the session.
func (a *askDesk) grantPath(id string) string {
	return control.PathSession + a.session.ID + "/grants?" + url.Values{"grant": {id}}.Encode()
}

// allowed sends a request, allows it for the session, and returns the grant that this is.
func (a *askDesk) allowed(req *protocol.Request) control.Grant {
	a.t.Helper()
	_, done := a.send(req, "")
	w := a.waiting(1)[0]
	a.must(a.decide(w.ID, true, true))
	if r := <-done; r.resp.Status != 200 {
		a.t.Fatalf("%d, %v", r.resp.Status, r.err)
	}
	return control.NewGrant(w.Grant)
}

// TestAttack26GrantWithdrawn takes one grant of two back: what it had let go and is open is cut within a second, such
// requests are asked about anew, also by a broker that starts again, and the other grant holds.
func TestAttack26GrantWithdrawn(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, control.Egress{Ask: []string{"POST example.com/v1/*", "POST example.com/v2/*"}, Allow: []string{"example.com"}})
	first, second := a.allowed(post("/v1/refunds")), a.allowed(post("/v2/refunds"))
	if first.ID == second.ID || len(first.ID) != 6 {
		t.Fatalf("%+v, %+v", first, second)
	}
	p, err := a.dial(a.session.Broker, protocol.KindForward, a.token)
	a.must(err)
	arrived := a.arrived.Load()
	a.must(errors.Join(p.w.WriteRequest(post("/v1/upload")), p.w.Flush()))
	for deadline := time.Now().Add(20 * time.Second); a.arrived.Load() == arrived; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the upload does not begin")
		}
	}
	began := time.Now()
	var i control.SessionInfo
	a.must(a.call("DELETE", a.grantPath(first.ID), nil, &i))
	if len(i.Grants) != 1 || i.Grants[0] != second {
		t.Errorf("left: %+v", i.Grants)
	}
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err == nil && resp.Fields.Get(protocol.FieldReason) != "ask_denied" {
		t.Errorf("the upload ends with %+v", resp)
	}
	if took := time.Since(began); took > protocol.RevokeDeadline {
		t.Errorf("cut after %v", took)
	}
	for range 2 {
		_, done := a.send(post("/v1/more"), "")
		a.must(a.decide(a.waiting(1)[0].ID, false, false))
		if r := <-done; r.resp.Fields.Get(protocol.FieldReason) != "ask_denied" {
			t.Errorf("what was granted: %d, %v", r.resp.Status, r.err)
		}
		_, done = a.send(post("/v2/more"), "")
		if r := <-done; r.resp.Status != 200 {
			t.Errorf("the other grant: %d, %v", r.resp.Status, r.err)
		}
		a.stop()
		a.start()
	}
	var ce *control.Error
	for path, want := range map[string]string{a.grantPath(first.ID): control.CodeNotFound, a.grantPath(""): control.CodeNotFound,
		control.PathSession + "none/grants?grant=" + second.ID: control.CodeNotFound} {
		if err := a.call("DELETE", path, nil, nil); !errors.As(err, &ce) || ce.Code != want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	found := false
	for _, r := range a.records("event") {
		found = found || r.Event == eventWithdrawn && r.Session == a.session.ID && r.Rule == first.Rule && strings.HasPrefix(r.By, "uid ")
	}
	if !found {
		t.Error("that is not in the audit")
	}
	if got := a.allowed(post("/v1/again")); got != first { // and may be granted again
		t.Errorf("granted again: %+v", got)
	}
}

// TestGrantWithdrawnWhileDialling takes a grant back while the connection for a request that it let go is being made.
func TestGrantWithdrawnWhileDialling(t *testing.T) {
	greeted, withdrawn := make(chan struct{}, 1), make(chan struct{})
	a := newSlowAskDesk(t, greeted, withdrawn)
	a.must(a.broker.get(a.session.ID).grant("POST example.com/v1/*"))
	_, done := a.send(post("/v1/x"), "")
	<-greeted
	a.must(a.call("DELETE", a.grantPath(control.NewGrant("POST example.com/v1/*").ID), nil, nil))
	close(withdrawn)
	if r := <-done; r.resp.Fields.Get(protocol.FieldReason) != "ask_denied" {
		t.Errorf("%d %v, %v", r.resp.Status, r.resp.Fields, r.err)
	}
	if n := a.arrived.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestAttack26GrantsAlike has two grants of one id, for hosts that were searched for until that was so: taking it back takes both.
func TestAttack26GrantsAlike(t *testing.T) {
	a := newAskDesk(t, control.Limits{}, control.Egress{Ask: []string{"POST *.example.com/v1/*"}})
	known := map[string]string{}
	var alike [2]string
	for i := 0; alike[0] == ""; i++ {
		rule := fmt.Sprintf("POST h%d.example.com/v1/*", i)
		id := control.NewGrant(rule).ID
		if known[id] != "" {
			alike = [2]string{known[id], rule}
		}
		known[id] = rule
	}
	s := a.broker.get(a.session.ID)
	a.must(errors.Join(s.grant(alike[0]), s.grant(alike[1])))
	var i control.SessionInfo
	a.must(a.call("DELETE", a.grantPath(control.NewGrant(alike[0]).ID), nil, &i))
	if len(i.Grants) != 0 || len(*s.grants.Load()) != 0 {
		t.Errorf("left: %+v", i.Grants)
	}
	recorded := 0
	for _, r := range a.records("event") {
		if r.Event == eventWithdrawn {
			recorded++
		}
	}
	if recorded != 2 {
		t.Errorf("%d records", recorded)
	}
}
