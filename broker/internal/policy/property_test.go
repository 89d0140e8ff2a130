package policy

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// Small alphabets, so that rules and requests meet often.
var (
	anyMethods = rapid.SampledFrom([]string{"", "GET ", "POST ", "GET,POST ", "POST,GET,HEAD "})
	anyScheme  = rapid.SampledFrom([]string{"", "https://", "http://"})
	anyHost    = rapid.SampledFrom([]string{
		"example.com", "a.example.com", "b.a.example.com", "evil-example.com", "*.example.com", "*.a.example.com", "192.0.2.1", "[2001:db8::1]",
	})
	anyPort     = rapid.SampledFrom([]string{"", ":443", ":80", ":8443"})
	ruleSegment = rapid.StringMatching(`[ab*]{0,4}`).Filter(func(s string) bool { return s != "" && !strings.Contains(s, "**") })
	anyRule     = rapid.Custom(func(t *rapid.T) string {
		path := rapid.SampledFrom([]string{"", "/", "/**", "/x"}).Draw(t, "path")
		if path == "/x" {
			path = "/" + strings.Join(rapid.SliceOfN(ruleSegment, 1, 3).Draw(t, "segments"), "/")
			path += rapid.SampledFrom([]string{"", "/", "/**"}).Draw(t, "end")
		}
		return anyMethods.Draw(t, "methods") + anyScheme.Draw(t, "scheme") + anyHost.Draw(t, "host") + anyPort.Draw(t, "port") + path
	})
	tunnelRule = rapid.Custom(func(t *rapid.T) string { return anyHost.Draw(t, "host") + anyPort.Draw(t, "port") })
	anyEgress  = rapid.Custom(func(t *rapid.T) control.Egress {
		rules := rapid.SliceOfN(anyRule, 0, 4)
		return control.Egress{
			Default: rapid.SampledFrom([]string{"", "deny", "allow"}).Draw(t, "default"),
			Allow:   rules.Draw(t, "allow"),
			Deny:    rules.Draw(t, "deny"),
			Ask:     rules.Draw(t, "ask"),
			Tunnel:  rapid.SliceOfN(tunnelRule, 0, 2).Draw(t, "tunnel"),
		}
	})
)

type request struct {
	Method, Scheme string
	Authority      protocol.Authority
	Path           string
}

func (r request) decide(p *Policy) Decision { return p.Decide(r.Method, r.Scheme, r.Authority, r.Path) }

var anyRequest = rapid.Custom(func(t *rapid.T) request {
	r := request{
		Method: rapid.SampledFrom([]string{"GET", "POST", "HEAD", "CONNECT"}).Draw(t, "method"),
		Scheme: rapid.SampledFrom([]string{"https", "http", ""}).Draw(t, "scheme"),
		Authority: protocol.Authority{
			Host: rapid.SampledFrom([]string{"example.com", "a.example.com", "b.a.example.com", "evil-example.com", "192.0.2.1", "2001:db8::1"}).Draw(t, "host"),
			Port: rapid.SampledFrom([]uint16{443, 80, 8443}).Draw(t, "port"),
		},
	}
	if r.Scheme != "" {
		parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "ab", "/", "/", "..", ".", "%2f", "%61", ";", "%25", "\\"}), 0, 8).Draw(t, "path")
		r.Path = "/" + strings.Join(parts, "")
	}
	return r
})

func mustCompile(t *rapid.T, file control.Egress, ceiling *control.Egress) *Policy {
	p, err := Compile(control.AgentPolicy{Name: "a", Egress: file}, &control.Ceiling{Egress: ceiling}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPropertyDecideIsTotal(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, ceiling := anyEgress.Draw(t, "file"), anyEgress.Draw(t, "ceiling")
		p, again := mustCompile(t, file, &ceiling), mustCompile(t, file, &ceiling)
		r := anyRequest.Draw(t, "request")
		if rapid.Bool().Draw(t, "noise") {
			r = request{
				Method:    rapid.OneOf(rapid.Just("GET"), rapid.String()).Draw(t, "method"),
				Scheme:    rapid.OneOf(rapid.Just("https"), rapid.String()).Draw(t, "scheme"),
				Authority: protocol.Authority{Host: rapid.OneOf(rapid.Just("example.com"), rapid.String()).Draw(t, "host"), Port: 443},
				Path:      rapid.OneOf(rapid.String(), rapid.StringMatching(`/[/.%a-f0-9;\\*]{0,40}`)).Draw(t, "path"),
			}
		}
		d := r.decide(p)
		if diff := cmp.Diff(d, r.decide(again)); diff != "" {
			t.Fatalf("two policies of the same files differ:\n%s", diff)
		}
		if permitted := d.Verdict == Allow || d.Verdict == Tunnel; permitted != (d.Reason == protocol.ReasonNone) {
			t.Fatalf("%+v", d)
		}
	})
}

// rank orders verdicts by what they let through; Tunnel and Allow let through the same http request.
func rank(v Verdict) int { return int(min(v, Allow)) }

