package policy

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func TestReadings(t *testing.T) {
	tests := []struct {
		path string
		want []string
	}{
		{"/a/b", []string{"/a/b"}},
		{"/a/./b/../c", []string{"/a/./b/../c", "/a/c"}},
		{"/a//../b", []string{"/a//../b", "/a/b", "/b"}},
		{"//", []string{"//", "/"}},
		{"/..", []string{"/..", "/"}},
		{"/a/.", []string{"/a/.", "/a/"}},
		{"/@s%2fn", []string{"/@s%2Fn", "/@s/n"}},
		{"/%61", []string{"/%61", "/a"}},
		{"/a%252fb", []string{"/a%252fb", "/a%2Fb", "/a/b"}},
		{"/100%25", []string{"/100%25"}},
		{"/100%", []string{"/100%", "/100%25"}},
		{"/a*", []string{"/a*", "/a%2A"}},
		{"/%c3%bc%20%3f", []string{"/%C3%BC%20%3F"}},
		{"/a;x/../b", []string{"/a;x/../b", "/b"}},
		{"/a/..;/b", []string{"/a/..;/b", "/b"}},
		{`/a\..\b`, []string{`/a\..\b`, "/b"}},
		{"/x/a%2f../b", []string{"/x/a%2F../b", "/x/b"}},
	}
	for _, tt := range tests {
		got, reason := readings(tt.path)
		if reason != 0 {
			t.Errorf("readings(%q): %v", tt.path, reason)
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("readings(%q) (-want +got):\n%s", tt.path, diff)
		}
		if isClean(tt.path) && len(got) != 1 {
			t.Errorf("%q is clean and has the readings %q", tt.path, got)
		}
	}
}

