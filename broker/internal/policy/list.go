package policy

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
)

// A list is one of a file's lists of rules, indexed by host. It is immutable once compiled.
type list struct {
	rules  []Rule           // as many as the file has; zero where it does not parse
	byHost map[string][]int // ascending indices into rules; the key of a wildcard is ".example.com"
}

// compileList parses every rule and returns all that are wrong.
func compileList(file, name string, texts []string) (*list, []error) {
	if len(texts) > MaxRules {
		return &list{}, []error{fmt.Errorf("%s: %s has %d rules, at most %d fit", file, name, len(texts), MaxRules)}
	}
	l := &list{rules: make([]Rule, len(texts)), byHost: make(map[string][]int, len(texts))}
	var errs []error
	for i, text := range texts {
		r, err := ParseRule(text)
		if err != nil {
			errs = append(errs, &RuleError{file, name, i, text, err})
			continue
		}
		key := r.authority.Host
		if r.wildcard {
			key = "." + key
		}
		l.byHost[key] = append(l.byHost[key], i)
		l.rules[i] = r
	}
	return l, errs
}

// match returns the first rule, in the file's order, that matches q on path, or nil. A nil list has none.
func (l *list) match(q *query, path string) *Rule {
	if l == nil || len(l.rules) == 0 {
		return nil
	}
	host := q.authority.Host
	best := l.first(len(l.rules), host, q, path)
	for i := range len(host) {
		if host[i] == '.' && i > 0 {
			best = l.first(best, host[i:], q, path)
		}
	}
	if best == len(l.rules) {
		return nil
	}
	return &l.rules[best]
}

// first returns the first rule before limit that is filed under key and matches, or limit.
func (l *list) first(limit int, key string, q *query, path string) int {
	for _, i := range l.byHost[key] {
		if i >= limit {
			break
		}
		if l.rules[i].admits(q, path) {
			return i
		}
	}
	return limit
}

// A query is the part of a request that is the same in every reading of its path.
type query struct {
	method    string
	scheme    string
	authority protocol.Authority
	tunnel    bool // plain CONNECT: bytes that nobody looks into
}

func newQuery(method, scheme string, a protocol.Authority) (query, protocol.Reason) {
	q := query{method: method, scheme: scheme, authority: a}
	switch {
	case !protocol.IsToken(method) || len(method) > protocol.MaxMethod:
		return q, protocol.ReasonBadRequest
	case a.Host == "" || a.Port == 0 || strings.HasPrefix(a.Host, "."):
		return q, protocol.ReasonBadAuthority
	case method == "CONNECT" && scheme == "":
		q.tunnel = true
	case scheme != "https" && scheme != "http":
		return q, protocol.ReasonUnsupported
	case method == "CONNECT":
		q.method = "GET" // extended CONNECT (RFC 8441) is the GET of a WebSocket handshake
	}
	return q, protocol.ReasonNone
}
