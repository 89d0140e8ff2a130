// Package policy decides what a session's workload may ask for, by the rules of docs/rules.md: the
// operator's ceiling and the approved agent file, compiled once when the session starts.
package policy

import (
	"errors"
	"fmt"
	"slices"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A Verdict is what is done with a request. The zero value is Deny.
type Verdict uint8

// The verdicts, each at least as permissive as the one before.
const (
	Deny   Verdict = iota
	Ask            // a person decides
	Allow          // forward it, with the credential of its origin if there is one
	Tunnel         // carry bytes both ways without looking into them
)

func (v Verdict) String() string {
	switch v {
	case Deny:
		return "deny"
	case Ask:
		return "ask"
	case Allow:
		return "allow"
	case Tunnel:
		return "tunnel"
	}
	return fmt.Sprintf("verdict(%d)", uint8(v))
}

// The lists that a Decision may name.
const (
	ListDeny     = "deny"
	ListAsk      = "ask"
	ListTunnel   = "tunnel"
	ListAllow    = "allow"
	ListAudience = "audience" // an origin of one of the session's secrets
	ListDefault  = "default"
	ListCeiling  = "ceiling" // the operator's ceiling decided, by rule or by default
)

// A Decision is a verdict and where it comes from. The zero value denies.
type Decision struct {
	Verdict Verdict
	List    string          // one of the lists; empty where the request itself is refused
	Rule    string          // the rule that matched, as written; empty if none did
	Reason  protocol.Reason // why not; ReasonNone with Allow and Tunnel
}

// A Policy is the compiled policy of one session. It is immutable and safe for concurrent use.
type Policy struct {
	file      side
	ceiling   *side // nil: everything
	audiences map[Origin]bool
	also      *Policy // must permit it as well; nil: none
}

// A side is one file's egress. A request must pass both.
type side struct {
	deny, ask, tunnel, allow *list
	open                     bool // default = "allow"
	presets                  presets
}

// Compile checks and compiles the approved agent file under the operator's ceiling; ceiling, or its
// Egress, may be nil for no bound. audiences are the origins of all of the session's secrets. The
// error joins everything that is wrong, rules as *RuleError.
func Compile(file control.AgentPolicy, ceiling *control.Ceiling, audiences []Origin) (*Policy, error) {
	p := &Policy{audiences: make(map[Origin]bool, len(audiences))}
	var errs []error
	p.file, errs = compileSide("torno.toml", "egress", file.Egress)
	for _, o := range audiences {
		p.audiences[o] = true
		if o.Scheme != "https" && !o.tunnels() {
			errs = append(errs, fmt.Errorf("audience %s: a secret goes over https alone", o))
		}
	}
	errs = append(errs, tunneledAudiences(p.file.tunnel, audiences)...)
	if ceiling != nil && ceiling.Egress != nil {
		s, more := compileSide("broker.toml", "agents."+file.Name+".egress", *ceiling.Egress)
		p.ceiling, errs = &s, append(errs, more...)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return p, nil
}

func compileSide(file, table string, e control.Egress) (side, []error) {
	var errs []error
	compile := func(name string, texts []string) *list {
		l, more := compileList(file, table+"."+name, texts)
		errs = append(errs, more...)
		return l
	}
	s := side{
		deny:   compile(ListDeny, e.Deny),
		ask:    compile(ListAsk, e.Ask),
		tunnel: compile(ListTunnel, e.Tunnel),
		allow:  compile(ListAllow, e.Allow),
	}
	switch e.Default {
	case "", "deny":
	case "allow":
		s.open = true
	default:
		errs = append(errs, fmt.Errorf(`%s: %s.default is %q, neither "deny" nor "allow"`, file, table, e.Default))
	}
	return s, append(errs, strayInTunnels(file, table, s.tunnel)...)
}

// Tunnels returns the hosts that the agent file's tunnel rules name, as host:port or *.host:port, each once: those that a tunnel may
// be asked for. Whether there is one is decided for each connection. There are at most protocol.MaxTunnels.
func (p *Policy) Tunnels() []string {
	var all []string
	if p.file.tunnel == nil {
		return nil
	}
	for _, r := range p.file.tunnel.rules {
		text := r.authority.String()
		if r.wildcard {
			text = "*." + text
		}
		if !slices.Contains(all, text) && len(all) < protocol.MaxTunnels {
			all = append(all, text)
		}
	}
	return all
}

// strayInTunnels refuses tunnel rules that name what a tunnel does not have.
func strayInTunnels(file, table string, tunnel *list) []error {
	var errs []error
	for i, r := range tunnel.rules {
		if len(r.methods) > 0 || r.scheme == "http" || !r.path.everything() && r.path.text != "" {
			err := hint(errors.New("a tunnel has no method, scheme or path"), "write host:port alone")
			errs = append(errs, &RuleError{file, table + "." + ListTunnel, i, r.text, err})
		}
	}
	return errs
}

// tunneledAudiences refuses tunnels to where a secret goes: no credential is put into a tunnel. One to where an SSH key
// goes is redundant.
func tunneledAudiences(tunnel *list, audiences []Origin) []error {
	var errs []error
	for i := range tunnel.rules {
		r := &tunnel.rules[i]
		at := slices.IndexFunc(audiences, func(o Origin) bool { return o.Scheme != control.SchemeSSH && r.covers(o.Authority) })
		if at >= 0 {
			err := hint(fmt.Errorf("a secret of this session is bound to %s", audiences[at]),
				"a tunnel carries no credential; leave the rule out, or expose the secret")
			errs = append(errs, &RuleError{"torno.toml", "egress." + ListTunnel, i, r.text, err})
		}
	}
	return errs
}

// Decide judges one request. For a tunnel the method is CONNECT and scheme and path are empty; path
// holds the query otherwise, which is never matched. Decide is total and deterministic, and its time
// is linear in the length of path.
func (p *Policy) Decide(method, scheme string, a protocol.Authority, path string) Decision {
	d := p.decide(method, scheme, a, path)
	if p.also == nil || d.Verdict == Deny {
		return d
	}
	if other := p.also.Decide(method, scheme, a, path); other.Verdict < d.Verdict {
		return other
	}
	return d
}

func (p *Policy) decide(method, scheme string, a protocol.Authority, path string) Decision {
	q, reason := newQuery(method, scheme, a)
	if reason != protocol.ReasonNone {
		return Decision{Reason: reason}
	}
	if q.tunnel {
		if path != "" {
			return Decision{Reason: protocol.ReasonBadRequest}
		}
		return p.judge(&q, "")
	}
	if path == "*" && method == "OPTIONS" {
		return p.judge(&q, "*") // the server as a whole: only rules for all of its paths match
	}
	path, reason = cutPath(path)
	if reason != protocol.ReasonNone {
		return Decision{Reason: reason}
	}
	if isClean(path) {
		return p.judge(&q, path)
	}
	return p.judgeReadings(&q, path)
}

// judgeReadings refuses a path that is permitted in one of its readings and not in another.
func (p *Policy) judgeReadings(q *query, path string) Decision {
	all, reason := readings(path)
	if reason != protocol.ReasonNone {
		return Decision{Reason: reason}
	}
	d := p.judge(q, all[0])
	for _, form := range all[1:] {
		if p.judge(q, form).Verdict != d.Verdict {
			return Decision{Reason: protocol.ReasonAmbiguousPath}
		}
	}
	return d
}

// judge combines both files' decisions on one reading of the path.
func (p *Policy) judge(q *query, path string) Decision {
	d := p.file.judge(q, path, p.audiences)
	if p.ceiling == nil {
		return d
	}
	c := p.ceiling.judge(q, path, nil)
	switch {
	case c.Verdict == Deny && d.Verdict == Deny && d.Rule == "" && c.Rule != "":
		// a line in the file would not help; say what the operator says
	case c.Verdict >= d.Verdict:
		return d
	case c.Verdict == Allow: // the file would tunnel; the ceiling wants to look inside
		return Decision{Verdict: Allow, List: ListCeiling, Rule: c.Rule}
	}
	c.List = ListCeiling
	return c
}

// tunnelled returns the decision on what goes through a tunnel by a rule, or because a secret goes there that goes through
// no other thing.
func (s *side) tunnelled(q *query, path string, audiences map[Origin]bool) (Decision, bool) {
	if r := s.tunnel.match(q, path); r != nil {
		return Decision{Tunnel, ListTunnel, r.text, protocol.ReasonNone}, true
	}
	for _, scheme := range []string{control.SchemeSSH, control.SchemePostgres} {
		if q.tunnel && audiences[Origin{scheme, q.authority}] {
			return Decision{Tunnel, ListAudience, "", protocol.ReasonNone}, true
		}
	}
	return Decision{}, false
}

// judge gives this file's decision: the first list with a match, then audiences, then the default.
func (s *side) judge(q *query, path string, audiences map[Origin]bool) Decision {
	if r := s.deny.match(q, path); r != nil {
		return Decision{Deny, ListDeny, r.text, protocol.ReasonDeniedByRule}
	}
	if r := s.presets.deny.match(q, path); r != nil {
		return Decision{Deny, ListPreset, r.text, protocol.ReasonDeniedByRule}
	}
	tunnel, tunnels := s.tunnelled(q, path, audiences)
	if q.tunnel && !tunnels { // also where a person would be asked: what an ask rule names is no tunnel
		return Decision{Deny, ListDefault, "", protocol.ReasonDenied}
	}
	if r := s.ask.match(q, path); r != nil {
		return Decision{Ask, ListAsk, r.text, protocol.ReasonAskDenied}
	}
	if tunnels {
		return tunnel
	}
	if r := s.allow.match(q, path); r != nil {
		return Decision{Allow, ListAllow, r.text, protocol.ReasonNone}
	}
	if audiences[Origin{q.scheme, q.authority}] {
		return Decision{Allow, ListAudience, "", protocol.ReasonNone}
	}
	if r := s.presets.also.match(q, path); r != nil {
		return Decision{Allow, ListPreset, r.text, protocol.ReasonNone}
	}
	if s.open {
		return Decision{Allow, ListDefault, "", protocol.ReasonNone}
	}
	return Decision{Deny, ListDefault, "", protocol.ReasonDenied}
}