func TestAttack21Paths(t *testing.T) {
	const (
		pass  = protocol.ReasonNone
		no    = protocol.ReasonDenied
		rule  = protocol.ReasonDeniedByRule
		ambig = protocol.ReasonAmbiguousPath
		bad   = protocol.ReasonBadRequest
	)
	narrow := compile(t, control.Egress{Allow: []string{"example.com/public/**", "example.com/@scope/name", "example.com/@scope%2fname"}}, nil)
	fence := compile(t, control.Egress{Default: "allow", Deny: []string{"example.com/admin**", "example.com/a/b"}}, nil)
	whole := compile(t, control.Egress{Allow: []string{"example.com"}}, nil)
	tests := []struct {
		path                 string
		narrow, fence, whole protocol.Reason
	}{
		{"/public/x", pass, pass, pass},
		{"/public/x?../../admin", pass, pass, pass},
		{"/public/x?a=%00&b=//", pass, pass, pass},
		{"/other", no, pass, pass},
		{"/admin", no, rule, pass},
		{"/public/../admin", ambig, ambig, pass},
		{"/public/./x", pass, pass, pass},
		{"/public//x", pass, pass, pass},
		{"//public/x", ambig, pass, pass},
		{"//admin", no, ambig, pass},
		{"/./admin", no, ambig, pass},
		{"/x/../admin", no, ambig, pass},
		{"/%61dmin", no, ambig, pass},
		{"/%2561dmin", no, ambig, pass},
		{"/%252561dmin", no, ambig, pass},
		{"/%25252561dmin", ambig, ambig, ambig},
		{"/public/%2e%2e/admin", ambig, ambig, pass},
		{"/public/%2E%2e%2fadmin", ambig, ambig, pass},
		{"/public/%252e%252e/admin", ambig, ambig, pass},
		{"/public/..%2fadmin", ambig, ambig, pass},
		{"/public/..%5cadmin", ambig, ambig, pass},
		{`/public/..\admin`, ambig, ambig, pass},
		{"/public/..;/admin", ambig, ambig, pass},
		{"/public/..;x=y/admin", ambig, ambig, pass},
		{"/public/%2e%2e%3bx/admin", ambig, ambig, pass},
		{"/;/admin", no, ambig, pass},
		{"/;x/public/y", ambig, pass, pass},
		{"/admin;x", no, rule, pass},
		{"/a/b;x", no, ambig, pass},
		{"/a;x/b", no, ambig, pass},
		{"/a//../b", no, ambig, pass},
		{"/a/b", no, rule, pass},
		{"/a%2fb", no, ambig, pass},
		{"/a%2Fb", no, ambig, pass},
		{"/a%252fb", no, ambig, pass},
		{"/public/%00", bad, bad, bad},
		{"/public/%2500", bad, bad, bad},
		{"/public/%0d%0aX:y", bad, bad, bad},
		{"/public/x\x00", bad, bad, bad},
		{"/public/x\r\nHost: y", bad, bad, bad},
		{"/public/x?\n", bad, bad, bad},
		{"/public/ü", bad, bad, bad},
		{"/public/x?q=ü", bad, bad, bad},
		{"/public/x y", bad, bad, bad},
		{"/public/\x7f", bad, bad, bad},
		{"/public/x#y", bad, bad, bad},
		{"/public/%c3%bc", pass, pass, pass},
		{"/public/100%", pass, pass, pass},
		{"/public/%zz", pass, pass, pass},
		// npm's and GitLab's names
		{"/@scope%2fname", pass, pass, pass},
		{"/@scope%2Fname", pass, pass, pass},
		{"/@scope/name", pass, pass, pass},
		{"/@other%2fname", no, pass, pass},
		{"/api/v4/projects/group%2Fproject/issues", no, pass, pass},
		{"/public/projects/group%2Fproject", pass, pass, pass},
		{"/public/s3//key", pass, pass, pass},
	}
	a := protocol.Authority{Host: "example.com", Port: 443}
	for _, tt := range tests {
		for name, c := range map[string]struct {
			p    *Policy
			want protocol.Reason
		}{"narrow": {narrow, tt.narrow}, "fence": {fence, tt.fence}, "whole": {whole, tt.whole}} {
			got := c.p.Decide("GET", "https", a, tt.path)
			if got.Reason != c.want || (got.Verdict == Allow) != (c.want == pass) {
				t.Errorf("%s: %q: %+v, want %v", name, tt.path, got, c.want)
			}
		}
	}
}

// An encoded asterisk in a rule is the character, however a request spells it.
func TestEncodedAsterisk(t *testing.T) {
	p := compile(t, control.Egress{Default: "allow", Deny: []string{"example.com/x/%2A"}}, nil)
	for path, want := range map[string]protocol.Reason{
		"/x/%2a": protocol.ReasonDeniedByRule, "/x/*": protocol.ReasonAmbiguousPath, "/x/y": 0,
	} {
		if got := p.Decide("GET", "https", protocol.Authority{Host: "example.com", Port: 443}, path); got.Reason != want {
			t.Errorf("%q: %+v, want %v", path, got, want)
		}
	}
}

func FuzzReadings(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2525", "/;\\..//", "/%zz%", "/*%2a", "/\\/.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, reason := cutPath(s)
		if reason != 0 {
			return
		}
		all, reason := readings(path)
		if reason != 0 {
			return
		}
		if len(all) > 1+4*(maxDecodings+1) {
			t.Fatalf("%d readings", len(all))
		}
		for _, form := range all {
			if form[0] != '/' || len(form) > 3*len(path) {
				t.Fatalf("%q reads as %q", path, form)
			}
		}
		if isClean(path) && len(all) != 1 {
			t.Fatalf("%q is clean and has the readings %q", path, all)
		}
		if !slices.ContainsFunc(all, func(form string) bool { return !strings.Contains(form, "//") }) {
			t.Fatalf("every reading of %q has empty segments: %q", path, all)
		}
		for _, form := range all[1:] {
			if strings.Contains(form+"/", "/../") {
				t.Fatalf("%q reads as %q", path, form)
			}
		}
	})
}
