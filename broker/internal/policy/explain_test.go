package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"torno.internal/protocol/control"
)

func TestExplain(t *testing.T) {
	p := compile(t, control.Egress{
		Deny: []string{"DELETE api.example.com", "x.example"}, Ask: []string{"POST api.example.com"}, Allow: []string{"api.example.com/v1/**", "*.example.com"},
	}, &control.Egress{Default: "allow"}, "https://api.example.com")
	r := requestOf(t, "GET https://api.example.com/v1/x")
	got, readings := p.Explain(r.Method, r.Scheme, r.Authority, r.Path)
	want := []Step{
		{"torno.toml", "deny", 2, "", false}, {"torno.toml", "preset deny", 0, "", false}, {"torno.toml", "ask", 1, "", false},
		{"torno.toml", "tunnel", 0, "", false}, {"torno.toml", "allow", 2, "api.example.com/v1/**", true},
		{"torno.toml", "audience", 1, "https://api.example.com", false}, {"torno.toml", "preset also", 0, "", false}, {"torno.toml", "default", 0, "deny", false},
		{"broker.toml", "deny", 0, "", false}, {"broker.toml", "preset deny", 0, "", false}, {"broker.toml", "ask", 0, "", false},
		{"broker.toml", "tunnel", 0, "", false}, {"broker.toml", "allow", 0, "", false}, {"broker.toml", "audience", 0, "", false},
		{"broker.toml", "preset also", 0, "", false}, {"broker.toml", "default", 0, "allow", true},
	}
	if diff := cmp.Diff(want, got); diff != "" || readings != 1 {
		t.Errorf("%d readings (-want +got):\n%s", readings, diff)
	}
	if steps, n := p.Explain("GET", "https", r.Authority, "/a b"); steps != nil || n != 0 {
		t.Errorf("what can't be sent: %+v, %d", steps, n)
	}
}

// What Explain says decides is what Decide decides by.
func TestPropertyExplain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		file, r := anyEgress.Draw(t, "file"), anyRequest.Draw(t, "request")
		p := mustCompile(t, file, nil)
		d := r.decide(p)
		steps, readings := p.Explain(r.Method, r.Scheme, r.Authority, r.Path)
		if readings != 1 {
			return
		}
		for _, s := range steps {
			if !s.Decides {
				continue
			}
			if s.List != d.List || d.List != ListDefault && s.Rule != d.Rule {
				t.Fatalf("%+v, but the decision is %+v", s, d)
			}
			return
		}
		t.Fatalf("nothing decides, but the decision is %+v", d)
	})
}
