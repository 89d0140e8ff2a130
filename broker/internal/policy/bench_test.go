package policy

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func BenchmarkDecide(b *testing.B) {
	var many []string
	for i := range MaxRules {
		many = append(many, fmt.Sprintf("GET h%d.example.com/v1/*", i))
	}
	p := compile(b, control.Egress{Deny: []string{"DELETE *.example.org"}, Allow: many}, nil, "https://api.example.com")
	for name, r := range map[string]request{
		"audience": {"POST", "https", protocol.Authority{Host: "api.example.com", Port: 443}, "/v1/messages?beta=true"},
		"rule":     {"GET", "https", protocol.Authority{Host: "h4000.example.com", Port: 443}, "/v1/x"},
		"refused":  {"GET", "https", protocol.Authority{Host: "a.b.c.d.example.com", Port: 443}, "/v1/x"},
		"encoded":  {"GET", "https", protocol.Authority{Host: "api.example.com", Port: 443}, "/@scope%2fname"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.decide(p)
			}
		})
	}
}

// hostile is a path rule and a path that a backtracking matcher would chew on for years.
func hostile(n int) (rule, path string) {
	return "example.com/" + strings.Repeat("*a", 500) + "*b", "/" + strings.Repeat("a", n)
}

func BenchmarkHostilePath(b *testing.B) {
	for _, n := range []int{1 << 10, 4 << 10, 16<<10 - 1} {
		rule, path := hostile(n)
		p := compile(b, control.Egress{Allow: []string{rule}}, nil)
		a := protocol.Authority{Host: "example.com", Port: 443}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				p.Decide("GET", "https", a, path)
			}
		})
	}
}

// The longest path that is read, in its worst spellings, against a rule of asterisks alone.
func TestHostilePathsAreCheap(t *testing.T) {
	rule, plain := hostile(protocol.MaxPath - 1)
	p := compile(t, control.Egress{Deny: []string{rule}, Default: "allow"}, nil)
	a := protocol.Authority{Host: "example.com", Port: 443}
	for _, path := range []string{
		plain,
		strings.Repeat("/", protocol.MaxPath),
		strings.Repeat("/..", protocol.MaxPath/3),
		"/" + strings.Repeat("%25", protocol.MaxPath/3-1),
		"/%" + strings.Repeat("25", protocol.MaxPath/2-1),
		strings.Repeat("/a;/%2e%2e", protocol.MaxPath/10),
		strings.Repeat("/*", protocol.MaxPath/2),
	} {
		start := time.Now()
		p.Decide("GET", "https", a, path)
		if d := time.Since(start); d > time.Second {
			t.Errorf("%.40q… took %v", path, d)
		}
	}
}
