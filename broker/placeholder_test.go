package broker

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A holder is a session whose workload holds placeholders.
type holder struct {
	*desk
	session     control.SessionCreated
	placeholder map[string]string // by secret
	stream      func() *peer
}

// holding begins a session of agent a, whose file gives the workload the placeholders of the named secrets.
func (d *desk) holding(names ...string) *holder {
	d.t.Helper()
	file := control.AgentPolicy{Name: "a", Secrets: names, Secret: map[string]control.Assertion{}, Egress: control.Egress{Allow: []string{"example.com:9443"}}}
	for _, n := range names {
		file.Secret[n] = control.Assertion{Placeholder: true}
	}
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("file"), Policy: file}, nil))
	h := &holder{desk: d, placeholder: map[string]string{}}
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace,
		Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("file")}, &h.session))
	hello, err := d.hello(h.session.Broker, 1)
	d.must(err)
	for _, e := range hello.Env {
		name, value, _ := strings.Cut(e, "=")
		h.placeholder[name] = value
	}
	h.stream = func() *peer {
		p, err := d.dial(h.session.Broker, protocol.KindForward, hello.Token)
		d.must(err)
		return p
	}
	return h
}

// twoHosts is a desk with two hosts, each with a secret, and a third one that is free. limits change its operator.
func twoHosts(t *testing.T, up http.Handler, operator func(*control.Config)) *desk {
	t.Helper()
	srv := httptest.NewUnstartedServer(up)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	d := newDesk(t, srv)
	d.stop()
	u := d.cfg.Operator.Upstreams[0]
	for _, port := range []uint16{8443, 9443} {
		u.Port = port
		d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, u)
	}
	if operator != nil {
		operator(&d.cfg.Operator)
	}
	d.start()
	d.must(d.setMeta(bearerOf("KEY", 1, ""), keyOf(1)))
	b := bearerOf("OTHER", 1, "")
	b.Audience = []string{"https://example.com:8443"}
	d.must(d.setMeta(b, keyOf(2)))
	return d
}

