package policy

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

func TestParseRule(t *testing.T) {
	tests := []struct{ in, want string }{
		{"example.com", "example.com"},
		{"Example.COM.", "example.com"},
		{"https://example.com:443/**", "example.com"},
		{"http://example.com", "http://example.com"},
		{"http://example.com:80/x", "http://example.com/x"},
		{"http://example.com:443", "http://example.com:443"},
		{"example.com:80", "example.com:80"},
		{"GET *.example.org", "GET *.example.org"},
		{"POST,GET,GET example.com/a", "GET,POST example.com/a"},
		{"M-SEARCH example.com", "M-SEARCH example.com"},
		{"github.com/*/*/git-upload-pack", "github.com/*/*/git-upload-pack"},
		{"example.com/a**", "example.com/a**"},
		{"example.com/", "example.com/"},
		{"192.0.2.1:8080/x", "192.0.2.1:8080/x"},
		{"[2001:DB8::0:1]:8443", "[2001:db8::1]:8443"},
		{"*.a_b.example.com", "*.a_b.example.com"},
		{"example.com/group%2fproject", "example.com/group%2Fproject"},
		{"example.com/b%c3%bccher%20x", "example.com/b%C3%BCcher%20x"},
		{"example.com/.well-known/x", "example.com/.well-known/x"},
	}
	for _, tt := range tests {
		r, err := ParseRule(tt.in)
		if err != nil {
			t.Errorf("ParseRule(%q): %v", tt.in, err)
			continue
		}
		if got := r.String(); got != tt.want {
			t.Errorf("ParseRule(%q) prints %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestParseRuleRefuses(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"empty", "", "host is empty"},
		{"path alone", "/x", "host is empty"},
		{"method alone", "GET ", "host is empty"},
		{"leading space", " example.com", "begins with a space"},
		{"two spaces", "GET  example.com", "host"},
		{"tab", "GET\texample.com", "host"},
		{"trailing space", "example.com ", "not a list of methods"},
		{"lower-case method", "get example.com", "GET"},
		{"CONNECT", "CONNECT example.com", "tunnel list"},
		{"empty method", "GET,,POST example.com", "list of methods"},
		{"spaces between methods", "GET, POST example.com", "list of methods"},
		{"scheme", "ftp://example.com", "neither https nor http"},
		{"upper-case scheme", "HTTPS://example.com", "neither https nor http"},
		{"websocket scheme", "wss://example.com", "WebSockets"},
		{"user information", "user@example.com", "cannot be in a host"},
		{"port 0", "example.com:0", "port"},
		{"port wildcard", "example.com:*", "asterisk"},
		{"every host", "*", "default"},
		{"wildcard inside", "a.*.example.com", "wildcard"},
		{"wildcard without dot", "*example.com", "wildcard"},
		{"wildcard twice", "*.*.example.com", "wildcard"},
		{"wildcard address", "*.0.2.1", "IPv4"},
		{"wildcard before a whole address", "*.192.0.2.1", "wildcard before an address"},
		{"wildcard before IPv6", "*.[::1]", "wildcard before an address"},
		{"non-ASCII host", "bücher.example", "xn--"},
		{"octal address", "0177.0.0.1", "IPv4"},
		{"query", "example.com/x?y=1", "query"},
		{"query without path", "example.com?y", "cannot be in a host"},
		{"fragment", "example.com/#x", "percent-encoded"},
		{"non-ASCII path", "example.com/ü", "percent-encoded"},
		{"control in path", "example.com/\x1b[31m", "cannot be in a path"},
		{"backslash in path", `example.com/a\b`, "percent-encoded"},
		{"bad triplet", "example.com/%zz", "hexadecimal"},
		{"cut triplet", "example.com/%2", "hexadecimal"},
		{"encoded NUL", "example.com/%00", "never sent"},
		{"needless encoding", "example.com/%61", `write 'a'`},
		{"encoded dots", "example.com/%2e%2e/x", `write '.'`},
		{"dot segment", "example.com/a/../b", `segment ".."`},
		{"dot at the end", "example.com/a/.", `segment "."`},
		{"empty segment", "example.com//a", `segment ""`},
		{"stars in the middle", "example.com/**/a", "any rest"},
		{"three stars", "example.com/***", "any rest"},
		{"too long", "example.com/" + strings.Repeat("a", MaxRule), "at most"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRule(tt.in)
			if err == nil {
				t.Fatalf("ParseRule(%q) succeeds", tt.in)
			}
			full := (&RuleError{"torno.toml", "egress.allow", 0, tt.in, err}).Error()
			if !strings.Contains(full, tt.want) {
				t.Errorf("ParseRule(%q) says %q, want it to hold %q", tt.in, full, tt.want)
			}
			if strings.ContainsAny(full, "\x1b\x00\t") {
				t.Errorf("error %q holds a control character", full)
			}
		})
	}
}

func TestGlob(t *testing.T) {
	tests := []struct {
		glob string
		yes  []string
		no   []string
	}{
		{"/**", []string{"/", "/a", "/a/b", "//"}, []string{"", "*", "a"}},
		{"/", []string{"/"}, []string{"/a", "", "//"}},
		{"/a", []string{"/a"}, []string{"/", "/A", "/a/", "/ab", "/b"}},
		{"/*", []string{"/", "/a"}, []string{"/a/", "/a/b", ""}},
		{"/a/**", []string{"/a/", "/a/b/c"}, []string{"/a", "/ab/c"}},
		{"/a**", []string{"/a", "/ab", "/a/b/c"}, []string{"/", "/b"}},
		{"/*/*/info/refs", []string{"/o/r/info/refs"}, []string{"/o/info/refs", "/o/r/x/info/refs", "/o/r/info/refs/"}},
		{"/v*/x", []string{"/v1/x", "/v/x", "/v12/x"}, []string{"/v1/2/x", "/w/x"}},
		{"/a*b*c", []string{"/abc", "/aXbYc", "/abbcc", "/abcbc"}, []string{"/ac", "/acb", "/ab/c"}},
		{"/*a*a", []string{"/aa", "/aaa", "/xaya"}, []string{"/a", "/ab"}},
		{"/ab*ba", []string{"/abba", "/abxba"}, []string{"/aba"}},
		{"/a*b**", []string{"/ab", "/axb", "/axb/c", "/aXbc/d"}, []string{"/a/b", "/ac"}},
		{"/*.json", []string{"/.json", "/a.json", "/a.json.json"}, []string{"/a.json/", "/a/b.json", "/json"}},
	}
	for _, tt := range tests {
		g, err := parseGlob(tt.glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range tt.yes {
			if !g.match(p) {
				t.Errorf("%q does not match %q", tt.glob, p)
			}
		}
		for _, p := range tt.no {
			if g.match(p) {
				t.Errorf("%q matches %q", tt.glob, p)
			}
		}
	}
}

func TestCompileNamesEveryFault(t *testing.T) {
	file := control.AgentPolicy{Name: "a", Egress: control.Egress{
		Default: "permit",
		Allow:   []string{"example.com", "*.com"},
		Deny:    []string{"get example.com"},
		Tunnel:  []string{"bad host", "GET pinned.example:22", "pinned.example:22", "pinned.example/x"},
	}}
	ceiling := &control.Ceiling{Egress: &control.Egress{Ask: []string{"a..b"}}}
	_, err := Compile(file, ceiling, nil)
	want := `torno.toml: egress.deny, rule 1 "get example.com": method "get"
hint: methods are case-sensitive; write GET
torno.toml: egress.tunnel, rule 1 "bad host": method "bad"
hint: methods are case-sensitive; write BAD
torno.toml: egress.allow, rule 2 "*.com": "*.com" would match hosts of everybody under the public suffix "com"
hint: name the domain, as in *.example.com
torno.toml: egress.default is "permit", neither "deny" nor "allow"
torno.toml: egress.tunnel, rule 2 "GET pinned.example:22": a tunnel has no method, scheme or path
hint: write host:port alone
torno.toml: egress.tunnel, rule 4 "pinned.example/x": a tunnel has no method, scheme or path
hint: write host:port alone
broker.toml: agents.a.egress.ask, rule 1 "a..b": authority "a..b": empty label`
	if err == nil {
		t.Fatal("Compile succeeds")
	}
	if diff := cmp.Diff(want, err.Error()); diff != "" {
		t.Errorf("errors differ (-want +got):\n%s", diff)
	}
	var re *RuleError
	if !errors.As(err, &re) || re.Rule != "get example.com" || re.List != "egress.deny" || re.Index != 0 || re.Hint() == "" {
		t.Errorf("first RuleError = %+v", re)
	}
}

func TestCompileBoundsRules(t *testing.T) {
	rules := make([]string, MaxRules+1)
	for i := range rules {
		rules[i] = "example.com"
	}
	if _, err := Compile(control.AgentPolicy{Egress: control.Egress{Allow: rules[1:]}}, nil, nil); err != nil {
		t.Errorf("%d rules: %v", MaxRules, err)
	}
	if _, err := Compile(control.AgentPolicy{Egress: control.Egress{Tunnel: rules}}, nil, nil); err == nil {
		t.Errorf("%d rules compile", MaxRules+1)
	}
}

func TestCompileRefusesTunnelToAudience(t *testing.T) {
	audience := []Origin{mustOrigin(t, "https://api.example.com")}
	for _, rule := range []string{"api.example.com", "*.example.com", "API.example.com.:443"} {
		_, err := Compile(control.AgentPolicy{Egress: control.Egress{Tunnel: []string{rule}}}, nil, audience)
		if err == nil || !strings.Contains(err.Error(), "https://api.example.com") {
			t.Errorf("tunnel %q: %v", rule, err)
		}
	}
	for _, rule := range []string{"api.example.com:22", "other.example.com", "*.api.example.com"} {
		if _, err := Compile(control.AgentPolicy{Egress: control.Egress{Tunnel: []string{rule}}}, nil, audience); err != nil {
			t.Errorf("tunnel %q: %v", rule, err)
		}
	}
}

func TestCompileRefusesPlainAudience(t *testing.T) {
	o := mustOrigin(t, "api.example.com")
	o.Scheme = "http"
	if _, err := Compile(control.AgentPolicy{}, nil, []Origin{o}); err == nil {
		t.Error("a secret's audience is plain http")
	}
}

func TestParseOrigin(t *testing.T) {
	for in, want := range map[string]string{
		"https://API.example.com":      "https://api.example.com",
		"api.example.com":              "https://api.example.com",
		"https://api.example.com:443":  "https://api.example.com",
		"https://api.example.com:8443": "https://api.example.com:8443",
		"https://[2001:db8::1]:444":    "https://[2001:db8::1]:444",
	} {
		if o, err := ParseOrigin(in); err != nil || o.String() != want {
			t.Errorf("ParseOrigin(%q) = %v, %v; want %s", in, o, err, want)
		}
	}
	for _, in := range []string{
		"", "http://api.example.com", "HTTPS://api.example.com", "https://", "https://a/b", "https://*.example.com", "*.example.com",
	} {
		if o, err := ParseOrigin(in); err == nil {
			t.Errorf("ParseOrigin(%q) = %v", in, o)
		}
	}
}

func mustOrigin(t *testing.T, s string) Origin {
	t.Helper()
	o, err := ParseOrigin(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
