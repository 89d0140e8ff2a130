package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

const goodKey = "sk-ant-0123456789abcdefghijkl"

func TestSetSeveral(t *testing.T) {
	b := newBroker(t)
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("from-a-file-0123456789\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := torno(t, "", "secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+goodKey, "DATABASE_URL=postgresql://app@db/app")
	if r.code != 0 {
		t.Fatalf("%+v", r)
	}
	if want := "ANTHROPIC_API_KEY: set, version 1, goes to api.anthropic.com as x-api-key\n" +
		"DATABASE_URL: visible inside the VM (preset; --host makes it a proxied secret)\n"; r.out != want {
		t.Errorf("stdout (-want +got):\n%s", cmp.Diff(want, r.out))
	}
	if strings.Count(r.errOut, "ps") != 1 || strings.Contains(r.out+r.errOut, goodKey) {
		t.Errorf("stderr %q: want one line about ps, and no value", r.errOut)
	}
	for _, c := range []struct{ stdin, arg string }{{"from-standard-input-0123456789\n", "ACME_TOKEN=-"}, {"", "ACME_TOKEN=@" + file}} {
		if r := torno(t, c.stdin, "secrets", "set", "my-agent", c.arg, "--host", "api.acme.example"); r.code != 0 || strings.Contains(r.errOut, "ps") {
			t.Errorf("%s: %+v", c.arg, r)
		}
	}
	want := map[string]string{
		"ANTHROPIC_API_KEY": goodKey, "DATABASE_URL": "postgresql://app@db/app", "ACME_TOKEN": "from-a-file-0123456789",
	}
	if diff := cmp.Diff(want, b.values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	if v := b.latest("my-agent", "ACME_TOKEN"); v != 2 {
		t.Errorf("version %d of what was set twice", v)
	}
}

func TestSetFlags(t *testing.T) {
	header := func(name, value string) control.Injector {
		return control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: name, Value: value}}}
	}
	for _, c := range []struct {
		args []string
		want control.Meta
	}{
		{[]string{"T=x0123456789abcdef0123", "--host", "API.Acme.example", "--host", "b.example:8443"},
			control.Meta{Audience: []string{"https://api.acme.example", "https://b.example:8443"}, Inject: control.Injector{Scheme: "bearer"}}},
		{[]string{"T=x0123456789abcdef0123", "--host", "a.example", "--header", "X-Auth: Key {T}", "--rotation", "follow"},
			control.Meta{Audience: []string{"https://a.example"}, Inject: header("x-auth", "Key {T}"), Rotation: "follow"}},
		{[]string{"T=x", "--expose", "env"}, control.Meta{Expose: control.ExposeEnv}},
		{[]string{"DATABASE_URL=x0123456789abcdef0123", "--host", "db.example"},
			control.Meta{Audience: []string{"https://db.example"}, Inject: control.Injector{Scheme: "bearer"}}},
		{[]string{"ANTHROPIC_API_KEY=x0123456789abcdef0123", "--host", "proxy.example"},
			control.Meta{Audience: []string{"https://proxy.example"}, Inject: header("x-api-key", "{ANTHROPIC_API_KEY}")}},
		{[]string{"ANTHROPIC_API_KEY=x0123456789abcdef0123", "--as", "bearer"},
			control.Meta{Audience: []string{"https://api.anthropic.com"}, Inject: control.Injector{Scheme: "bearer"}}},
		{[]string{"T=short", "--host", "a.example"},
			control.Meta{Audience: []string{"https://a.example"}, Inject: control.Injector{Scheme: "bearer"}, Weak: true}},
	} {
		b := newBroker(t)
		if r := torno(t, "", append([]string{"secrets", "set", "my-agent"}, c.args...)...); r.code != 0 {
			t.Errorf("%q: %+v", c.args, r)
			continue
		}
		c.want.Agent, c.want.Version = "my-agent", 1
		c.want.Name, _, _ = strings.Cut(c.args[0], "=")
		got := b.metas[0]
		if got.By != setter(sourceArgument) {
			t.Errorf("%q: set by %q", c.args, got.By)
		}
		got.Created, got.By = time.Time{}, ""
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", c.args, diff)
		}
	}
}

// A new value goes where the old one went, unless flags say otherwise.
func TestSetKeepsSettings(t *testing.T) {
	b := newBroker(t)
	for _, args := range [][]string{
		{"T=x0123456789abcdef0123", "--host", "a.example", "--header", "X-Auth: {T}"},
		{"T=y0123456789abcdef0123"},
	} {
		if r := torno(t, "", append([]string{"secrets", "set", "my-agent"}, args...)...); r.code != 0 {
			t.Fatalf("%q: %+v", args, r)
		}
	}
	m := b.metas[0]
	if m.Version != 2 || len(m.Audience) != 1 || m.Audience[0] != "https://a.example" || m.Inject.Fields[0].Name != "x-auth" {
		t.Errorf("the second version: %+v", m)
	}
	if r := torno(t, "", "secrets", "set", "other", "T=z0123456789abcdef0123"); r.code != 2 {
		t.Errorf("another agent's settings are taken: %+v", r)
	}
}

