package broker

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/metadata"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A plan is what a session of an agent would be: which secrets, in which versions, under which policy.
// Making one opens no secret.
type plan struct {
	agent    string
	file     control.AgentPolicy
	metas    []control.Meta // the secrets in use, by name
	unused   []string       // for people: secrets that are not, and why
	policy   *policy.Policy
	paths    map[string]policy.Paths // by secret: which requests to its audience get it
	operator *control.Config         // the operator's file that it was made under
	ceiling  *control.Ceiling        // the operator's; nil: none
	bounds   []bound
	idle     int // seconds; 0: unbounded
	total    int // as well
}

// plan returns the plan for agent under file. Without a file all of the agent's secrets are in use and
// everything but their audiences is denied.
func (b *Broker) plan(agent string, file *control.AgentPolicy) (*plan, error) {
	if !control.ValidAgent(agent) {
		return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("%q is not an agent's name", agent),
			Hint: "lower-case letters, digits and hyphens, at most 63, not beginning with a hyphen"}
	}
	p := &plan{agent: agent}
	latest, broken, err := b.store.Secrets(agent)
	if err != nil {
		return nil, err
	}
	if err := refuseBroken(broken, file); err != nil {
		return nil, err
	}
	if file == nil {
		p.file = control.AgentPolicy{Name: agent}
		p.useAll(latest)
	} else {
		p.file = *file
		if p.metas, err = declared(agent, file.Secrets, latest); err != nil {
			return nil, err
		}
	}
	if p.file.Name != agent {
		return nil, &control.Error{Code: control.CodeInvalid, Message: fmt.Sprintf("the agent file is of agent %q, not %q", p.file.Name, agent),
			Hint: "name in torno.toml must equal --agent"}
	}
	if err := policy.CheckAssertions(p.file, p.metas); err != nil {
		return nil, &control.Error{Code: control.CodeInvalid, Message: err.Error(), Hint: "the agent file may only narrow what was set with the secret"}
	}
	for i, m := range p.metas {
		if a, ok := p.file.Secret[m.Name]; ok {
			p.metas[i] = policy.Narrow(a, m)
		}
	}
	return p, b.compile(p)
}

// useAll takes every secret that can be used.
func (p *plan) useAll(latest []store.Version) {
	for i := range latest {
		if why := unusable(&latest[i], time.Now()); why != "" {
			p.unused = append(p.unused, fmt.Sprintf("%s: not in use: %s", latest[i].Name, why))
			continue
		}
		p.metas = append(p.metas, latest[i].Meta)
	}
}

// refuseBroken refuses a plan that needs what was changed outside of torno: a secret that the file
// declares, or any where there is no file.
func refuseBroken(broken []*store.TamperedError, file *control.AgentPolicy) error {
	for _, t := range broken {
		if t.Name == "" || file == nil || slices.Contains(file.Secrets, t.Name) {
			return tampered(t)
		}
	}
	return nil
}

// compile compiles the plan's rules under the operator's ceiling.
func (b *Broker) compile(p *plan) error {
	origins, err := audiences(p.metas)
	if err != nil {
		return err
	}
	var ceiling *control.Ceiling
	p.operator = b.operator.Load()
	if c, ok := p.operator.Agents[p.agent]; ok {
		ceiling = &c
	}
	p.ceiling = ceiling
	if p.policy, err = policy.Compile(p.file, ceiling, origins); err != nil {
		return &control.Error{Code: control.CodeInvalid, Message: err.Error(), Hint: "docs/rules.md has the grammar of rules"}
	}
	if err := p.compileLimits(ceiling); err != nil {
		return err
	}
	return p.compilePresets(ceiling)
}

// compilePresets adds what the presets of the plan's secrets know of their services.
func (p *plan) compilePresets(ceiling *control.Ceiling) error {
	var deny, also []string
	p.paths = map[string]policy.Paths{}
	for _, m := range p.metas {
		preset := credential.Secret{Meta: m}.Preset()
		deny, also = append(deny, preset.Deny...), append(also, preset.Also...)
		paths, err := policy.ParsePaths(preset.Paths)
		if err != nil {
			return fmt.Errorf("preset %s: %w", preset.Name, err)
		}
		p.paths[m.Name] = paths
	}
	for _, c := range p.clouds() {
		also = append(also, metadata.Rules(c)...)
	}
	if ceiling != nil && ceiling.Minting == control.MintingPass {
		deny = nil
	}
	var err error
	p.policy, err = p.policy.WithPresets(deny, also)
	return err
}

// declared returns the metas of the names that an agent file declares; one that is missing, or can't be used,
// is an error that says how to set it.
func declared(agent string, names []string, latest []store.Version) ([]control.Meta, error) {
	byName := make(map[string]*store.Version, len(latest))
	for i := range latest {
		byName[latest[i].Name] = &latest[i]
	}
	var used []control.Meta
	var missing, reasons []string
	for _, n := range names {
		ver, ok := byName[n]
		if !ok {
			missing = append(missing, n)
			continue
		}
		if why := unusable(ver, time.Now()); why != "" {
			missing, reasons = append(missing, n), append(reasons, n+" "+why)
			continue
		}
		used = append(used, ver.Meta)
	}
	if len(missing) == 0 {
		return used, nil
	}
	message := fmt.Sprintf("agent %q declares secrets that are not set: %s", agent, strings.Join(missing, ", "))
	if len(reasons) > 0 {
		message += " (" + strings.Join(reasons, "; ") + ")"
	}
	return nil, &control.Error{Code: control.CodeMissingSecret, Message: message, Hint: fmt.Sprintf("torno secrets set %s %s", agent, strings.Join(missing, " "))}
}

