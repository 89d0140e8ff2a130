package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func compile(t testing.TB, e control.Egress, ceiling *control.Egress, audiences ...string) *Policy {
	t.Helper()
	var origins []Origin
	for _, a := range audiences {
		o, err := ParseOrigin(a)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, o)
	}
	p, err := Compile(control.AgentPolicy{Name: "a", Egress: e}, &control.Ceiling{Egress: ceiling}, origins)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// decide splits "METHOD scheme://authority/path"; "CONNECT authority" is a tunnel.
func decide(t testing.TB, p *Policy, request string) Decision {
	t.Helper()
	method, url, _ := strings.Cut(request, " ")
	scheme, rest, isURL := strings.Cut(url, "://")
	if !isURL {
		scheme, rest = "", url
	}
	host, path := rest, ""
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort(scheme))
	if err != nil {
		t.Fatal(err)
	}
	return p.Decide(method, scheme, a, path)
}

func TestDecidePrecedence(t *testing.T) {
	p := compile(t, control.Egress{
		Deny:   []string{"DELETE *.example.org", "api.example.com/admin/**"},
		Ask:    []string{"POST api.stripe.example/v1/refunds", "api.example.com/admin/**", "POST asked.example.net/x"},
		Tunnel: []string{"pinned.example.net:8883", "both.example.net", "asked.example.net"},
		Allow:  []string{"GET *.example.org", "api.stripe.example", "both.example.net"},
	}, nil, "https://api.example.com")
	allowed := func(list, rule string) Decision { return Decision{Allow, list, rule, protocol.ReasonNone} }
	denied := Decision{Deny, ListDefault, "", protocol.ReasonDenied}
	tests := []struct {
		request string
		want    Decision
	}{
		{"GET https://www.example.org/", allowed(ListAllow, "GET *.example.org")},
		{"POST https://www.example.org/", denied},
		{"DELETE https://www.example.org/x", Decision{Deny, ListDeny, "DELETE *.example.org", protocol.ReasonDeniedByRule}},
		{"POST https://api.stripe.example/v1/refunds?x=1", Decision{Ask, ListAsk, "POST api.stripe.example/v1/refunds", protocol.ReasonAskDenied}},
		{"GET https://api.stripe.example/v1/refunds", allowed(ListAllow, "api.stripe.example")},
		{"GET https://api.example.com/v1", allowed(ListAudience, "")},
		{"GET https://api.example.com/admin/x", Decision{Deny, ListDeny, "api.example.com/admin/**", protocol.ReasonDeniedByRule}},
		{"GET https://nowhere.example/", denied},
		{"GET https://both.example.net/", Decision{Tunnel, ListTunnel, "both.example.net", protocol.ReasonNone}},
		{"CONNECT pinned.example.net:8883", Decision{Tunnel, ListTunnel, "pinned.example.net:8883", protocol.ReasonNone}},
		{"CONNECT pinned.example.net:443", denied},
		{"CONNECT api.example.com:443", Decision{Deny, ListDeny, "api.example.com/admin/**", protocol.ReasonDeniedByRule}},
		{"CONNECT www.example.org:443", Decision{Deny, ListDeny, "DELETE *.example.org", protocol.ReasonDeniedByRule}},
		{"CONNECT api.stripe.example:443", denied}, // the rule asks about a request, and no rule is for a tunnel
		{"CONNECT asked.example.net:443", Decision{Ask, ListAsk, "POST asked.example.net/x", protocol.ReasonAskDenied}},
		{"CONNECT https://www.example.org/chat", allowed(ListAllow, "GET *.example.org")},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, decide(t, p, tt.request)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.request, diff)
		}
	}
}

func TestDecideFirstRuleOfAListWins(t *testing.T) {
	p := compile(t, control.Egress{Allow: []string{"*.b.example.com", "*.example.com", "a.b.example.com", "a.b.example.com/x"}}, nil)
	for request, want := range map[string]string{
		"GET https://a.b.example.com/x": "*.b.example.com",
		"GET https://c.example.com/x":   "*.example.com",
		"GET https://b.example.com/x":   "*.example.com",
	} {
		if got := decide(t, p, request).Rule; got != want {
			t.Errorf("%s: rule %q, want %q", request, got, want)
		}
	}
}

