package policy

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// requestOf reads "METHOD URL", or "CONNECT HOST:PORT" for a tunnel.
func requestOf(t *testing.T, s string) request {
	t.Helper()
	method, url, _ := strings.Cut(s, " ")
	scheme, rest, plain := strings.Cut(url, "://")
	if !plain {
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
	return request{method, scheme, a, path}
}

func (r request) covered(g Grant) bool { return g.Covers(r.Method, r.Scheme, r.Authority, r.Path) }

func TestGrant(t *testing.T) {
	p := compile(t, control.Egress{
		Ask:    []string{"POST,PUT api.example.com/v1/refunds/*", "*.example.org", "GET files.example.net/a/**", "http://plain.example.net", "t.example.net"},
		Tunnel: []string{"t.example.net"},
	}, nil)
	tests := []struct {
		asked, grant string
		covers, not  []string
	}{
		{
			"POST https://api.example.com/v1/refunds/1?x=y", "POST,PUT api.example.com/v1/refunds/*",
			[]string{"PUT https://api.example.com/v1/refunds/2"},
			[]string{"GET https://api.example.com/v1/refunds/1", "POST https://api.example.com/v1/refunds/1/2", "POST https://api.example.com:8443/v1/refunds/1",
				"POST http://api.example.com/v1/refunds/1", "POST https://api.example.com/v1/refunds/..%2fx", "CONNECT api.example.com:443"},
		},
		{ // neither the wildcard nor the methods that nobody named
			"GET https://a.example.org/", "GET a.example.org",
			[]string{"GET https://a.example.org/any/%2e%2e/path", "CONNECT https://a.example.org/socket"},
			[]string{"GET https://b.example.org/", "GET https://x.a.example.org/", "DELETE https://a.example.org/"},
		},
		{"GET https://files.example.net/a/b", "GET files.example.net/a/**", []string{"GET https://files.example.net/a/"}, []string{"GET https://files.example.net/a/../b"}},
		{"GET http://plain.example.net/", "GET http://plain.example.net", []string{"GET http://plain.example.net/x"}, []string{"GET https://plain.example.net/"}},
		{"CONNECT t.example.net:443", "CONNECT t.example.net:443", nil, []string{"GET https://t.example.net/", "CONNECT t.example.net:22"}},
	}
	for _, tt := range tests {
		r := requestOf(t, tt.asked)
		g, err := GrantOf(r.decide(p), r.Method, r.Scheme, r.Authority)
		if err != nil || g.String() != tt.grant {
			t.Errorf("%s: grant %q, %v, want %q", tt.asked, g, err, tt.grant)
			continue
		}
		if g, err = ParseGrant(g.String()); err != nil {
			t.Fatal(err)
		}
		for _, s := range append(tt.covers, tt.asked) {
			if !requestOf(t, s).covered(g) {
				t.Errorf("grant %q does not cover %s", g, s)
			}
		}
		for _, s := range tt.not {
			if requestOf(t, s).covered(g) {
				t.Errorf("grant %q covers %s", g, s)
			}
		}
	}
	for _, s := range []string{"api.example.com", "GET *.example.com", "", "CONNECT", "CONNECT x", "GET x y"} {
		if g, err := ParseGrant(s); err == nil {
			t.Errorf("%q is grant %q", s, g)
		}
	}
	if _, err := GrantOf(Decision{Verdict: Deny, Rule: "x.example"}, "GET", "https", protocol.Authority{Host: "x.example", Port: 443}); err == nil {
		t.Error("a grant of what is denied")
	}
}

// A grant answers a question that was asked, of the authority that was asked for, and prints as it is read.
func TestPropertyGrant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, r, other := anyEgress.Draw(t, "file"), anyRequest.Draw(t, "request"), anyRequest.Draw(t, "other")
		p := mustCompile(t, file, nil)
		d := r.decide(p)
		if d.Verdict != Ask {
			return
		}
		g, err := GrantOf(d, r.Method, r.Scheme, r.Authority)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseGrant(g.String())
		if err != nil || again.String() != g.String() {
			t.Fatalf("%q reads as %q, %v", g, again, err)
		}
		if other.covered(again) && (other.Authority != r.Authority || (other.Scheme == "") != (r.Scheme == "")) {
			t.Fatalf("grant %q for %+v covers %+v", g, r, other)
		}
	})
}