func TestSetRefused(t *testing.T) {
	const value = "hunter2-hunter2-hunter2"
	for _, c := range []struct {
		name string
		args []string
		code int
		want []string
	}{
		{"unknown name", []string{"my-agent", "CUSTOM_API_SECRET=" + value, "--header", "X-Custom-Auth: {CUSTOM_API_SECRET}"}, 2,
			[]string{`hint: torno secrets set my-agent CUSTOM_API_SECRET=… --header "X-Custom-Auth: {CUSTOM_API_SECRET}" --host HOST`}},
		{"flags for two", []string{"my-agent", "A=" + value, "B=" + value, "--host", "a.example"}, 2, []string{"exactly one KEY"}},
		{"bad agent", []string{"My_Agent", "A=" + value}, 2, []string{"agent's name"}},
		{"bad key", []string{"my-agent", "a-b=" + value}, 2, []string{"secret's name"}},
		{"no key", []string{"my-agent"}, 2, []string{"number of arguments", "usage:"}},
		{"empty", []string{"my-agent", "A="}, 2, []string{"empty"}},
		{"header for another", []string{"my-agent", "A=" + value, "--host", "a.example", "--header", "X: {B}"}, 2, []string{"{A}"}},
		{"header without colon", []string{"my-agent", "A=" + value, "--host", "a.example", "--header", "X"}, 2, []string{"NAME: VALUE"}},
		{"http", []string{"my-agent", "A=" + value, "--host", "http://a.example"}, 2, []string{"https alone"}},
		{"wildcard", []string{"my-agent", "A=" + value, "--host", "*.example"}, 2, []string{"wildcard"}},
		{"unknown scheme", []string{"my-agent", "A=" + value, "--host", "a.example", "--as", "sigv99"}, 2, []string{"sigv99"}},
		{"unknown expose", []string{"my-agent", "A=" + value, "--expose", "file"}, 2, []string{"expose"}},
		{"unknown rotation", []string{"my-agent", "ANTHROPIC_API_KEY=" + value, "--rotation", "daily"}, 2, []string{"rotation"}},
		{"unknown flag", []string{"my-agent", "A=" + value, "--hosts", "a"}, 2, []string{"unknown flag"}},
		{"line break", []string{"my-agent", "ANTHROPIC_API_KEY=" + value + "\r\nx: y"}, 1, []string{"line break"}},
		{"no terminal", []string{"my-agent", "ANTHROPIC_API_KEY"}, 1, []string{"no terminal", "ANTHROPIC_API_KEY=-"}},
		{"no file", []string{"my-agent", "ANTHROPIC_API_KEY=@/no/such/file"}, 1, []string{"no such file"}},
		{"too long", []string{"my-agent", "ANTHROPIC_API_KEY=" + strings.Repeat("x", control.MaxValue+1)}, 1, []string{"at most"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker(t)
			r := torno(t, "", append([]string{"secrets", "set"}, c.args...)...)
			if r.code != c.code || r.out != "" || len(b.metas) != 0 {
				t.Errorf("exit %d, %d secrets set, stdout %q; want exit %d and nothing", r.code, len(b.metas), r.out, c.code)
			}
			if strings.Contains(r.errOut, value) {
				t.Error("the value is repeated")
			}
			for _, w := range append(c.want, "torno: ") {
				if !strings.Contains(r.errOut, w) {
					t.Errorf("stderr %q lacks %q", r.errOut, w)
				}
			}
		})
	}
}

