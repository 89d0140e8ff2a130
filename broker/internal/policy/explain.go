package policy

import "torno.internal/protocol"

// A Step is one list of one file, asked about a request.
type Step struct {
	File    string // "torno.toml" or "broker.toml"
	List    string
	Rules   int    // in it
	Rule    string // the first that matches, or what the list says without rules; empty: none matches
	Decides bool   // it is the first of its file with a match; both files' decisions together are the policy's
}

// Explain returns every list in the order in which they are asked, for one request and the first reading of its path, and how
// many readings the path has; none: the request itself is refused.
func (p *Policy) Explain(method, scheme string, a protocol.Authority, path string) (steps []Step, readings int) {
	q, reason := newQuery(method, scheme, a)
	if reason != protocol.ReasonNone {
		return nil, 0
	}
	all, ok := formsOf(&q, path)
	if !ok {
		return nil, 0
	}
	steps = p.file.explain("torno.toml", &q, all[0], p.audiences)
	if p.ceiling != nil {
		steps = append(steps, p.ceiling.explain("broker.toml", &q, all[0], nil)...)
	}
	return steps, len(all)
}

func (s *side) explain(file string, q *query, path string, audiences map[Origin]bool) []Step {
	var steps []Step
	step := func(list string, l *list) {
		st := Step{File: file, List: list}
		if l != nil {
			st.Rules = len(l.rules)
		}
		if r := l.match(q, path); r != nil {
			st.Rule = r.text
		}
		steps = append(steps, st)
	}
	step(ListDeny, s.deny)
	step(ListPreset+" deny", s.presets.deny)
	step(ListAsk, s.ask)
	step(ListTunnel, s.tunnel)
	step(ListAllow, s.allow)
	audience := Step{File: file, List: ListAudience, Rules: len(audiences)}
	if o := (Origin{q.scheme, q.authority}); audiences[o] {
		audience.Rule = o.String()
	}
	steps = append(steps, audience)
	step(ListPreset+" also", s.presets.also)
	def := Step{File: file, List: ListDefault, Rule: "deny"}
	if s.open && !q.tunnel {
		def.Rule = "allow"
	}
	steps = append(steps, def)
	return mark(steps, q.tunnel)
}

// mark marks the step that decides. Of a tunnel the lists behind tunnel are not asked, nor is ask where none allows it.
func mark(steps []Step, tunnel bool) []Step {
	allowed := false
	for _, s := range steps {
		allowed = allowed || s.List == ListTunnel && s.Rule != ""
	}
	for i := range steps {
		s := &steps[i]
		switch s.List {
		case ListAsk:
			s.Decides = s.Rule != "" && (!tunnel || allowed)
		case ListAllow, ListAudience, ListPreset + " also":
			s.Decides = s.Rule != "" && !tunnel
		default:
			s.Decides = s.Rule != ""
		}
		if s.Decides {
			break
		}
	}
	return steps
}