func TestPropertyDenyNeverWidens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, ceiling, r := anyEgress.Draw(t, "file"), anyEgress.Draw(t, "ceiling"), anyRequest.Draw(t, "request")
		before := r.decide(mustCompile(t, file, &ceiling))
		in := &file
		if rapid.Bool().Draw(t, "in the ceiling") {
			in = &ceiling
		}
		in.Deny = slices.Insert(slices.Clone(in.Deny), rapid.IntRange(0, len(in.Deny)).Draw(t, "at"), anyRule.Draw(t, "rule"))
		if after := r.decide(mustCompile(t, file, &ceiling)); rank(after.Verdict) > rank(before.Verdict) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestPropertyAllowNeverNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, ceiling, r := anyEgress.Draw(t, "file"), anyEgress.Draw(t, "ceiling"), anyRequest.Draw(t, "request")
		before := r.decide(mustCompile(t, file, &ceiling))
		in := &file
		if rapid.Bool().Draw(t, "in the ceiling") {
			in = &ceiling
		}
		in.Allow = slices.Insert(slices.Clone(in.Allow), rapid.IntRange(0, len(in.Allow)).Draw(t, "at"), anyRule.Draw(t, "rule"))
		if after := r.decide(mustCompile(t, file, &ceiling)); rank(after.Verdict) < rank(before.Verdict) {
			t.Fatalf("%+v became %+v", before, after)
		}
	})
}

func TestPropertyCeilingOnlyNarrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, ceiling, r := anyEgress.Draw(t, "file"), anyEgress.Draw(t, "ceiling"), anyRequest.Draw(t, "request")
		alone, bound := r.decide(mustCompile(t, file, nil)), r.decide(mustCompile(t, file, &ceiling))
		if rank(bound.Verdict) > rank(alone.Verdict) {
			t.Fatalf("%+v became %+v under a ceiling", alone, bound)
		}
		if over := r.decide(mustCompile(t, ceiling, nil)); rank(bound.Verdict) > rank(over.Verdict) {
			t.Fatalf("%+v is wider than the ceiling's %+v", bound, over)
		}
	})
}

func TestPropertyRulePrints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := anyRule.Draw(t, "rule")
		r, err := ParseRule(text)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseRule(r.String())
		if err != nil {
			t.Fatal(err)
		}
		again.text = r.text
		if diff := cmp.Diff(r, again, cmp.AllowUnexported(Rule{}, glob{})); diff != "" {
			t.Fatalf("%q prints as %q:\n%s", text, r, diff)
		}
	})
}

// oracle says by regular expression whether a rule matches a request whose path has one reading.
func oracle(rule string, r request) bool {
	scheme, methods := "https", ".*"
	if m, rest, ok := strings.Cut(rule, " "); ok {
		methods, rule = strings.ReplaceAll(m, ",", "|"), rest
	}
	if s, rest, ok := strings.Cut(rule, "://"); ok {
		scheme, rule = s, rest
	}
	host, path, found := strings.Cut(rule, "/")
	if !found {
		path = "**"
	}
	if !regexp.MustCompile(`:\d+$`).MatchString(host) {
		host += map[string]string{"https": ":443", "http": ":80"}[scheme]
	}
	host = strings.Replace(regexp.QuoteMeta(host), `\*\.`, `([^.]+\.)+`, 1)
	path = strings.ReplaceAll(regexp.QuoteMeta("/"+path), `\*\*`, `.*`)
	path = strings.ReplaceAll(path, `\*`, `[^/]*`)
	re := regexp.MustCompile(`^(` + methods + `) ` + scheme + `://` + host + path + `$`)
	return re.MatchString(r.Method + " " + r.Scheme + "://" + r.Authority.String() + r.Path)
}

func TestPropertyMatchesOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rule, r := anyRule.Draw(t, "rule"), anyRequest.Draw(t, "request")
		if r.Scheme == "" || r.Method == "CONNECT" {
			r.Method, r.Scheme = "GET", "https"
		}
		r.Path = "/" + strings.Join(rapid.SliceOfN(rapid.StringMatching(`[ab]{1,3}`), 0, 4).Draw(t, "path"), "/")
		p := mustCompile(t, control.Egress{Allow: []string{rule}}, nil)
		if got, want := r.decide(p).Verdict == Allow, oracle(rule, r); got != want {
			t.Fatalf("%q on %+v: %v, want %v", rule, r, got, want)
		}
	})
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{
		"GET,POST https://*.example.com:8443/a/*/b**", "http://192.0.2.1/%2f", "[::1]", "*.com", "GET a.b/../c", "github.com/*/*/git-upload-pack",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRule(s)
		if err != nil {
			return
		}
		text := r.String()
		again, err := ParseRule(text)
		if err != nil || again.String() != text {
			t.Fatalf("%q prints as %q, which parses to %q, %v", s, text, again, err)
		}
		for i := range len(text) {
			if text[i] < ' ' || text[i] >= 0x7f {
				t.Fatalf("%q prints as %q", s, text)
			}
		}
	})
}