func TestSetConflict(t *testing.T) {
	for conflicts, code := range map[int]int{1: 0, 2: 1} {
		b := newBroker(t)
		b.conflicts = conflicts
		r := torno(t, "", "secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+goodKey)
		if r.code != code {
			t.Errorf("after %d conflicts: %+v; want exit %d", conflicts, r, code)
		}
	}
}

func TestList(t *testing.T) {
	b := newBroker(t)
	if r := torno(t, "", "secrets", "list"); r.code != 0 || r.out != "" || !strings.Contains(r.errOut, "torno secrets set") {
		t.Errorf("without secrets: %+v", r)
	}
	b.metas = []control.Meta{
		{Agent: "my-agent", Name: "ANTHROPIC_API_KEY", Version: 3, Audience: []string{"https://api.anthropic.com"}, Created: time.Now().Add(-3 * time.Hour),
			Inject: control.Injector{Scheme: "header", Fields: []control.FieldTemplate{{Name: "x-api-key"}}}},
		{Agent: "my-agent", Name: "DATABASE_URL", Version: 1, Expose: control.ExposeEnv, Created: time.Now().Add(-50 * time.Hour)},
		{Agent: "b", Name: "EVIL\x1b[2J", Version: 1, Audience: []string{"https://a.example\n", "https://b.example"}, Inject: control.Injector{Scheme: "bearer"}, Weak: true},
	}
	r := torno(t, "", "secrets", "list")
	want := `AGENT     NAME               VERSION  KIND          GOES TO              AGE
my-agent  ANTHROPIC_API_KEY  3        x-api-key     api.anthropic.com    3h
my-agent  DATABASE_URL       1        exposed       inside the VM        2d
b         EVIL\x1b[2J        1        bearer, weak  a.example\n, 1 more  -
`
	if diff := cmp.Diff(want, r.out); r.code != 0 || diff != "" {
		t.Errorf("exit %d (-want +got):\n%s", r.code, diff)
	}
	for line := range strings.Lines(r.out) {
		if len(line) > 81 {
			t.Errorf("wider than 80 columns: %q", line)
		}
	}
	if r := torno(t, "", "secrets", "list", "my-agent", "--json"); !strings.Contains(r.out, `"name": "DATABASE_URL"`) || strings.Contains(r.out, "EVIL") {
		t.Errorf("JSON: %+v", r)
	}
}

func TestDelete(t *testing.T) {
	b := newBroker(t)
	b.metas = []control.Meta{{Agent: "my-agent", Name: "A", Version: 1}}
	if r := torno(t, "", "secrets", "delete", "my-agent", "A"); r.code != 0 || r.out != "A: deleted\n" || len(b.metas) != 0 {
		t.Errorf("%+v", r)
	}
	if r := torno(t, "", "secrets", "delete", "my-agent", "A"); r.code != 1 || r.errOut != "torno: no such secret\nhint: torno secrets list my-agent\n" {
		t.Errorf("again: %+v", r)
	}
}

func TestComplete(t *testing.T) {
	b := newBroker(t)
	b.metas = []control.Meta{{Agent: "one", Name: "A"}, {Agent: "one", Name: "B"}, {Agent: "two", Name: "A"}}
	for args, want := range map[string]string{
		"secrets list ": "one\ntwo\n", "secrets delete one ": "A\nB\n", "run --agent ": "one\ntwo\n", "run --isolation ": "microvm\nnamespace\n",
	} {
		words := append([]string{"__complete"}, strings.Split(args, " ")...)
		if r := torno(t, "", words...); !strings.HasPrefix(r.out, want) {
			t.Errorf("%s: %q, want %q", args, r.out, want)
		}
	}
}

func TestTypedLine(t *testing.T) {
	for typed, want := range map[string]string{
		"secret\r": "secret", "a\x7fb\n": "b", "\x7f\bab\b\r": "a", "wrong\x15right\r": "right", "äö\x7f\r": "ä", "x\x04": "x",
		"\x03": "error", "abc\x03": "error", "\x04": "error", strings.Repeat("x", 5000) + "\r": strings.Repeat("x", 5000),
		strings.Repeat("x", control.MaxValue+1): "error",
	} {
		var l line
		got := "open"
		for i := range len(typed) {
			_, done, err := l.key(typed[i])
			if err != nil {
				got = "error"
				break
			}
			if done {
				got = string(l.text)
				break
			}
		}
		if got != want {
			t.Errorf("%.20q: %.20q, want %.20q", typed, got, want)
		}
	}
}

func ExampleRun_errors() {
	for _, args := range [][]string{{"bogus"}, {"secrets", "bogus"}, {"secrets"}, {"run"}, {"run", "--agent", "a"}, {"run", "--agent", "A", "x"}} {
		root := newRoot("test")
		root.SetArgs(args)
		root.SetErr(os.Stdout)
		fmt.Println(execute(context.Background(), root))
	}
	// Output:
	// torno: unknown command "bogus" for "torno"
	// 2
	// torno: unknown command "bogus" for "torno secrets"
	// 2
	// torno: torno secrets: which?
	// hint: torno secrets --help
	// 2
	// torno: --agent "" is not an agent's name
	// hint: torno run --agent NAME -- CMD; a name is a to z, 0 to 9 and hyphens, at most 63, no hyphen first
	// 2
	// torno: no command
	// hint: torno run --agent a -- CMD
	// 2
	// torno: --agent "A" is not an agent's name
	// hint: torno run --agent NAME -- CMD; a name is a to z, 0 to 9 and hyphens, at most 63, no hyphen first
	// 2
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	for text, want := range map[string]time.Time{
		"30d": now.AddDate(0, 0, 30), "12h": now.Add(12 * time.Hour), "1h30m": now.Add(90 * time.Minute),
		"2026-03-01":           time.Date(2026, 3, 2, 0, 0, 0, 0, time.Local),
		"2026-03-01 18:00":     time.Date(2026, 3, 1, 18, 0, 0, 0, time.Local),
		"2026-03-02T18:00:00":  time.Date(2026, 3, 2, 18, 0, 0, 0, time.Local),
		"2026-03-03T18:00:00Z": time.Date(2026, 3, 3, 18, 0, 0, 0, time.UTC),
	} {
		if got, err := control.ParseExpiry(text, now); err != nil || !got.Equal(want) {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "d", "0d", "-1d", "60001d", "1.5d", "99999999999999999999d", "-1h", "0h", "tomorrow", "2026-02-28", "2026-03-01 11:59", "2026-13-01", "2026-02-30", "30"} {
		if got, err := control.ParseExpiry(text, now); err == nil {
			t.Errorf("%q: %v, want an error", text, got)
		}
	}
}
