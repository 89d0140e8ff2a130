package broker

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// TestAttack21OverridingFields asks for what the rules allow and says in a field that another method or path is meant,
// which some servers obey.
func TestAttack21OverridingFields(t *testing.T) {
	hits := 0
	up := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { hits++ }))
	defer up.Close()
	d := newDesk(t, up)
	const file = "as the test says"
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte(file), Policy: control.AgentPolicy{
		Name: "a", Egress: control.Egress{Allow: []string{"GET,HEAD example.com/public/**", "POST example.com/both/**", "GET example.com/both/**"}},
	}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{
		Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte(file),
	}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	for _, tt := range []struct {
		method, path string
		fields       protocol.Fields
		status       int
	}{
		{"GET", "/public/x", nil, 200},
		{"POST", "/public/x", nil, 403}, // the control: the rules do refuse it
		{"GET", "/secret", nil, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-http-method-override", Value: "DELETE"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-http-method-override", Value: "delete"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x_http_method_override", Value: "DELETE"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-http-method", Value: "PUT"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-method-override", Value: "POST"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-http-method", Value: "no method"}}, 400},
		{"GET", "/public/x", protocol.Fields{{Name: "x-http-method", Value: "GET"}, {Name: "x-method-override", Value: "PUT"}}, 400},
		{"GET", "/public/x", protocol.Fields{{Name: "x-original-url", Value: "/secret"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-rewrite-url", Value: "/public/../secret"}}, 403},
		{"GET", "/public/x", protocol.Fields{{Name: "x-original-url", Value: "secret"}}, 400},
		{"GET", "/public/x", protocol.Fields{{Name: "x-original-url", Value: "/public/y"}}, 200},
		{"POST", "/both/x", protocol.Fields{{Name: "x-http-method-override", Value: "GET"}}, 200}, // as some clients do
	} {
		want := hits
		if tt.status == 200 {
			want++
		}
		resp, _, err := p.ask(&protocol.Request{Method: tt.method, Scheme: "https", Authority: "example.com", Path: tt.path, Fields: tt.fields}, "")
		if err != nil || resp.Status != tt.status || hits != want {
			t.Errorf("%s %s %v: %d (%s), %v; want %d", tt.method, tt.path, tt.fields, resp.Status, resp.Fields.Get(protocol.FieldReason), err, tt.status)
		}
	}
}

// TestAttack16PlaceholderInURL sends the placeholder that the workload holds to another host, in the URL: it stays here. In
// content it passes, as text.
func TestAttack16PlaceholderInURL(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.setFor("a", "KEY", testKey, 1, "https://other.example"))
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("x"), Policy: control.AgentPolicy{
		Name: "a", Secrets: []string{"KEY"}, Secret: map[string]control.Assertion{"KEY": {Placeholder: true}}, Egress: control.Egress{Default: "allow"},
	}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{
		Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("x"),
	}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	_, placeholder, _ := strings.Cut(h.Env[0], "=")
	if resp, _, err := p.ask(get("/?key="+placeholder), ""); err != nil || resp.Fields.Get(protocol.FieldReason) != "placeholder_blocked" {
		t.Errorf("in the URL: %+v, %v", resp, err)
	}
	req := get("/")
	req.Method = "POST"
	if resp, _, err := p.ask(req, placeholder); err != nil || resp.Status != 200 {
		t.Errorf("in content: %+v, %v", resp, err)
	}
}