func TestDecideDefaultAllow(t *testing.T) {
	p := compile(t, control.Egress{Default: "allow", Deny: []string{"evil.example"}}, nil)
	for request, want := range map[string]Verdict{
		"GET https://any.example/":          Allow,
		"GET http://any.example:8080/a//b":  Allow,
		"OPTIONS https://any.example/":      Allow,
		"GET https://evil.example/":         Deny,
		"GET http://evil.example/":          Allow, // another origin; the rule is for https
		"CONNECT any.example:443":           Deny,  // a tunnel is asked for by name
		"GET https://sub.evil.example/":     Allow,
		"GET https://[2001:db8::1]:8443/..": Allow,
	} {
		if got := decide(t, p, request); got.Verdict != want {
			t.Errorf("%s: %+v, want %v", request, got, want)
		}
	}
}

func TestCeiling(t *testing.T) {
	ceiling := &control.Egress{
		Deny:   []string{"secret.example.com"},
		Ask:    []string{"POST *.example.com"},
		Tunnel: []string{"t.example.com:22"},
		Allow:  []string{"*.example.com", "open.example", "looked-into.example"},
	}
	p := compile(t, control.Egress{
		Deny:   []string{"open.example/admin"},
		Ask:    []string{"open.example/ask"},
		Tunnel: []string{"t.example.com:22", "other.example:22", "looked-into.example"},
		Allow:  []string{"*.example.com", "*.example.net", "open.example", "secret.example.com"},
	}, ceiling, "https://key.example", "https://key.example.com")
	denied := protocol.ReasonDenied
	tests := []struct {
		request string
		want    Decision
	}{
		{"GET https://a.example.com/", Decision{Allow, ListAllow, "*.example.com", 0}},
		{"POST https://a.example.com/", Decision{Ask, ListCeiling, "POST *.example.com", protocol.ReasonAskDenied}},
		{"GET https://secret.example.com/", Decision{Deny, ListCeiling, "secret.example.com", protocol.ReasonDeniedByRule}},
		{"GET https://a.example.net/", Decision{Deny, ListCeiling, "", denied}},
		{"GET https://open.example/admin", Decision{Deny, ListDeny, "open.example/admin", protocol.ReasonDeniedByRule}},
		{"GET https://open.example/ask", Decision{Ask, ListAsk, "open.example/ask", protocol.ReasonAskDenied}},
		{"GET https://nowhere.example/", Decision{Deny, ListDefault, "", denied}},
		{"GET https://key.example.com/", Decision{Allow, ListAllow, "*.example.com", 0}},
		{"GET https://key.example/", Decision{Deny, ListCeiling, "", denied}},
		{"CONNECT t.example.com:22", Decision{Tunnel, ListTunnel, "t.example.com:22", 0}},
		{"CONNECT other.example:22", Decision{Deny, ListCeiling, "", denied}},
		{"CONNECT looked-into.example:443", Decision{Deny, ListCeiling, "", denied}},
		{"GET https://looked-into.example/", Decision{Allow, ListCeiling, "looked-into.example", 0}},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, decide(t, p, tt.request)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.request, diff)
		}
	}
	rule := compile(t, control.Egress{}, &control.Egress{Default: "allow", Deny: []string{"x.example"}})
	want := Decision{Deny, ListCeiling, "x.example", protocol.ReasonDeniedByRule}
	if diff := cmp.Diff(want, decide(t, rule, "GET https://x.example/")); diff != "" {
		t.Errorf("both deny, one by rule (-want +got):\n%s", diff)
	}
}

