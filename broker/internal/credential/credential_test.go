package credential

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// sent is what goes upstream, for comparison.
func sent(t *testing.T, fields []Field, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, f := range fields {
		_ = f.Value.Use(func(b []byte) error {
			lines = append(lines, f.Name+": "+string(b))
			return nil
		})
	}
	return lines
}

func TestPresets(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range Presets() {
		for _, key := range p.Keys {
			if seen[key] {
				t.Errorf("%s stands in two presets", key)
			}
			seen[key] = true
			if got, ok := Lookup(key); !ok || !cmp.Equal(got, p) {
				t.Errorf("Lookup(%q) = %+v, %v", key, got, ok)
			}
			m := control.Meta{
				Agent: "a", Name: key, Version: 1, Audience: p.Audience, Inject: p.Inject, Expose: p.Expose, Preset: p.Name,
			}
			if err := ValidateMeta(m); err != nil {
				t.Errorf("preset %s: %v", p.Name, err)
			}
			if p.Expose != control.ExposeNone {
				continue
			}
			placeholder, err := PlaceholderFor(key)
			if err != nil {
				t.Fatalf("preset %s: %v", p.Name, err)
			}
			if ValidateValue(m, []byte(placeholder)) == nil {
				t.Errorf("preset %s: a placeholder passes for a value", p.Name)
			}
		}
	}
	if p, ok := Lookup("SOMETHING_ELSE"); ok {
		t.Errorf("Lookup = %+v", p)
	}
}

func TestPresetsAreTheCallers(t *testing.T) {
	Presets()[0].Audience[0] = "https://evil.example"
	if got := Presets()[0].Audience[0]; got != "https://api.anthropic.com" {
		t.Errorf("a caller changed the table: %s", got)
	}
}

// TestPresetCredentials records the shape of what each service wants.
func TestPresetCredentials(t *testing.T) {
	tests := []struct{ key, want string }{
		{"ANTHROPIC_API_KEY", "x-api-key: real"},
		{"OPENAI_API_KEY", "authorization: Bearer real"},
		{"GITHUB_TOKEN", "authorization: Bearer real"},
		{"GH_TOKEN", "authorization: Bearer real"},
	}
	for _, tt := range tests {
		p, _ := Lookup(tt.key)
		in, err := NewInjector(control.Meta{Name: tt.key, Inject: p.Inject})
		if err != nil {
			t.Fatal(err)
		}
		got, err := in.Apply(secret.New([]byte("real")), get("/"))
		if diff := cmp.Diff([]string{tt.want}, sent(t, got, err)); diff != "" {
			t.Errorf("%s: %s", tt.key, diff)
		}
	}
}

func TestHeaderTemplates(t *testing.T) {
	in, err := NewInjector(control.Meta{Name: "KEY", Inject: control.Injector{
		Scheme: control.SchemeHeader,
		Fields: []control.FieldTemplate{{Name: "X-Auth", Value: "v1 {KEY};x"}, {Name: "x-other", Value: "{KEY}"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	value := secret.New([]byte("real"))
	fields, err := in.Apply(value, get("/"))
	if diff := cmp.Diff([]string{"x-auth: v1 real;x", "x-other: real"}, sent(t, fields, err)); diff != "" {
		t.Error(diff)
	}
	for _, f := range fields {
		f.Value.Wipe()
	}
	if value.Len() != len("real") {
		t.Error("wiping a field wiped the secret")
	}
	for _, scheme := range []string{"", "digest"} {
		if _, err := NewInjector(control.Meta{Inject: control.Injector{Scheme: scheme}}); err == nil {
			t.Errorf("scheme %q has an injector", scheme)
		}
	}
}

func TestAttack17OwnCredentialFields(t *testing.T) {
	custom := header{fields: []templated{{name: "x-custom-auth"}}}
	tests := []struct {
		in   Injector
		want protocol.Fields // kept
	}{
		{bearer{}, protocol.Fields{{Name: "accept", Value: "1"}, {Name: "X-Custom-Auth", Value: "2"}, {Name: "x-custom-auth", Value: "3"}, {Name: "authorization-x", Value: "4"}}},
		{&custom, protocol.Fields{{Name: "accept", Value: "1"}, {Name: "authorization-x", Value: "4"}}},
	}
	for _, tt := range tests {
		use := Use{Injector: tt.in}
		var sent protocol.Fields
		for _, name := range []string{"authorization", "proxy-authorization", "x-api-key"} {
			for _, spelt := range []string{name, strings.ToUpper(name), strings.ToUpper(name[:1]) + name[1:], name, strings.ReplaceAll(name, "-", "_")} {
				sent = append(sent, protocol.Field{Name: spelt, Value: "mine"})
			}
		}
		sent = append(sent, protocol.Fields{
			{Name: "accept", Value: "1"}, {Name: "X-Custom-Auth", Value: "2"}, {Name: "x-custom-auth", Value: "3"}, {Name: "authorization-x", Value: "4"},
		}...)
		if diff := cmp.Diff(tt.want, use.StripFields(sent)); diff != "" {
			t.Errorf("%T: %s", tt.in, diff)
		}
		if got := use.StripFields(nil); len(got) != 0 { // a trailer section, empty
			t.Errorf("%T: %v", tt.in, got)
		}
	}
}

// TestAttack20SentAgain holds the second of the two checks: the first was passed by a value that has
// become another since.
func TestAttack20SentAgain(t *testing.T) {
	for _, value := range []string{"", "a\r\nhost: evil.example", "a\x00", " a"} {
		set, err := NewSet([]Secret{{Meta: meta("KEY", "https://api.example.org"), Value: secret.New([]byte(value))}})
		if err != nil {
			t.Fatal(err)
		}
		use, err := pick(set, authority(t, "api.example.org"), "https", nil, "")
		if err != nil || use == nil {
			t.Fatalf("Select = %v, %v", use, err)
		}
		if fields, err := use.Fields(get("/")); err == nil || fields != nil {
			t.Errorf("%q: Fields = %v, %v; want an error", value, fields, err)
		} else if len(value) > 2 && strings.Contains(err.Error(), value) {
			t.Errorf("%q: the error quotes the value", value)
		}
	}
}

func TestNewPlaceholder(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		p, err := NewPlaceholder("sk-ant-api03-*80")
		if err != nil {
			t.Fatal(err)
		}
		rest, ok := strings.CutPrefix(p, "sk-ant-api03-"+control.PlaceholderMark)
		if !ok || len(p) != len("sk-ant-api03-")+80 || strings.Trim(rest, base62) != "" || seen[p] {
			t.Fatalf("placeholder %q", p)
		}
		seen[p] = true
	}
	for _, shape := range []string{"", "sk-", "*", "sk-*x", "*31", "*257", "*-40", "*40*40", "40"} {
		if p, err := NewPlaceholder(shape); err == nil || p != "" {
			t.Errorf("NewPlaceholder(%q) = %q, %v; want an error", shape, p, err)
		}
	}
	if p, err := PlaceholderFor("SOMETHING_ELSE"); err != nil || len(p) != 40 {
		t.Errorf("PlaceholderFor = %q, %v", p, err)
	}
}

func TestRandomIsFair(t *testing.T) {
	count := map[rune]int{}
	const n = 62 * 2000
	for _, c := range random62(n) {
		count[c]++
	}
	for _, c := range base62 { // six standard deviations are 270
		if d := count[c] - 2000; d < -270 || d > 270 {
			t.Errorf("%q stands %d times among %d", c, count[c], n)
		}
	}
}
