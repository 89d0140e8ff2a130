package broker

import (
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An ending is how something that was open came to its end.
type ending struct {
	kind string
	who  int
	at   time.Time
	err  error
}

// opening opens one thing and tells how it ends.
func opening(t *testing.T, kind string, who int, p *peer, ends chan<- ending) io.Writer {
	t.Helper()
	r, w, err := kinds[kind](p)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := io.Copy(io.Discard, r)
		ends <- ending{kind, who, time.Now(), err}
	}()
	return w
}

// TestAttack26Expired has one of every kind open in two sessions when their secret expires: what it was sent with is cut
// within a second, as the workload sees it and as the upstream does, and recorded as that. What the secret could not be
// sent to goes on, and so does another agent's session, which has the same key for longer.
func TestAttack26Expired(t *testing.T) {
	up := newTap(t)
	d := newDesk(t, up.Server)
	d.stop()
	d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, control.Upstream{Host: "tunnel.example", Dial: up.wire(t)})
	d.start()
	expires := time.Now().Add(8 * time.Second)
	var sessions []string
	var streams []func() *peer
	for i, agent := range []string{"a", "a", "b"} {
		m := bearerOf("KEY", 1, "")
		m.Agent, m.Expires = agent, expires
		if i == 2 {
			m.Expires = expires.Add(time.Hour)
		}
		if i != 1 {
			d.must(d.setMeta(m, keyOf(1)))
		}
		policy := control.AgentPolicy{Name: agent, Secrets: []string{"KEY"}, Egress: control.Egress{Tunnel: []string{"tunnel.example"}}}
		d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: agent, File: []byte(agent), Policy: policy}, nil))
		s, stream := d.enterAs(agent, []byte(agent))
		sessions, streams = append(sessions, s.ID), append(streams, stream)
	}
	ends := make(chan ending, 64)
	var writers []io.Writer
	alive := streams[0]()
	want(t, "before", alive.says(), "1")
	for kind := range kinds {
		for who := range sessions {
			if w := opening(t, kind, who, streams[who](), ends); w != nil && who < 2 && kind != "tunnel" {
				writers = append(writers, w)
			}
			<-up.open
		}
	}
	if left := time.Until(expires); left < time.Second {
		t.Fatalf("opening took until %v before the end; the machine is too slow", left)
	}
	for range 2 * (len(kinds) - 1) {
		select {
		case e := <-ends:
			if e.who == 2 || e.kind == "tunnel" || e.err == nil || e.kind == "exchange" && e.err.Error() != "expired" {
				t.Errorf("%s of session %d ended: %v", e.kind, e.who, e.err)
			}
			if took := e.at.Sub(expires); took < 0 || took > protocol.RevokeDeadline {
				t.Errorf("%s: cut %v after it expired, want at most %v", e.kind, took, protocol.RevokeDeadline)
			} else {
				t.Logf("%s: cut after %v", e.kind, took)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("something is open still")
		}
	}
	time.Sleep(50 * time.Millisecond)
	before := len(up.arrived)
	for _, w := range writers {
		_, _ = w.Write([]byte("\x82\x84\x00\x00\x00\x00more"))
	}
	time.Sleep(50 * time.Millisecond)
	if n := len(up.arrived) - before; n > 0 {
		t.Errorf("%d pieces arrived upstream afterwards", n)
	}
	want(t, "the next request", streams[0]().says(), "expired")
	want(t, "another agent", streams[2]().says(), "1")
	select {
	case e := <-ends:
		t.Errorf("the %s of session %d ended: %v", e.kind, e.who, e.err)
	default:
	}
	d.wantExpired(sessions, len(kinds)-1)
}

// wantExpired wants in the audit that the use of KEY expired in the first two sessions, and that so many exchanges in each
// of them were cut for that.
func (d *desk) wantExpired(sessions []string, cut int) {
	d.t.Helper()
	begun, reasons, noted := map[int64]string{}, map[string]int{}, []string{}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		clear(reasons)
		for _, r := range d.records("begin") {
			begun[int64(r.Seq)] = r.Session
		}
		for _, r := range d.records("end") {
			if r.Reason == "expired" {
				reasons[begun[int64(r.Begin)]]++
			}
		}
		if reasons[sessions[0]] == cut && reasons[sessions[1]] == cut {
			break
		}
	}
	if len(reasons) != 2 || reasons[sessions[0]] != cut || reasons[sessions[1]] != cut {
		d.t.Errorf("exchanges that ended as expired: %v, want %d in each of the first two of %v", reasons, cut, sessions)
	}
	for _, r := range d.records("event") {
		if r.Event == eventExpiredUse && r.Secret == "KEY" && r.Version == 1 && r.Reason == "expired" {
			noted = append(noted, r.Session)
		}
	}
	slices.Sort(noted)
	if got, want := strings.Join(noted, " "), strings.Join(slices.Sorted(slices.Values(sessions[:2])), " "); got != want {
		d.t.Errorf("recorded for %s, want %s", got, want)
	}
}

