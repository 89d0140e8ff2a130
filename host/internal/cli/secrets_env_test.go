package cli

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

// envFile writes a .env file and changes to its directory.
func envFile(t *testing.T, content string) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.WriteFile(".env", []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

const dotEnv = `# what the agent needs
export ANTHROPIC_API_KEY=` + goodKey + `
DATABASE_URL="postgresql://app@db/app"  # exposed by its preset
ACME_TOKEN='short'
`

// fromEnv sets what dotEnv holds, where ACME_TOKEN was set before.
func fromEnv(t *testing.T, args ...string) (*fakeBroker, outcome) {
	t.Helper()
	b := newBroker(t)
	envFile(t, dotEnv)
	if r := torno(t, "", "secrets", "set", "my-agent", "ACME_TOKEN=acme-0123456789abcdef", "--host", "api.acme.example"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	return b, torno(t, "", append([]string{"secrets", "set", "my-agent", "--from-env-file", ".env"}, args...)...)
}

const shownPlan = `For agent my-agent, from .env:
NAME               CHANGE         KIND          GOES TO            BY
ANTHROPIC_API_KEY  new            x-api-key     api.anthropic.com  preset anthropic
DATABASE_URL       new            exposed       inside the VM      preset database-url
ACME_TOKEN         new version 2  bearer, weak  api.acme.example   version before
`

func TestSetFromEnvFile(t *testing.T) {
	b, r := fromEnv(t, "--yes")
	wantOut := `ANTHROPIC_API_KEY: set, version 1, goes to api.anthropic.com as x-api-key
DATABASE_URL: visible inside the VM (preset; --host makes it a proxied secret)
ACME_TOKEN: set, version 2, goes to api.acme.example as bearer, weak
`
	wantErr := shownPlan + `ACME_TOKEN: weak (fewer than 16 random bytes): outside the guarantee
note: .env still holds the values, for whoever can read it
`
	if diff := cmp.Diff(outcome{0, wantOut, wantErr}, r, cmp.AllowUnexported(outcome{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	want := map[string]string{"ANTHROPIC_API_KEY": goodKey, "DATABASE_URL": "postgresql://app@db/app", "ACME_TOKEN": "short"}
	if diff := cmp.Diff(want, b.values); diff != "" {
		t.Errorf("values (-want +got):\n%s", diff)
	}
	for _, m := range b.metas[:3] {
		if m.By != setter(sourceEnvFile) {
			t.Errorf("%s: set by %q", m.Name, m.By)
		}
	}
}

// Without --yes and without a terminal what would happen is shown, and nothing does.
func TestSetFromEnvFileUnasked(t *testing.T) {
	b, r := fromEnv(t)
	want := outcome{1, "", shownPlan + "torno: no terminal to ask on; nothing was set\nhint: --yes sets them without asking\n"}
	if diff := cmp.Diff(want, r, cmp.AllowUnexported(outcome{})); diff != "" || len(b.metas) != 1 {
		t.Errorf("%d secrets (-want +got):\n%s", len(b.metas), diff)
	}
}

// Flags are for the one key that is named; of the others nothing is set.
func TestSetFromEnvFileKey(t *testing.T) {
	b := newBroker(t)
	envFile(t, "odd.name=x\nPORT=3000\nCUSTOM=custom-0123456789abcdef\n")
	r := torno(t, "", "secrets", "set", "my-agent", "--from-env-file", ".env", "CUSTOM", "--yes", "--json",
		"--host", "api.example.org", "--header", "X-Auth: {CUSTOM}", "--rotation", "follow", "--expires", "30d", "--if-version", "0")
	var infos []control.SecretInfo
	if err := json.Unmarshal([]byte(r.out), &infos); err != nil || r.code != 0 || len(infos) != 1 {
		t.Fatalf("%+v, %v", r, err)
	}
	i := infos[0]
	if i.Name != "CUSTOM" || i.Version != 1 || i.Inject.Fields[0].Name != "x-auth" || i.Rotation != "follow" || i.Expires.IsZero() {
		t.Errorf("%+v", i)
	}
	if len(b.values) != 1 || !strings.Contains(r.errOut, "CUSTOM  new     x-auth, follow  api.example.org  custom\n") {
		t.Errorf("%d values, stderr %q", len(b.values), r.errOut)
	}
	if r := torno(t, "", "secrets", "set", "my-agent", "--from-env-file", ".env", "PORT", "--expose", "env", "--yes"); r.code != 0 || b.values["PORT"] != "3000" {
		t.Errorf("%+v", r)
	}
	if r := torno(t, "PORT=4000", "secrets", "set", "my-agent", "--from-env-file", "-", "--yes"); r.code != 0 || b.values["PORT"] != "4000" || strings.Contains(r.errOut, "still holds") {
		t.Errorf("standard input: %+v", r)
	}
}

func TestSetFromEnvFileRefused(t *testing.T) {
	const value = "hunter2-hunter2-hunter2"
	for _, c := range []struct {
		name, file string
		args       []string
		code       int
		want       []string
	}{
		{"unknown names", "ANTHROPIC_API_KEY=" + goodKey + "\nPORT=" + value + "\nDEBUG=1\n", nil, 2,
			[]string{".env holds what no preset knows: PORT, DEBUG; nothing was set", "--from-env-file .env ANTHROPIC_API_KEY; "}},
		{"one unknown name", "PORT=" + value, []string{"PORT"}, 2, []string{"hint: torno secrets set my-agent --from-env-file .env PORT --host HOST"}},
		{"no secret's name", "ANTHROPIC_API_KEY=" + goodKey + "\nhunter2-hunter2-hunter2=x\n", nil, 1, []string{".env:2: the name there is no secret's"}},
		{"a fault", "A=" + value + "\nB=" + value + "#x\n", nil, 1, []string{".env:2: a # that", "hint: put the value in single quotes"}},
		{"a fault elsewhere", "ANTHROPIC_API_KEY=" + goodKey + "\nB=\"" + value, []string{"ANTHROPIC_API_KEY"}, 1, []string{".env:2: a quote"}},
		{"twice", "A=" + value + "\nA=" + value, nil, 1, []string{".env:2: the name stands in line 1 already"}},
		{"an empty value", "ANTHROPIC_API_KEY=\n", nil, 1, []string{"ANTHROPIC_API_KEY: the value is empty"}},
		{"a value that can't be", "ANTHROPIC_API_KEY=\"" + value + "\\nx: y\"\n", nil, 1, []string{"ANTHROPIC_API_KEY: the value holds a line break"}},
		{"one of two", "ANTHROPIC_API_KEY=" + goodKey + "\nDATABASE_URL=\n", nil, 1, []string{"DATABASE_URL: the value is empty"}},
		{"not there", "ANTHROPIC_API_KEY=" + goodKey, []string{"OPENAI_API_KEY", "ANTHROPIC_API_KEY", "X"}, 1, []string{".env does not hold OPENAI_API_KEY, X"}},
		{"named twice", "A=" + value, []string{"A", "A"}, 2, []string{`"A" is named twice`}},
		{"a value beside", "A=" + value, []string{"B=" + value}, 2, []string{"a KEY has no value"}},
		{"flags for two", "A=" + value + "\nB=" + value, []string{"--host", "a.example"}, 2, []string{"exactly one KEY"}},
		{"flags for two that are named", "A=" + value + "\nB=" + value, []string{"A", "B", "--host", "a.example"}, 2, []string{"exactly one KEY"}},
		{"nothing", "# A=" + value, nil, 1, []string{".env: nothing is set there"}},
		{"another version", "ANTHROPIC_API_KEY=" + goodKey, []string{"--if-version", "3"}, 1, []string{"was never set; nothing was set"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBroker(t)
			envFile(t, c.file)
			r := torno(t, "", append([]string{"secrets", "set", "my-agent", "--yes", "--from-env-file", ".env"}, c.args...)...)
			if r.code != c.code || r.out != "" || len(b.metas) != 0 || strings.Contains(r.errOut, value) {
				t.Errorf("exit %d, %d secrets set, stdout %q; want exit %d and nothing (stderr %q)", r.code, len(b.metas), r.out, c.code, r.errOut)
			}
			for _, w := range append(c.want, "torno: ") {
				if !strings.Contains(r.errOut, w) {
					t.Errorf("stderr %q lacks %q", r.errOut, w)
				}
			}
		})
	}
	newBroker(t)
	for args, want := range map[string]string{"my-agent --from-env-file /no/such/file": "no such file", "my-agent A=x --yes": "--yes goes with"} {
		if r := torno(t, "", append([]string{"secrets", "set"}, strings.Fields(args)...)...); r.code == 0 || !strings.Contains(r.errOut, want) {
			t.Errorf("%s: %+v", args, r)
		}
	}
}

// What was shown is set or nothing is: somebody else's version meanwhile is in the way.
func TestSetFromEnvFileConflict(t *testing.T) {
	b := newBroker(t)
	envFile(t, "ANTHROPIC_API_KEY="+goodKey)
	b.conflicts = 1
	b.meanwhile = &control.Meta{Agent: "my-agent", Name: "ANTHROPIC_API_KEY", Version: 1}
	r := torno(t, "", "secrets", "set", "my-agent", "--from-env-file", ".env", "--yes")
	if r.code != 1 || len(b.values) != 0 || !strings.Contains(r.errOut, "ANTHROPIC_API_KEY is at version 1, not 0: somebody has set it meanwhile; nothing was set") {
		t.Errorf("%+v", r)
	}
}

// The same file is sealed on a machine without a broker.
func TestSealFromEnvFile(t *testing.T) {
	newBroker(t)
	envFile(t, dotEnv)
	pub := torno(t, "", "secrets", "export-public-key")
	if err := os.WriteFile("broker.pub", []byte(pub.out), 0o600); err != nil {
		t.Fatal(err)
	}
	r := torno(t, "", "secrets", "seal", "--to", "broker.pub", "my-agent", "--from-env-file", ".env", "ANTHROPIC_API_KEY", "DATABASE_URL")
	if r.code != 0 || strings.Count(r.out, "BEGIN TORNO SEALED SECRET") != 2 || strings.Contains(r.out+r.errOut, goodKey) {
		t.Errorf("%+v", r)
	}
	if r := torno(t, "", "secrets", "seal", "--to", "broker.pub", "my-agent", "--from-env-file", ".env"); r.code != 2 || r.out != "" || !strings.Contains(r.errOut, "no preset knows: ACME_TOKEN") {
		t.Errorf("with a name that nobody knows: %+v", r)
	}
}

func TestCompleteEnvFile(t *testing.T) {
	newBroker(t)
	envFile(t, "odd=x\n"+dotEnv)
	for args, want := range map[string]string{
		"--from-env-file .env my-agent ":            "ANTHROPIC_API_KEY\nDATABASE_URL\nACME_TOKEN\n:4\n",
		"--from-env-file .env my-agent ACME_TOKEN ": "ANTHROPIC_API_KEY\nDATABASE_URL\n:4\n",
		"--from-env-file none my-agent ":            ":4\n",
	} {
		r := torno(t, "", append([]string{"__complete", "secrets", "set"}, strings.Split(args, " ")...)...)
		if r.out != want || strings.Contains(r.errOut, goodKey) {
			t.Errorf("%s: %q, want %q", args, r.out, want)
		}
	}
}
