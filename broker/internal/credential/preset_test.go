package credential

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"torno.internal/broker/internal/policy"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// metaOf is what a secret called key is set with by its preset.
func metaOf(p control.Preset, key string) control.Meta {
	return control.Meta{
		Agent: "a", Name: key, Version: 1, Audience: p.Audience, Inject: p.Inject, Expose: p.Expose, Preset: p.Name,
	}
}

// policyOf is the policy of a session whose only secret was set by p.
func policyOf(t *testing.T, p control.Preset) *policy.Policy {
	t.Helper()
	var origins []policy.Origin
	for _, s := range p.Audience {
		o, err := policy.ParseOrigin(s)
		if err != nil {
			t.Fatal(err)
		}
		origins = append(origins, o)
	}
	compiled, err := policy.Compile(control.AgentPolicy{Name: "a"}, nil, origins)
	if err != nil {
		t.Fatal(err)
	}
	if compiled, err = compiled.WithPresets(p.Deny, p.Also); err != nil {
		t.Fatal(err)
	}
	return compiled
}

// A request is one line of a table: METHOD https://host/path.
type request struct {
	method    string
	authority protocol.Authority
	path      string
}

func parseRequest(t *testing.T, s string) request {
	t.Helper()
	method, target, ok := strings.Cut(s, " ")
	rest, https := strings.CutPrefix(target, "https://")
	host, path, slash := strings.Cut(rest, "/")
	if !ok || !https || !slash {
		t.Fatalf("%q is not METHOD https://host/path", s)
	}
	a, err := protocol.ParseAuthority(host, 443)
	if err != nil {
		t.Fatal(err)
	}
	return request{method, a, "/" + path}
}

func decide(t *testing.T, p *policy.Policy, s string) policy.Decision {
	t.Helper()
	r := parseRequest(t, s)
	return p.Decide(r.method, "https", r.authority, r.path)
}

func TestPresetsAreSound(t *testing.T) {
	names := map[string]bool{}
	for _, p := range Presets() {
		if names[p.Name] || !protocol.IsToken(p.Name) || p.Name != strings.ToLower(p.Name) {
			t.Errorf("preset %q stands twice, or is no name", p.Name)
		}
		names[p.Name] = true
		if len(p.Keys) == 0 || p.Service == "" || strings.Contains(p.Service, "|") {
			t.Errorf("preset %s: %d keys, service %q", p.Name, len(p.Keys), p.Service)
		}
		if p.Expose != control.ExposeNone {
			continue
		}
		if u, err := url.Parse(p.Docs); err != nil || u.Scheme != "https" || u.Host == "" {
			t.Errorf("preset %s: docs %q", p.Name, p.Docs)
		}
		for _, f := range p.Inject.Fields {
			if f.Name != strings.ToLower(f.Name) || strings.Contains(f.Value, hole) {
				t.Errorf("preset %s: field %q: %q", p.Name, f.Name, f.Value)
			}
		}
		policyOf(t, p)
		if _, err := policy.ParsePaths(p.Paths); err != nil {
			t.Errorf("preset %s: %v", p.Name, err)
		}
	}
	if len(names) < 45 {
		t.Errorf("%d presets", len(names))
	}
}

func TestPresetsHaveAsManyNamesAsKeys(t *testing.T) {
	for _, p := range Presets() {
		for _, f := range p.Inject.Fields {
			if len(p.Keys) != 1 || !strings.Contains(f.Value, "{"+p.Keys[0]+"}") {
				t.Errorf("preset %s: the template %q is for one of the keys %q", p.Name, f.Value, p.Keys)
			}
		}
	}
}

// TestPresetPlaceholders holds that a placeholder looks like a real value to whoever checks how it begins,
// and like itself to torno wherever it stands.
func TestPresetPlaceholders(t *testing.T) {
	for _, p := range Presets() {
		if p.Expose != control.ExposeNone {
			continue
		}
		literal, _, _ := strings.Cut(p.Placeholder, "*")
		switch {
		case literal == "" && len(p.Prefix) > 0 && !strings.HasPrefix(p.Name, "pagerduty"): // only some values do
			t.Errorf("preset %s: values begin with %q and the placeholder doesn't", p.Name, p.Prefix)
		case literal != "" && !slices.ContainsFunc(p.Prefix, func(s string) bool { return strings.HasPrefix(literal, s) }):
			t.Errorf("preset %s: the placeholder begins with %q, values with %q", p.Name, literal, p.Prefix)
		}
		for range 200 {
			placeholder, err := NewPlaceholder(p.Placeholder)
			if err != nil {
				t.Fatalf("preset %s: %v", p.Name, err)
			}
			if n := len(placeholder); n < 32 || n > 256 {
				t.Fatalf("preset %s: %d characters", p.Name, n)
			}
			found := false
			marks("Bearer "+placeholder, func(before, from string) bool {
				found = before == "Bearer "+literal && literal+from == placeholder
				return !found
			})
			if !found {
				t.Fatalf("preset %s: %q is not recognised", p.Name, placeholder)
			}
		}
	}
}

// TestPresetPrefixesAreNoSecrets holds that what is taken for public is what everybody's values begin with.
func TestPresetPrefixesAreNoSecrets(t *testing.T) {
	for _, p := range Presets() {
		for _, s := range p.Prefix {
			if len(s) > 16 || !regexp.MustCompile(`^[A-Za-z0-9._+-]+$`).MatchString(s) {
				t.Errorf("preset %s: prefix %q", p.Name, s)
			}
		}
	}
}

// TestPresetRulesStayAtHome holds that a preset refuses nothing but what it makes reachable.
func TestPresetRulesStayAtHome(t *testing.T) {
	for _, p := range Presets() {
		for _, rule := range p.Deny {
			if !slices.Contains(p.Audience, "https://"+hostOf(rule)) && !slices.ContainsFunc(p.Also, func(also string) bool {
				return hostOf(also) == hostOf(rule)
			}) {
				t.Errorf("preset %s refuses %q, which is not its own", p.Name, rule)
			}
			if path := rule[strings.IndexByte(rule, '/'):]; path == "/**" {
				t.Errorf("preset %s refuses all of %q", p.Name, rule)
			}
		}
		for _, rule := range p.Also {
			if slices.Contains(p.Audience, "https://"+hostOf(rule)) {
				t.Errorf("preset %s allows %q, where its secret goes anyway", p.Name, rule)
			}
			if methods, _, ok := strings.Cut(rule, " "); p.Name != "huggingface" && !ok {
				t.Errorf("preset %s allows %q by every method", p.Name, methods)
			}
		}
	}
}

// hostOf returns the host of a rule.
func hostOf(rule string) string {
	if _, after, ok := strings.Cut(rule, " "); ok {
		rule = after
	}
	host, _, _ := strings.Cut(rule, "/")
	return host
}

// TestPresetsNameNoRegistry holds that packages come from where the user says, without torno's doing.
func TestPresetsNameNoRegistry(t *testing.T) {
	registry := regexp.MustCompile(`(^|[.-])(registry|registries|packages?|repo|proxy|index|mirror|gems?|crates?)([.-]|$)`)
	for _, p := range Presets() {
		var hosts []string
		for _, o := range p.Audience {
			hosts = append(hosts, strings.TrimPrefix(o, "https://"))
		}
		for _, rule := range p.Also {
			hosts = append(hosts, hostOf(rule))
		}
		for _, h := range hosts {
			if registry.MatchString(h) {
				t.Errorf("preset %s names %s", p.Name, h)
			}
		}
	}
}