func TestAttack14Wildcards(t *testing.T) {
	p := compile(t, control.Egress{Allow: []string{"*.example.com"}}, nil)
	for request, want := range map[string]Verdict{
		"GET https://a.example.com/":             Allow,
		"GET https://b.a.example.com/":           Allow,
		"GET https://A.EXAMPLE.COM./":            Allow,
		"GET https://example.com/":               Deny,
		"GET https://evil-example.com/":          Deny,
		"GET https://example.com.evil.example/":  Deny,
		"GET https://a.example.com.evil.example": Deny,
		"GET https://a.example.comx/":            Deny,
		"GET https://xn--example.com/":           Deny,
	} {
		if got := decide(t, p, request); got.Verdict != want {
			t.Errorf("%s: %+v, want %v", request, got, want)
		}
	}
	for _, rule := range []string{
		"*.com", "*.co.uk", "*.github.io", "*.COM.", "*.ck", "*.foo.ck", "*.internal", "*.xn--p1ai", "*.s3.amazonaws.com",
	} {
		if _, err := ParseRule(rule); err == nil || !strings.Contains(err.Error(), "public suffix") {
			t.Errorf("ParseRule(%q): %v", rule, err)
		}
	}
	for _, rule := range []string{"*.example.co.uk", "*.me.github.io", "com", "github.io", "*.corp.internal"} {
		if _, err := ParseRule(rule); err != nil {
			t.Errorf("ParseRule(%q): %v", rule, err)
		}
	}
}

func TestAttack15SchemeAndPort(t *testing.T) {
	p := compile(t, control.Egress{Allow: []string{"files.example.com", "http://plain.example.com"}}, nil, "https://api.example.com")
	denied := protocol.ReasonDenied
	for request, want := range map[string]protocol.Reason{
		"GET https://api.example.com/":           protocol.ReasonNone,
		"GET https://api.example.com:8443/":      denied,
		"GET https://api.example.com:80/":        denied,
		"GET http://api.example.com/":            denied,
		"GET http://api.example.com:443/":        denied,
		"GET https://files.example.com/":         protocol.ReasonNone,
		"GET http://files.example.com/":          denied,
		"GET http://files.example.com:443/":      denied,
		"GET http://plain.example.com/":          protocol.ReasonNone,
		"GET https://plain.example.com/":         denied,
		"GET https://plain.example.com:80/":      denied,
		"GET ws://files.example.com:443/":        protocol.ReasonUnsupported,
		"GET wss://files.example.com:443/":       protocol.ReasonUnsupported,
		"CONNECT wss://files.example.com:443/":   protocol.ReasonUnsupported,
		"CONNECT https://files.example.com/chat": protocol.ReasonNone,
		"CONNECT http://files.example.com/chat":  denied,
		"GET torno://broker:443/v1/leaf":         protocol.ReasonUnsupported,
		"GET HTTPS://files.example.com:443/":     protocol.ReasonUnsupported,
	} {
		if got := decide(t, p, request); got.Reason != want {
			t.Errorf("%s: %+v, want %v", request, got, want)
		}
	}
}