// TestAttack26ExpiredVersions has a version expire that a session uses no more, and one that was revoked before.
func TestAttack26ExpiredVersions(t *testing.T) {
	up := newTap(t)
	d := newDesk(t, up.Server)
	m := bearerOf("KEY", 1, control.RotationFollow)
	m.Expires = time.Now().Add(3 * time.Second)
	d.must(d.setMeta(m, keyOf(1)))
	gone := bearerOf("GONE", 1, "")
	gone.Audience, gone.Expires = []string{"https://gone.example.org"}, m.Expires
	d.must(d.setMeta(gone, keyOf(5)))
	s, stream := d.enter()
	ends := make(chan ending, 2)
	opening(t, "SSE stream", 0, stream(), ends)
	<-up.open
	d.must(d.call("POST", revocation("GONE", ""), nil, nil)) // which cuts the stream as well
	if e := <-ends; !e.at.Before(m.Expires) {
		t.Fatal("the machine is too slow")
	}
	opening(t, "SSE stream", 1, stream(), ends)
	<-up.open
	d.must(d.setMeta(bearerOf("KEY", 2, control.RotationFollow), keyOf(2)))
	want(t, "a request before", stream().says(), "2")
	opening(t, "SSE stream", 2, stream(), ends)
	<-up.open
	first, second := <-ends, <-ends
	for _, e := range []ending{first, second} { // the connections to its host, whichever version they were opened with
		if took := e.at.Sub(m.Expires); took < 0 || took > protocol.RevokeDeadline {
			t.Errorf("the stream %d was cut after %v: %v", e.who, took, e.err)
		}
	}
	want(t, "a request afterwards", stream().says(), "2")
	expired := 0
	for _, r := range d.records("event") {
		if r.Event == eventExpiredUse && r.Session == s.ID {
			expired++
			want(t, "recorded", r.Secret, "KEY")
		}
	}
	if expired != 1 {
		t.Errorf("%d records", expired)
	}
}

// TestAttack26ExpiredAfterRestart has a secret expire under a session that another broker took up.
func TestAttack26ExpiredAfterRestart(t *testing.T) {
	up := newTap(t)
	d := newDesk(t, up.Server)
	m := bearerOf("KEY", 1, "")
	m.Expires = time.Now().Add(4 * time.Second)
	d.must(d.setMeta(m, keyOf(1)))
	_, stream := d.enter()
	d.stop()
	d.start()
	ends := make(chan ending, 1)
	opening(t, "SSE stream", 0, stream(), ends)
	<-up.open
	e := <-ends
	if took := e.at.Sub(m.Expires); took < 0 || took > protocol.RevokeDeadline {
		t.Errorf("cut after %v: %v", took, e.err)
	}
}

// TestAttack26ExpiredKeys has keys expire that open tunnels were opened with: one to a server of SSH, one to a database.
func TestAttack26ExpiredKeys(t *testing.T) {
	git := newSSHDesk(t)
	git.expires = time.Now().Add(4 * time.Second)
	git.must(git.setSSH(git.known, git.private))
	s := git.openSession("a")
	l := git.exchangeKeysIn(s)
	if !git.signs(s, l) {
		t.Error("the key does not sign")
	}
	wantCut(t, "SSH", git.expires, l.wait)

	db := newRoleDesk(t)
	db.expires = time.Now().Add(4 * time.Second)
	db.setRole("OTHER_URL", "other", "app")
	s = db.openSession("a")
	c, said := db.login(s, "other", "app")
	if !strings.HasSuffix(said, "ZI") {
		t.Errorf("said %q", said)
	}
	wantCut(t, "PostgreSQL", db.expires, func() error { _, err := io.Copy(io.Discard, c); return err })
}

// wantCut waits until something ends, which must be within a second of expires.
func wantCut(t *testing.T, what string, expires time.Time, wait func() error) {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- wait() }()
	select {
	case err := <-ended:
		if took := time.Since(expires); took < 0 || took > protocol.RevokeDeadline {
			t.Errorf("%s: cut after %v: %v", what, took, err)
		}
	case <-time.After(time.Until(expires) + 30*time.Second):
		t.Errorf("%s: open still", what)
	}
}

// Moments that go by while a machine sleeps, or because its clock is set, are seen by who looks at the clock.
func TestExpiryPassed(t *testing.T) {
	var e expiry
	called := func() {}
	now := time.Now()
	for i, name := range []string{"C", "A", "B", "NEVER", "OVER", "SHOWN"} {
		m := bearerOf(name, 1, "")
		m.Expires = now.Add(time.Duration(3-i) * time.Hour)
		switch name {
		case "NEVER":
			m.Expires = time.Time{}
		case "OVER":
			m.Expires = now
		case "SHOWN":
			m.Expose, m.Expires = control.ExposeEnv, now.Add(time.Hour)
		}
		e.add(&m, called)
	}
	names := func(metas []control.Meta) string {
		var all []string
		for _, m := range metas {
			all = append(all, m.Name)
		}
		return strings.Join(all, " ")
	}
	for _, step := range []struct {
		after  time.Duration
		passed bool
		want   string
	}{{0, false, ""}, {time.Hour, true, "B"}, {time.Hour, false, ""}, {5 * time.Hour, true, "C A"}, {9 * time.Hour, false, ""}} {
		if got := e.passed(now.Add(step.after)); got != step.passed {
			t.Errorf("after %v: passed %v", step.after, got)
		}
		if got := names(e.take(now.Add(step.after), called)); got != step.want {
			t.Errorf("after %v: %q, want %q", step.after, got, step.want)
		}
	}
	e.end()
}
