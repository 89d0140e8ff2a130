package credential

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

// presetsPage is what people read of the presets. What stands after presetsMark is made of the data.
const (
	presetsPage = "../../../docs/presets.md"
	presetsMark = "<!-- What follows is made of the presets: TORNO_UPDATE=1 go test ./broker/internal/credential -->\n"
)

// TestPresetsPage holds docs/presets.md to the data. Run with TORNO_UPDATE=1 to rewrite it.
func TestPresetsPage(t *testing.T) {
	page, err := os.ReadFile(presetsPage)
	if err != nil {
		t.Fatal(err)
	}
	text, got, ok := strings.Cut(string(page), presetsMark)
	if !ok {
		t.Fatalf("%s lacks the line %q", presetsPage, presetsMark)
	}
	want := presetTables()
	if os.Getenv("TORNO_UPDATE") != "" {
		if err := os.WriteFile(presetsPage, []byte(text+presetsMark+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the presets changed (TORNO_UPDATE=1 go test ./broker/internal/credential rewrites the page):\n%s", diff)
	}
}

// presetTables returns the generated part of the page: a table of all, then what each allows and refuses.
func presetTables() string {
	var b, more strings.Builder
	b.WriteString("\n## Services\n\n| service | secret | sent to | as |\n|---|---|---|---|\n")
	for _, group := range presetGroups() {
		p := group[0]
		var keys, hosts []string
		for _, q := range group {
			keys = append(keys, q.Keys...)
		}
		for _, o := range p.Audience {
			hosts = append(hosts, strings.TrimPrefix(o, "https://"))
		}
		service := p.Service
		if p.Docs != "" {
			service = fmt.Sprintf("[%s](%s)", p.Service, p.Docs)
		}
		to, as := codes(hosts), codes([]string{credentialOf(p)})
		if p.Expose == control.ExposeEnv {
			to, as = "nowhere", "variable in the VM"
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", service, codes(keys), to, as)
		writeRules(&more, p)
	}
	return b.String() + "\n## Rules\n" + more.String()
}

// presetGroups returns the presets that differ in the name of the secret alone together.
func presetGroups() [][]control.Preset {
	var groups [][]control.Preset
	for _, p := range Presets() {
		i := slices.IndexFunc(groups, func(g []control.Preset) bool { return g[0].Service == p.Service })
		if i < 0 {
			groups = append(groups, []control.Preset{p})
		} else {
			groups[i] = append(groups[i], p)
		}
	}
	return groups
}

// credentialOf shows the field that p makes, with an ellipsis for the secret.
func credentialOf(p control.Preset) string {
	switch p.Inject.Scheme {
	case control.SchemeBearer:
		return "authorization: Bearer …"
	case control.SchemeHeader:
		f := p.Inject.Fields[0]
		return f.Name + ": " + strings.Replace(f.Value, "{"+p.Keys[0]+"}", "…", 1)
	case control.SchemeGit:
		return "authorization: Bearer … or, to git, Basic …"
	}
	return ""
}

func codes(all []string) string {
	var shown []string
	for _, s := range all {
		shown = append(shown, "`"+s+"`")
	}
	return strings.Join(shown, ", ")
}

// writeRules adds a section for p if it brings along more than a place for its secret.
func writeRules(b *strings.Builder, p control.Preset) {
	if len(p.Paths)+len(p.Also)+len(p.Deny) == 0 && !p.Ranges {
		return
	}
	fmt.Fprintf(b, "\n### %s\n", p.Service)
	if len(p.Paths) > 0 {
		fmt.Fprintf(b, "\nThe secret goes with %s alone; other requests go without.\n", codes(p.Paths))
	}
	if p.Ranges {
		b.WriteString("\n`Range` passes: clients resume large files.\n")
	}
	writeBlock(b, "Allowed, without the secret:", p.Also)
	var deny []string
	for _, rule := range p.Deny { // a slash at the end goes without saying
		if !strings.HasSuffix(rule, "/") {
			deny = append(deny, rule)
		}
	}
	writeBlock(b, "Refused:", deny)
}

func writeBlock(b *strings.Builder, title string, rules []string) {
	if len(rules) > 0 {
		fmt.Fprintf(b, "\n%s\n\n```\n%s\n```\n", title, strings.Join(rules, "\n"))
	}
}

// TestPresetGroupsAreAlike holds that the page may show the first of a group for all.
func TestPresetGroupsAreAlike(t *testing.T) {
	for _, group := range presetGroups() {
		first := group[0]
		for _, p := range group[1:] {
			if credentialOf(p) != credentialOf(first) {
				t.Errorf("%s and %s: %q and %q", first.Name, p.Name, credentialOf(first), credentialOf(p))
			}
			p.Name, p.Keys, p.Inject = first.Name, first.Keys, first.Inject
			if diff := cmp.Diff(first, p); diff != "" {
				t.Errorf("%s and %s share a service: %s", first.Name, p.Name, diff)
			}
		}
	}
}
