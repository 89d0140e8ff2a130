package broker

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// keyOf is a value for version n of a secret; no two share a run.
func keyOf(n int) string {
	return fmt.Sprintf("sk-%c%s", 'A'+n, strings.Repeat(string(rune('a'+n))+"7X"+string(rune('K'+n))+"q", 6))
}

// bearerOf is a bearer secret of agent a for example.com.
func bearerOf(name string, version int, rotation control.Rotation) control.Meta {
	return control.Meta{Agent: "a", Name: name, Version: version, Audience: []string{"https://example.com"},
		Inject: control.Injector{Scheme: control.SchemeBearer}, Rotation: rotation}
}

// whose answers which version's key arrived: "1", "2", or what else came.
func whose(w http.ResponseWriter, r *http.Request) {
	got := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	for n := range 10 {
		if got == keyOf(n) {
			fmt.Fprint(w, n)
			return
		}
	}
	fmt.Fprintf(w, "%q", got)
}

// enter begins a session of agent a and returns it with what opens its streams.
func (d *desk) enter() (control.SessionCreated, func() *peer) {
	d.t.Helper()
	return d.enterAs("a", nil)
}

// enterAs is enter for an agent with a file that is trusted, or none.
func (d *desk) enterAs(agent string, file []byte) (control.SessionCreated, func() *peer) {
	d.t.Helper()
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: agent, Isolation: protocol.IsolationNamespace,
		Workload: protocol.Workload{Argv: []string{"true"}}, File: file}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return s, func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
}

// says asks for / and returns the answer, or the reason of a refusal.
func (p *peer) says() string {
	resp, body, err := p.ask(get("/"), "")
	if err != nil {
		return err.Error()
	}
	if reason := resp.Fields.Get(protocol.FieldReason); reason != "" {
		return reason
	}
	return body
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestRowS14Rotation sets new versions under running sessions: the one that pins keeps the old key, the one
// that follows gets the new one with its next request on the same stream, and sessions that begin later get
// the newest, across a restart of the broker. The audit names the version of each request.
func TestRowS14Rotation(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	for _, rotation := range []control.Rotation{"", control.RotationPin, control.RotationFollow} {
		d := newDesk(t, up)
		d.must(d.setMeta(bearerOf("KEY", 1, rotation), keyOf(1)))
		s, stream := d.enter()
		p := stream()
		want(t, "at the beginning", p.says(), "1")
		d.must(d.setMeta(bearerOf("KEY", 2, rotation), keyOf(2)))
		running := map[control.Rotation]string{"": "1", control.RotationPin: "1", control.RotationFollow: "2"}[rotation]
		want(t, string(rotation)+": the same stream", p.says(), running)
		_, later := d.enter()
		want(t, string(rotation)+": a new session", later().says(), "2")
		var i control.SessionInfo
		d.must(d.call("GET", control.PathSession+s.ID, nil, &i))
		want(t, "sessions show", fmt.Sprint(i.Secrets[0].Version), running)
		d.stop()
		d.start()
		want(t, string(rotation)+": after a restart", stream().says(), running)
		if rotation == control.RotationFollow {
			d.must(d.setMeta(bearerOf("KEY", 3, rotation), keyOf(3)))
			want(t, "after a restart and a rotation", stream().says(), "3")
		}
		var used []string
		for _, r := range d.records("begin") {
			if r.Session == s.ID {
				used = append(used, fmt.Sprint(r.Version))
			}
		}
		wanted := map[string][]string{"1": {"1", "1", "1"}, "2": {"1", "2", "2", "3"}}[running]
		if diff := cmp.Diff(wanted, used); diff != "" {
			t.Errorf("%s: versions in the audit: %s", rotation, diff)
		}
		d.stop()
	}
}

// TestFollowUnderLoad rotates under requests: every one carries the key of the version that its record names.
func TestFollowUnderLoad(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	d := newDesk(t, up)
	d.stop()
	d.cfg.Operator.Limits = control.Limits{AuditRecordsPerSecond: 1 << 20, AuditMiBPerHour: 1 << 10} // the load is meant
	d.start()
	d.must(d.setMeta(bearerOf("KEY", 1, control.RotationFollow), keyOf(1)))
	s, stream := d.enter()
	done := make(chan []string)
	for range 4 {
		p := stream()
		go func() {
			var got []string
			for len(got) == 0 || got[len(got)-1] != "9" && len(got) < 5000 {
				got = append(got, p.says())
			}
			done <- got
		}()
	}
	for v := 2; v <= 9; v++ {
		d.must(d.setMeta(bearerOf("KEY", v, control.RotationFollow), keyOf(v)))
	}
	sent, recorded := map[string]int{}, map[string]int{}
	for range 4 {
		last := "1"
		for _, v := range <-done {
			if v < last || len(v) != 1 {
				t.Fatalf("%q after %q", v, last)
			}
			last = v
			sent[v]++
		}
		want(t, "the last", last, "9")
	}
	for _, r := range d.records("begin") {
		if r.Session == s.ID {
			recorded[fmt.Sprint(r.Version)]++
		}
	}
	if diff := cmp.Diff(sent, recorded); diff != "" {
		t.Errorf("sent and recorded versions: %s", diff)
	}
}

// TestFollowMasksBoth rotates while answers are open that repeat what they are told to: the old value and the
// new one are masked in all of them, with their beginning before the rotation or behind it. Another text of
// the same shape passes.
func TestFollowMasksBoth(t *testing.T) {
	text := make(chan string)
	d, _, _ := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/socket" {
			realtime(w, r)
			return
		}
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		for piece := range text {
			_, _ = io.WriteString(w, piece)
			w.(http.Flusher).Flush()
			if piece == "end" {
				return
			}
		}
	}), generous)
	d.must(d.setMeta(bearerOf("OTHER", 1, control.RotationFollow), keyOf(1)))
	d.must(d.call("DELETE", deletion("KEY"), nil, nil))
	_, stream := d.enter()
	p := stream()
	d.must(p.w.WriteRequest(get("/events")))
	d.must(p.w.Close(nil))
	var resp protocol.Response
	d.must(p.r.ReadResponse(&resp))
	_, socket := socketTo(t, stream(), "/socket") // opened with version 1, which it repeats
	text <- "old " + keyOf(1) + " split " + keyOf(1)[:10]
	d.must(d.setMeta(bearerOf("OTHER", 2, control.RotationFollow), keyOf(2)))
	text <- keyOf(1)[10:] + " new " + keyOf(2) + " old " + keyOf(1) + " neither " + keyOf(3) + " "
	d.must(d.setMeta(bearerOf("OTHER", 3, control.RotationFollow), keyOf(3)))
	text <- "newest " + keyOf(3)[:4]
	text <- keyOf(3)[4:] + " " + keyOf(1) + " " + keyOf(2) + strings.Repeat(" filler ", 2000) + keyOf(1) + keyOf(2) + keyOf(3)
	text <- "end"
	body, err := io.ReadAll(p.r)
	d.must(err)
	for n := 1; n <= 3; n++ {
		got := string(body)
		if n == 3 { // before it was any secret it was text: the control
			before, after, ok := strings.Cut(got, " neither "+keyOf(3))
			if !ok {
				t.Errorf("text was masked: %q", got[:200])
			}
			got = before + after
		}
		if _, runs := redact.NewMatcher([]redact.Secret{secretOf(keyOf(n))}).Text(got); runs > 0 {
			t.Errorf("version %d came through %d times: %.300q", n, runs, got)
		}
	}
	if _, err := socket.Write([]byte("\x81\x83\x00\x00\x00\x00new")); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 40)
	if _, err := io.ReadFull(socket, frame); err != nil || !strings.Contains(string(frame), "****") {
		t.Errorf("WebSocket: %q, %v", frame, err)
	}
	if _, runs := redact.NewMatcher([]redact.Secret{secretOf(keyOf(1))}).Text(string(frame)); runs > 0 {
		t.Errorf("the WebSocket repeats the old key: %q", frame)
	}
}