func TestDecideRefusesMalformed(t *testing.T) {
	p := compile(t, control.Egress{Default: "allow"}, nil)
	ok := protocol.Authority{Host: "example.com", Port: 443}
	tests := []struct {
		name, method, scheme string
		a                    protocol.Authority
		path                 string
		want                 protocol.Reason
	}{
		{"sound", "GET", "https", ok, "/", protocol.ReasonNone},
		{"whole server", "OPTIONS", "https", ok, "*", protocol.ReasonNone},
		{"asterisk with GET", "GET", "https", ok, "*", protocol.ReasonBadRequest},
		{"no method", "", "https", ok, "/", protocol.ReasonBadRequest},
		{"method with space", "GET /", "https", ok, "/", protocol.ReasonBadRequest},
		{"long method", strings.Repeat("A", 33), "https", ok, "/", protocol.ReasonBadRequest},
		{"no authority", "GET", "https", protocol.Authority{}, "/", protocol.ReasonBadAuthority},
		{"no port", "GET", "https", protocol.Authority{Host: "example.com"}, "/", protocol.ReasonBadAuthority},
		{"no scheme", "GET", "", ok, "/", protocol.ReasonUnsupported},
		{"empty path", "GET", "https", ok, "", protocol.ReasonBadRequest},
		{"query alone", "GET", "https", ok, "?x", protocol.ReasonBadRequest},
		{"path without slash", "GET", "https", ok, "x", protocol.ReasonBadRequest},
		{"absolute form", "GET", "https", ok, "https://example.com/", protocol.ReasonBadRequest},
		{"tunnel with path", "CONNECT", "", ok, "/", protocol.ReasonBadRequest},
		{"long path", "GET", "https", ok, "/" + strings.Repeat("a", protocol.MaxPath), protocol.ReasonBadRequest},
	}
	for _, tt := range tests {
		if got := p.Decide(tt.method, tt.scheme, tt.a, tt.path); got.Reason != tt.want || got.Verdict == Deny == (tt.want == 0) {
			t.Errorf("%s: %+v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestVerdictString(t *testing.T) {
	for v, want := range map[Verdict]string{Deny: "deny", Ask: "ask", Allow: "allow", Tunnel: "tunnel", 9: "verdict(9)"} {
		if v.String() != want {
			t.Errorf("%d prints %q, want %q", uint8(v), v, want)
		}
	}
}

// What is no HTTP goes through tunnels that no rule allows: to where an SSH key or a database's password goes. Deny and
// ask rules stand before that, and the operator's ceiling has to allow the tunnel.
func TestAudienceTunnels(t *testing.T) {
	audience := []string{"ssh://git.example", "ssh://git.example:2222", "postgres://db.example", "https://api.example"}
	byAudience := Decision{Verdict: Tunnel, List: ListAudience}
	none := Decision{Verdict: Deny, List: ListDefault, Reason: protocol.ReasonDenied}
	for _, c := range []struct {
		request string
		file    control.Egress
		ceiling *control.Egress
		want    Decision
	}{
		{"CONNECT git.example:22", control.Egress{}, nil, byAudience},
		{"CONNECT git.example:2222", control.Egress{}, nil, byAudience},
		{"CONNECT db.example:5432", control.Egress{}, nil, byAudience},
		{"CONNECT git.example:443", control.Egress{}, nil, none},
		{"CONNECT api.example:443", control.Egress{}, nil, none},
		{"CONNECT other.example:22", control.Egress{}, nil, none},
		{"GET https://git.example:22/", control.Egress{}, nil, none},
		{"CONNECT git.example:22", control.Egress{Deny: []string{"git.example:22"}}, nil, Decision{Deny, ListDeny, "git.example:22", protocol.ReasonDeniedByRule}},
		{"CONNECT git.example:22", control.Egress{Ask: []string{"git.example:22"}}, nil, Decision{Ask, ListAsk, "git.example:22", protocol.ReasonAskDenied}},
		{"CONNECT git.example:22", control.Egress{Tunnel: []string{"git.example:22"}}, nil, Decision{Tunnel, ListTunnel, "git.example:22", protocol.ReasonNone}},
		{"CONNECT git.example:22", control.Egress{}, &control.Egress{Default: "allow"}, Decision{Deny, ListCeiling, "", protocol.ReasonDenied}},
		{"CONNECT git.example:22", control.Egress{}, &control.Egress{Tunnel: []string{"git.example:22"}}, byAudience},
	} {
		if got := decide(t, compile(t, c.file, c.ceiling, audience...), c.request); got != c.want {
			t.Errorf("%s under %+v: %+v, want %+v", c.request, c.file, got, c.want)
		}
	}
	o, err := ParseOrigin("postgres://db.example")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile(control.AgentPolicy{Egress: control.Egress{Tunnel: []string{"db.example:5432"}}}, nil, []Origin{o}); err == nil {
		t.Error("a tunnel to a database, which would carry no credential, is accepted")
	}
}

// Tunnels are asked for where the agent file's rules name a host, whatever else decides on them.
func TestTunnelHosts(t *testing.T) {
	file := control.AgentPolicy{Name: "a", Egress: control.Egress{Tunnel: []string{"b.example", "*.b.example:8883", "b.example:443", "[2001:db8::1]:22"}, Deny: []string{"b.example"}}}
	p, err := Compile(file, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := p.Tunnels(), []string{"b.example:443", "*.b.example:8883", "[2001:db8::1]:22"}; !cmp.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for i := range 2 * protocol.MaxTunnels {
		file.Egress.Tunnel = append(file.Egress.Tunnel, fmt.Sprintf("h%d.example", i))
	}
	if p, err = Compile(file, nil, nil); err != nil || len(p.Tunnels()) != protocol.MaxTunnels {
		t.Errorf("%d hosts, %v", len(p.Tunnels()), err)
	}
	if p, err = Compile(control.AgentPolicy{Name: "a"}, nil, nil); err != nil || p.Tunnels() != nil {
		t.Errorf("%q, %v", p.Tunnels(), err)
	}
}
