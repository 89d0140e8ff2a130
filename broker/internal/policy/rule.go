package policy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/net/publicsuffix"

	"torno.internal/protocol"
)

// Limits on what a file may hold.
const (
	MaxRules = 4096 // in one list
	MaxRule  = 2048 // bytes in one rule
)

// A Rule is one line of a list (docs/rules.md):
//
//	[methods SP] [("https" / "http") "://"] host [":" port] [path]
//
// The zero value matches nothing.
type Rule struct {
	text      string
	methods   []string // sorted; none: any
	scheme    string   // "https" or "http"
	authority protocol.Authority
	wildcard  bool // "*." stands before authority
	path      glob
}

// ParseRule reads one rule.
func ParseRule(s string) (Rule, error) {
	if len(s) > MaxRule {
		return Rule{}, fmt.Errorf("rule of %d bytes, at most %d fit", len(s), MaxRule)
	}
	r := Rule{text: s, scheme: "https"}
	rest := s
	if methods, after, ok := strings.Cut(s, " "); ok {
		var err error
		if r.methods, err = parseMethods(methods); err != nil {
			return Rule{}, err
		}
		rest = after
	}
	if scheme, after, ok := strings.Cut(rest, "://"); ok {
		if scheme != "https" && scheme != "http" {
			return Rule{}, hint(fmt.Errorf("scheme %q is neither https nor http", scheme),
				"WebSockets go by https and http rules; other protocols by host:port in the tunnel list")
		}
		r.scheme, rest = scheme, after
	}
	host, path := rest, anyPath
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if err := r.parseHost(host); err != nil {
		return Rule{}, err
	}
	var err error
	if r.path, err = parseGlob(path); err != nil {
		return Rule{}, err
	}
	return r, nil
}

func parseMethods(s string) ([]string, error) {
	if s == "" {
		return nil, errors.New("rule begins with a space")
	}
	methods := strings.Split(s, ",")
	for _, m := range methods {
		switch {
		case strings.ContainsAny(m, "./:") || !protocol.IsToken(m) || len(m) > protocol.MaxMethod:
			return nil, hint(fmt.Errorf("%q is not a list of methods", s), "write as in GET,HEAD example.com/path, with one space")
		case m == "CONNECT":
			return nil, hint(errors.New("CONNECT is not a method of an http request"), "put host:port into the tunnel list")
		case m != strings.ToUpper(m):
			return nil, hint(fmt.Errorf("method %q", m), "methods are case-sensitive; write "+strings.ToUpper(m))
		}
	}
	slices.Sort(methods)
	return slices.Compact(methods), nil
}

func (r *Rule) parseHost(s string) error {
	if s == "*" {
		return hint(errors.New("host * would match every host"), `write default = "allow" to allow every public host`)
	}
	host, wildcard := strings.CutPrefix(s, "*.")
	if strings.Contains(host, "*") {
		return hint(fmt.Errorf("host %q has an asterisk inside", s), `only "*." at the beginning is a wildcard`)
	}
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort(r.scheme))
	if err != nil {
		return err
	}
	if _, isIP := a.IP(); wildcard && isIP {
		return fmt.Errorf("wildcard before an address in %q", s)
	}
	if suffix, _ := publicsuffix.PublicSuffix(a.Host); wildcard && suffix == a.Host {
		return hint(fmt.Errorf("%q would match hosts of everybody under the public suffix %q", s, suffix),
			"name the domain, as in *.example."+suffix)
	}
	r.authority, r.wildcard = a, wildcard
	return nil
}

// String returns the rule in canonical form: equal rules print equally, and what it prints parses to
// the same rule.
func (r Rule) String() string {
	var b strings.Builder
	if len(r.methods) > 0 {
		b.WriteString(strings.Join(r.methods, ",") + " ")
	}
	if r.scheme != "https" {
		b.WriteString(r.scheme + "://")
	}
	if r.wildcard {
		b.WriteString("*.")
	}
	host := r.authority.String()
	if r.authority.Port == protocol.DefaultPort(r.scheme) {
		host = host[:strings.LastIndexByte(host, ':')]
	}
	b.WriteString(host)
	if !r.path.everything() {
		b.WriteString(r.path.text)
	}
	return b.String()
}

// covers reports whether the rule's host and port match a.
func (r *Rule) covers(a protocol.Authority) bool {
	if a.Port != r.authority.Port {
		return false
	}
	if !r.wildcard {
		return a.Host == r.authority.Host
	}
	labels, ok := strings.CutSuffix(a.Host, r.authority.Host)
	return ok && len(labels) > 1 && labels[len(labels)-1] == '.'
}

// admits reports whether the rule matches q on path, its host aside.
func (r *Rule) admits(q *query, path string) bool {
	if q.authority.Port != r.authority.Port {
		return false
	}
	if q.tunnel {
		return true // what a tunnel carries is unseen, so a rule for any part of the host is a rule for it
	}
	return q.scheme == r.scheme &&
		(len(r.methods) == 0 || slices.Contains(r.methods, q.method)) &&
		(r.path.everything() || r.path.match(path))
}