// TestFollowNarrows sets new versions that mean something else than the session began with: it gets no more by
// them, and what does not fit is refused.
func TestFollowNarrows(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(whose))
	defer up.Close()
	header := control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "Authorization", Value: "Bearer {KEY}"}}}
	for name, tt := range map[string]struct {
		change func(*control.Meta)
		want   string
	}{
		"the same":               {func(*control.Meta) {}, "2"},
		"another way to send it": {func(m *control.Meta) { m.Inject = header }, "2"},
		"pinned from now on":     {func(m *control.Meta) { m.Rotation = control.RotationPin }, "2"},
		"a host more":            {func(m *control.Meta) { m.Audience = append(m.Audience, "https://other.example") }, "2"},
		"another host":           {func(m *control.Meta) { m.Audience = []string{"https://other.example"} }, "revoked"},
		"exposed": {func(m *control.Meta) {
			*m = control.Meta{Agent: "a", Name: "KEY", Version: 2, Expose: control.ExposeEnv}
		}, "revoked"},
		"by a preset":               {func(m *control.Meta) { m.Preset = "openai" }, "revoked"},
		"past its date by the time": {func(m *control.Meta) { m.Expires = time.Now().Add(50 * time.Millisecond) }, "expired"},
	} {
		d := newDesk(t, up)
		d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, d.cfg.Operator.Upstreams[0])
		d.must(d.setMeta(bearerOf("KEY", 1, control.RotationFollow), keyOf(1)))
		s, stream := d.enter()
		m := bearerOf("KEY", 2, control.RotationFollow)
		tt.change(&m)
		d.must(d.setMeta(m, keyOf(2)))
		time.Sleep(time.Until(m.Expires))
		want(t, name, stream().says(), tt.want)
		req := get("/")
		req.Authority = "other.example"
		if resp, _, err := stream().ask(req, ""); err != nil || resp.Status != 403 {
			t.Errorf("%s: %d %v at a host that the session did not begin with", name, resp.Status, err)
		}
		var i control.SessionInfo
		d.must(d.call("GET", control.PathSession+s.ID, nil, &i))
		want(t, name+": state", string(i.Secrets[0].State), map[string]string{"revoked": "revoked", "expired": "expired"}[tt.want])
		d.stop()
	}
}

// records returns the audit's records of one type, oldest first.
func (d *desk) records(kind string) []control.AuditRecord {
	d.t.Helper()
	resp, err := d.client.Get("http://torno" + control.PathAudit + "?last=100000")
	d.must(err)
	defer resp.Body.Close()
	var all []control.AuditRecord
	for lines := json.NewDecoder(resp.Body); ; {
		var r control.AuditRecord
		if err := lines.Decode(&r); err == io.EOF {
			return all
		} else {
			d.must(err)
		}
		if r.Type == kind {
			all = append(all, r)
		}
	}
}

// end waits for the end of the nth exchange, which is recorded after the answer.
func (d *desk) end(nth int) control.AuditRecord {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if all := d.records("end"); len(all) >= nth {
			return all[nth-1]
		}
	}
	d.t.Fatalf("exchange %d has not ended", nth)
	return control.AuditRecord{}
}

// revocation is the path that revokes a version of a secret of agent a.
func revocation(name, version string) string {
	return control.PathRevoke + "?" + url.Values{"agent": {"a"}, "name": {name}, "version": {version}}.Encode()
}