func audiences(metas []control.Meta) ([]policy.Origin, error) {
	var origins []policy.Origin
	for _, m := range metas {
		for _, a := range m.Audience {
			o, err := policy.ParseOrigin(a)
			if err != nil {
				return nil, fmt.Errorf("audience of %s: %w", m.Name, err)
			}
			origins = append(origins, o)
		}
	}
	return origins, nil
}

// check explains the decision on one request.
func (p *plan) check(req control.PolicyCheck) (control.PolicyVerdict, error) {
	method, scheme, a, path, err := readCheck(req)
	if err != nil {
		return control.PolicyVerdict{}, &control.Error{Code: control.CodeInvalid, Message: err.Error(),
			Hint: "torno policy check AGENT GET https://example.org/path, or CONNECT ssh://example.org"}
	}
	d := p.policy.Decide(method, scheme, a, path)
	v := control.PolicyVerdict{Verdict: d.Verdict.String(), List: d.List, Rule: d.Rule, Authority: a.String(), Path: path}
	if d.Reason != protocol.ReasonNone {
		v.Reason = d.Reason.String()
	}
	p.explain(&v, reading{method, path}, scheme, a)
	if d.Verdict == policy.Deny {
		return v, nil
	}
	set, err := p.set(nil)
	if err != nil {
		return v, err
	}
	if scheme == "" {
		return v, explainTunnel(&v, set, a)
	}
	bound := set.Bound(a)
	v.Guarded = scheme == "https" && len(bound) > 0
	use, _, err := set.Select(a, scheme, nil, "")
	if err != nil {
		v.Verdict, v.Reason = policy.Deny.String(), reasonOf(err).String()
	} else if use != nil && p.paths[use.Name].Cover(method, path) && use.Covers(a, path) {
		v.Secret, v.Version = use.Name, use.Version
	}
	if v.Guarded {
		p.answers(&v, bound)
	}
	return v, nil
}

// readCheck returns what a check asks about, as Decide takes it.
func readCheck(req control.PolicyCheck) (method, scheme string, a protocol.Authority, path string, err error) {
	u, err := url.Parse(req.URL)
	if err != nil || u.Host == "" {
		return "", "", a, "", fmt.Errorf("%q is not an absolute URL", req.URL)
	}
	method, scheme = strings.ToUpper(req.Method), u.Scheme
	switch scheme {
	case control.SchemeSSH, control.SchemePostgres:
		if method != "CONNECT" {
			return "", "", a, "", fmt.Errorf("%s on %q: what is not HTTP knows CONNECT alone", method, req.URL)
		}
		_, a, err = control.ParseAudience(scheme + "://" + u.Host)
		return method, "", a, "", err
	case "https", "http":
	default:
		return "", "", a, "", fmt.Errorf("%q has none of the schemes https, http, ssh and postgres", req.URL)
	}
	a, err = protocol.ParseAuthority(u.Host, protocol.DefaultPort(scheme))
	if method == "CONNECT" {
		return method, "", a, "", err
	}
	return method, scheme, a, rawPath(req.URL), err
}

// explainTunnel says what goes through a tunnel to a, where a secret is for that.
func explainTunnel(v *control.PolicyVerdict, set *credential.Set, a protocol.Authority) error {
	for _, scheme := range []string{control.SchemeSSH, control.SchemePostgres} {
		for _, sec := range set.Apart(scheme) {
			all, err := sec.Meta.Authorities()
			if err != nil {
				return err
			}
			if slices.Contains(all, a) {
				v.Carries, v.Secret, v.Version = scheme, sec.Meta.Name, sec.Meta.Version
				return nil
			}
		}
	}
	return nil
}

// rawPath returns the path of an absolute URL as written: what would be sent, not what a parser makes
// of it.
func rawPath(url string) string {
	_, rest, _ := strings.Cut(url, "://")
	i := strings.IndexAny(rest, "/?#")
	if i < 0 || rest[i] != '/' {
		return "/"
	}
	path, _, _ := strings.Cut(rest[i:], "#")
	path, _, _ = strings.Cut(path, "?")
	return path
}

// set returns the credentials of the plan. open returns the value and the placeholder of one secret;
// nil makes a set that can select and not apply.
func (p *plan) set(open func(control.Meta) (credential.Secret, error)) (*credential.Set, error) {
	secrets := make([]credential.Secret, 0, len(p.metas))
	for _, m := range p.metas {
		s := credential.Secret{Meta: m}
		if open != nil {
			var err error
			if s, err = open(m); err != nil {
				return nil, err
			}
		}
		secrets = append(secrets, s)
	}
	return credential.NewSet(secrets)
}

// open opens one version of a secret. m is as the plan narrowed it; the value is bound to it as sealed.
func (b *Broker) open(m control.Meta) (credential.Secret, error) {
	if m.Source != "" {
		return b.openSourced(m), nil
	}
	value, err := b.store.Unseal(m.Agent, m.Name, m.Version)
	if err != nil {
		return credential.Secret{}, fmt.Errorf("opening %s of agent %s, version %d: %w", m.Name, m.Agent, m.Version, err)
	}
	return credential.Secret{Meta: m, Value: value, Used: b.store.Counter(m.Agent, m.Name, m.Version).Used}, nil
}
