package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/host/internal/config"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// inDir changes to a new directory that holds torno.toml with content, unless that is empty.
func inDir(t *testing.T, content string) string {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	if content != "" {
		if err := os.WriteFile(filepath.Join(dir, "torno.toml"), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const someFile = "name = \"my-agent\"\nsecrets = [\"ANTHROPIC_API_KEY\"]\n"

func TestTrust(t *testing.T) {
	b := newBroker(t)
	inDir(t, someFile)
	r := torno(t, "", "trust", "--yes")
	if r.code != 0 || string(b.trusted["my-agent"].File) != someFile || b.trusted["my-agent"].Policy.Name != "my-agent" {
		t.Fatalf("%+v", r)
	}
	for _, want := range []string{"--- trusted", "+++ torno.toml", "+name = \"my-agent\"", "torno.toml is trusted for agent my-agent"} {
		if !strings.Contains(r.errOut, want) {
			t.Errorf("stderr lacks %q:\n%s", want, r.errOut)
		}
	}
	if r := torno(t, "", "trust"); r.code != 0 || !strings.Contains(r.errOut, "trusted already") {
		t.Errorf("again: %+v", r)
	}
}

// Attack 48: a file of another agent, and terminal escapes in what a person is to approve.
func TestAttack48AgentFile(t *testing.T) {
	b := newBroker(t)
	inDir(t, someFile)
	if r := torno(t, "", "trust", "--agent", "prod", "--yes"); r.code != 1 || !strings.Contains(r.errOut, `name is "my-agent", but --agent is "prod"`) || len(b.trusted) > 0 {
		t.Errorf("another agent's name: %+v", r)
	}
	// A raw escape is no TOML at all; what can stand in a file is shown and not obeyed.
	inDir(t, someFile+"# \x1b[2K\n")
	r := torno(t, "", "trust", "--yes")
	if strings.ContainsAny(r.errOut, "\x1b\u202e") {
		t.Errorf("the terminal is controlled by the file: %q", r.errOut)
	}
	inDir(t, someFile+"# \u202egnihton\u200b\n")
	r = torno(t, "", "trust", "--yes")
	if r.code == 0 && !strings.Contains(r.errOut, `\u202e`) || strings.ContainsAny(r.errOut, "\u202e\u200b") {
		t.Errorf("direction of text: %+v", r)
	}
}

func TestTrustRefused(t *testing.T) {
	for _, c := range []struct {
		name, file string
		args       []string
		want       []string
	}{
		{"no file", "", nil, []string{"no such file", "hint: torno init"}},
		{"unknown keys, all at once", someFile + "secretz = []\n[egres]\nallow = []\n", []string{"--yes"}, []string{"torno.toml:3:", "torno.toml:4:"}},
		{"no terminal", someFile, nil, []string{"no terminal", "hint: --yes"}},
	} {
		b := newBroker(t)
		inDir(t, c.file)
		r := torno(t, "", append([]string{"trust"}, c.args...)...)
		if r.code != 1 || len(b.trusted) > 0 {
			t.Errorf("%s: %+v", c.name, r)
		}
		for _, w := range c.want {
			if !strings.Contains(r.errOut, w) {
				t.Errorf("%s: stderr lacks %q:\n%s", c.name, w, r.errOut)
			}
		}
	}
}

// Without a person a file that is not trusted stops the run, and nothing is approved.
func TestRunUntrusted(t *testing.T) {
	b := newBroker(t)
	inDir(t, someFile)
	r := torno(t, "", "run", "--agent", "my-agent", "--", "true")
	if r.code != protocol.ExitFailed || !strings.Contains(r.errOut, "is not trusted yet") || !strings.Contains(r.errOut, "torno trust") || len(b.trusted) > 0 {
		t.Errorf("%+v", r)
	}
	b.trusted["my-agent"] = control.TrustedFile{Agent: "my-agent", File: []byte("name = \"my-agent\"\n")}
	if r := torno(t, "", "run", "--agent", "my-agent", "--", "true"); r.code != protocol.ExitFailed || !strings.Contains(r.errOut, "has changed since") {
		t.Errorf("%+v", r)
	}
	if r := torno(t, "", "run", "--agent", "other", "--", "true"); r.code != protocol.ExitFailed || !strings.Contains(r.errOut, "must be equal") {
		t.Errorf("%+v", r)
	}
	// The fake knows no sessions to create, so this run ends there; but the file is trusted by then.
	r = torno(t, "", "run", "--agent", "my-agent", "--trust-config", "--", "true")
	if r.code != protocol.ExitFailed || string(b.trusted["my-agent"].File) != someFile {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(r.errOut, "placeholder = true in [secret.ANTHROPIC_API_KEY]") {
		t.Errorf("no word on placeholders: %q", r.errOut)
	}
}

func TestInit(t *testing.T) {
	b := newBroker(t)
	b.metas = []control.Meta{{Agent: "my-agent", Name: "ANTHROPIC_API_KEY"}, {Agent: "my-agent", Name: "ACME_TOKEN"}}
	dir := inDir(t, "")
	if r := torno(t, "", "init", "--agent", "my-agent"); r.code != 0 || !strings.Contains(r.out, "torno trust") {
		t.Fatalf("%+v", r)
	}
	got, err := os.ReadFile(filepath.Join(dir, "torno.toml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`name = "my-agent"`, `"ANTHROPIC_API_KEY"`, `"ACME_TOKEN"`, "[secret.ANTHROPIC_API_KEY]\nplaceholder = true"} {
		if !strings.Contains(string(got), want) {
			t.Errorf("the file lacks %q:\n%s", want, got)
		}
	}
	if r := torno(t, "", "trust", "--yes"); r.code != 0 {
		t.Errorf("what init writes cannot be trusted: %+v", r)
	}
	if r := torno(t, "", "init", "--agent", "my-agent"); r.code != 1 || !strings.Contains(r.errOut, "there already") {
		t.Errorf("again: %+v", r)
	}
	if r := torno(t, "", "init", "--agent", "my-agent", "--force", "DATABASE_URL"); r.code != 0 || !strings.Contains(r.out, "not set yet: torno secrets set my-agent DATABASE_URL\n") {
		t.Errorf("by force: %+v", r)
	}
	if got, err = os.ReadFile(filepath.Join(dir, "torno.toml")); err != nil || strings.Contains(string(got), "ACME") || !strings.Contains(string(got), "the agent can read this one") {
		t.Errorf("%v:\n%s", err, got)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".torno*")); err != nil || len(left) > 0 {
		t.Errorf("left %q, %v", left, err)
	}
}

// What --print and --json say is the file that would be written, and none is.
func TestInitPrint(t *testing.T) {
	newBroker(t)
	dir := inDir(t, "")
	for name, text := range map[string]string{".env": "ANTHROPIC_API_KEY=made-up-value\nACME_API_TOKEN=made-up-value\n", "requirements.txt": "psycopg\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	printed := torno(t, "", "init", "--agent", "my-agent", "--print")
	var p proposal
	r := torno(t, "", "init", "--agent", "my-agent", "--json")
	if err := json.Unmarshal([]byte(r.out), &p); err != nil || p.File != printed.out || r.code+printed.code != 0 {
		t.Fatalf("%v: %+v\n%+v", err, r, printed)
	}
	if _, err := os.Stat(filepath.Join(dir, "torno.toml")); err == nil {
		t.Error("a file was written")
	}
	if strings.Contains(r.out+printed.out, "made-up-value") {
		t.Errorf("a value is shown: %s", r.out)
	}
	want := []proposedSecret{
		{Key: "ACME_API_TOKEN", Why: ".env names it", Command: "torno secrets set my-agent ACME_API_TOKEN --host HOST"},
		{Key: "ANTHROPIC_API_KEY", Declared: true, Service: "Anthropic API", Why: ".env names it", Command: "torno secrets set my-agent ANTHROPIC_API_KEY"},
		{Key: "DATABASE_URL", Why: "requirements.txt depends on psycopg", Command: "torno secrets set my-agent DATABASE_URL=@address --as postgres"},
	}
	slices.SortFunc(p.Secrets, func(a, b proposedSecret) int { return strings.Compare(a.Key, b.Key) })
	if diff := cmp.Diff(want, p.Secrets, cmp.AllowUnexported(proposedSecret{})); diff != "" {
		t.Error(diff)
	}
	for _, line := range []string{
		`  "ANTHROPIC_API_KEY", # Anthropic API; .env names it; not set: torno secrets set my-agent ANTHROPIC_API_KEY`,
		`  # "ACME_API_TOKEN", # .env names it; not set: torno secrets set my-agent ACME_API_TOKEN --host HOST`,
	} {
		if !strings.Contains(printed.out, line+"\n") {
			t.Errorf("%q is not in\n%s", line, printed.out)
		}
	}
	if _, err := config.ParseAgent("torno.toml", []byte(printed.out)); err != nil {
		t.Error(err)
	}
}

// Every command has help that shows how it is used, and fits a terminal.
func TestHelp(t *testing.T) {
	for _, args := range [][]string{
		nil, {"serve"}, {"reload"}, {"run"}, {"trust"}, {"init"}, {"secrets"}, {"secrets", "set"}, {"secrets", "list"}, {"secrets", "delete"},
		{"sessions"}, {"sessions", "list"}, {"sessions", "show"}, {"sessions", "revoke"}, {"policy", "check"},
		{"approvals"}, {"approvals", "list"}, {"approvals", "allow"}, {"approvals", "deny"},
		{"audit", "tail"}, {"audit", "verify"}, {"doctor"}, {"demo"}, {"version"}, {"completion"},
	} {
		r := torno(t, "", append(append([]string{}, args...), "--help")...)
		if r.code != 0 || len(r.out) < 200 {
			t.Errorf("%q: exit %d, %d bytes of help", args, r.code, len(r.out))
		}
		if n := len(args); n > 0 && args[0] != "completion" && !strings.Contains(r.out, "Examples:") && !strings.Contains(r.out, "Available Commands:") {
			t.Errorf("%q: no example", args)
		}
		for line := range strings.Lines(r.out) {
			if len([]rune(line)) > 81 && !strings.HasPrefix(line, "  torno ") { // a command is not broken
				t.Errorf("%q: wider than 80 columns: %q", args, line)
			}
		}
	}
}