// spellings of a placeholder that some server, or somebody behind it, reads as the placeholder.
var spellings = map[string]func(p string) string{
	"plain":   func(p string) string { return p },
	"percent": func(p string) string { return "%" + strings.ReplaceAll(fmt.Sprintf("% x", p), " ", "%") },
	"percent, twice": func(p string) string {
		return strings.ReplaceAll("%"+strings.ReplaceAll(fmt.Sprintf("% X", p), " ", "%"), "%", "%25")
	},
	"percent, in part": func(p string) string { return strings.ReplaceAll(p, "I", "%49") },
	"JSON": func(p string) string {
		var b strings.Builder
		for i := range len(p) {
			fmt.Fprintf(&b, `\u%04x`, p[i])
		}
		return b.String()
	},
	"base64":            func(p string) string { return base64.StdEncoding.EncodeToString([]byte("u:" + p)) },
	"base64url":         func(p string) string { return base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe" + p)) },
	"base64 in percent": func(p string) string { return url.QueryEscape(base64.StdEncoding.EncodeToString([]byte("uu:" + p))) },
	"base64, twice": func(p string) string {
		return base64.StdEncoding.EncodeToString([]byte(base64.StdEncoding.EncodeToString([]byte(p))))
	},
}

func add(r *protocol.Request, name, value string) {
	r.Fields = append(r.Fields, protocol.Field{Name: name, Value: value})
}

// places are the positions of a request where credentials travel.
var places = map[string]func(req *protocol.Request, text string){
	"bearer": func(r *protocol.Request, s string) { add(r, "authorization", "Bearer "+s) },
	"basic": func(r *protocol.Request, s string) {
		add(r, "authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte("u:"+s)))
	},
	"proxy":     func(r *protocol.Request, s string) { add(r, "proxy-authorization", s) },
	"x-api-key": func(r *protocol.Request, s string) { add(r, "x-api-key", s) },
	"cookie":    func(r *protocol.Request, s string) { add(r, "cookie", "a=b; sid="+s) },
	"query":     func(r *protocol.Request, s string) { r.Path = "/v1?a=b&key=" + s },
	"path":      func(r *protocol.Request, s string) { r.Path = "/bot" + strings.ReplaceAll(s, "/", "_") + "/send" },
}

// TestAttack16Placeholders sends the placeholder of one host's secret, and one of another session, in every
// credential position and spelling to other hosts: none arrives. To its own host it goes on, with the secret.
func TestAttack16Placeholders(t *testing.T) {
	arrived := make(chan string, 1)
	d := twoHosts(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Host
		whose(w, r)
	}), nil)
	h, other := d.holding("KEY", "OTHER"), d.holding("KEY", "OTHER")
	if h.placeholder["KEY"] == other.placeholder["KEY"] || h.placeholder["KEY"] == h.placeholder["OTHER"] {
		t.Fatal("placeholders repeat")
	}
	for place, put := range places {
		for spelling, spell := range spellings {
			if strings.ContainsAny(spell("x"), `\`) && (place == "path" || place == "query") {
				continue // no byte of a target
			}
			for _, tt := range []struct{ what, host, placeholder, want string }{
				{"another host", "example.com:8443", h.placeholder["KEY"], "placeholder_blocked"},
				{"nobody's host", "example.com:9443", h.placeholder["KEY"], "placeholder_blocked"},
				{"another session's", "example.com", other.placeholder["KEY"], "placeholder_blocked"},
				{"its own", "example.com", h.placeholder["KEY"], ""},
			} {
				req := get("/")
				req.Authority = tt.host
				put(req, spell(tt.placeholder))
				resp, _, err := h.stream().ask(req, "")
				d.must(err)
				if got := resp.Fields.Get(protocol.FieldReason); got != tt.want && got != "ambiguous_path" {
					t.Errorf("%s in %s to %s: %q, want %q", spelling, place, tt.what, got, tt.want)
				}
				select {
				case host := <-arrived:
					if tt.want != "" {
						t.Errorf("%s in %s to %s: arrived at %s", spelling, place, tt.what, host)
					}
				default:
				}
			}
		}
	}
}

// TestAttack16InContent sends placeholders where they are text: they pass, as they are, and are counted.
func TestAttack16InContent(t *testing.T) {
	type request struct{ body, field string }
	arrived := make(chan request, 1)
	d := twoHosts(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		arrived <- request{string(b), r.Header.Get("X-Note")}
	}), nil)
	h := d.holding("KEY", "OTHER")
	p := h.placeholder["KEY"]
	for _, size := range []int{0, 100, 100_000} {
		body := `{"env":"KEY=` + p + `"}` + strings.Repeat(" ", size) + p
		req := get("/v1/messages", protocol.Field{Name: "content-type", Value: "application/json"}, protocol.Field{Name: "x-note", Value: p})
		req.Method, req.Authority = "POST", "example.com:9443"
		resp, _, err := h.stream().ask(req, body)
		d.must(err)
		if resp.Status != 200 {
			t.Fatalf("%d bytes: %+v", size, resp)
		}
		if got := <-arrived; got.body != body || got.field != p {
			t.Errorf("%d bytes: status %d, %d bytes and %q arrived", size, resp.Status, len(got.body), got.field)
		}
		begins, ends := d.records("begin"), d.records("end")
		for i := 0; len(ends) < len(begins) && i < 500; i++ { // an end is recorded behind the answer
			time.Sleep(10 * time.Millisecond)
			ends = d.records("end")
		}
		if b, e := begins[len(begins)-1], ends[len(ends)-1]; b.Placeholders != 1 || e.Placeholders != 2 || e.Begin != b.Seq {
			t.Errorf("%d bytes: %d in the head and %d in the content were counted", size, b.Placeholders, e.Placeholders)
		}
	}
}

// TestMisplacedPlaceholder lets the operator say what becomes of a request with a misplaced placeholder, and of
// its session.
func TestMisplacedPlaceholder(t *testing.T) {
	for mode, want := range map[string]struct{ reason, body, state string }{
		"":                            {"placeholder_blocked", "", "live"},
		control.PlaceholdersBlock:     {"placeholder_blocked", "", "live"},
		control.PlaceholdersLog:       {"", "2", "live"},
		control.PlaceholdersTerminate: {"placeholder_blocked", "", "revoked"},
	} {
		d := twoHosts(t, http.HandlerFunc(whose), func(c *control.Config) { c.Agents = map[string]control.Ceiling{"a": {Placeholders: mode}} })
		h := d.holding("KEY", "OTHER")
		kept := h.stream()
		req := get("/?key=" + h.placeholder["KEY"])
		req.Authority = "example.com:8443"
		resp, body, err := h.stream().ask(req, "")
		d.must(err)
		if got := resp.Fields.Get(protocol.FieldReason); got != want.reason || want.body != "" && body != want.body {
			t.Errorf("%q: %q %q, want %+v", mode, got, body, want)
		}
		var i control.SessionInfo
		for range 200 { // it ends behind the answer
			if d.must(d.call("GET", control.PathSession+h.session.ID, nil, &i)); i.State == want.state {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if i.State != want.state {
			t.Errorf("%q: the session is %s, want %s", mode, i.State, want.state)
		}
		if got := kept.says(); (got == "1") != (want.state == "live") {
			t.Errorf("%q: another stream of the session: %q", mode, got)
		}
		events := map[string]int{}
		for i := 0; mode == control.PlaceholdersTerminate && i < 500 && len(d.of(eventTerminated)) == 0; i++ {
			time.Sleep(10 * time.Millisecond) // it is recorded behind the session's end
		}
		for _, r := range append(d.records("event"), d.records("refused")...) {
			events[r.Event+" "+r.Reason]++
			if strings.Contains(r.Path, keyOf(1)) || strings.Contains(r.Path, keyOf(2)) {
				t.Errorf("%q: a key in the audit: %s", mode, r.Path)
			}
		}
		for event, n := range map[string]bool{
			eventMisplaced + " placeholder_blocked": mode == control.PlaceholdersLog, " placeholder_blocked": want.reason != "",
			eventTerminated + " ": mode == control.PlaceholdersTerminate,
		} {
			if (events[event] > 0) != n {
				t.Errorf("%q: event %q is recorded %d times", mode, event, events[event])
			}
		}
		d.stop()
	}
}

// of returns the records of one event.
func (d *desk) of(event string) []control.AuditRecord {
	d.t.Helper()
	return slices.DeleteFunc(d.records("event"), func(r control.AuditRecord) bool { return r.Event != event })
}

// TestTwoForOneHost has two secrets for one host: the placeholder says which, in whatever position, and without
// one nobody guesses.
func TestTwoForOneHost(t *testing.T) {
	d := twoHosts(t, http.HandlerFunc(whose), nil)
	d.must(d.setMeta(bearerOf("SECOND", 1, ""), keyOf(3)))
	h := d.holding("KEY", "SECOND")
	for name, want := range map[string]string{"KEY": "1", "SECOND": "3", "": "ambiguous_credential"} {
		for place, put := range places {
			req := get("/")
			put(req, cmp.Or(h.placeholder[name], "own"))
			resp, body, err := h.stream().ask(req, "")
			d.must(err)
			if reason := resp.Fields.Get(protocol.FieldReason); reason != "" {
				body = reason
			}
			if body != want {
				t.Errorf("%q in %s: %q, want %q", name, place, body, want)
			}
		}
	}
}
