package project

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

// made makes a project of files and returns its directory.
func made(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// look returns what is found, a line each: "KEY: why", "rule: why" with "?" where a person decides, "note: …".
func look(t testing.TB, dir string) []string {
	t.Helper()
	found, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, k := range found.Keys {
		line := k.Name + ": " + k.Why
		if k.Set != "" {
			line += " [" + k.Set + "]"
		}
		out = append(out, line)
	}
	for _, r := range found.Rules {
		sign := ""
		if r.Ask {
			sign = "? "
		}
		out = append(out, sign+r.Text+": "+r.Why)
	}
	for _, n := range found.Notes {
		out = append(out, "note: "+n)
	}
	return out
}

func TestLook(t *testing.T) {
	for _, test := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"nothing", nil, nil},
		{"python agent", map[string]string{
			"requirements.txt": "anthropic>=0.30\n# openai\nBoto3 ; python_version > '3'\nrequests\n",
			".env.example":     "ANTHROPIC_API_KEY=\nDEBUG=1\nMAX_TOKEN=5\n",
		}, []string{
			"ANTHROPIC_API_KEY: .env.example names it; requirements.txt depends on anthropic",
			"AWS: requirements.txt depends on boto3 [AWS=@keys --as sigv4 --host SERVICE.REGION.amazonaws.com]",
		}},
		{"pyproject", map[string]string{
			"pyproject.toml": "[project]\nname = \"x\"\ndependencies = [\"openai[realtime]>=1\", 'psycopg[binary]']\n[tool.poetry.dependencies]\ngoogle_genai = \"^1\"\n",
			"uv.lock":        "source = { registry = \"https://packages.corp.example/simple\" }\n",
		}, []string{
			"GEMINI_API_KEY: pyproject.toml depends on google-genai",
			"OPENAI_API_KEY: pyproject.toml depends on openai",
			"DATABASE_URL: pyproject.toml depends on psycopg [DATABASE_URL=@address --as postgres]",
			"? GET packages.corp.example: uv.lock: packages come from it",
		}},
		{"node service", map[string]string{
			"package.json":       `{"dependencies": {"@anthropic-ai/sdk": "1", "pg": "8", "left-pad": "1"}, "devDependencies": {"stripe": "2"}}`,
			"package-lock.json":  `{"packages": {"a": {"resolved": "https://npm.corp.example/a.tgz"}, "b": {"resolved": "https://npm.corp.example/b.tgz"}}}`,
			"docker-compose.yml": "services:\n  db:\n    image: postgres:16\n",
			".env":               "export DATABASE_URL=postgresql://u:hunter2hunter2@db/x\nNEXT_PUBLIC_API_KEY=public\n",
		}, []string{
			"DATABASE_URL: .env names it; package.json depends on pg",
			"ANTHROPIC_API_KEY: package.json depends on @anthropic-ai/sdk",
			"STRIPE_SECRET_KEY: package.json depends on stripe",
			"? GET npm.corp.example: package-lock.json: packages come from it",
			"note: docker-compose.yml runs PostgreSQL by itself: inside the VM no secret is needed to reach it",
			`note: containers are built and run in the VM with user = "root" and an image that has an engine: docs/images.md`,
		}},
		{"go program at a forge", map[string]string{
			"go.mod":      "module x\n\nrequire (\n\tgithub.com/google/go-github/v66 v66.0.0\n\tgithub.com/jackc/pgx/v5 v5.0.0 // indirect\n)\nrequire github.com/aws/aws-sdk-go-v2 v1.0.0\n",
			".git/config": "[remote \"origin\"]\n\turl = https://github.com/me/project.git\n[remote \"deploy\"]\n\turl = git@forge.example:me/project\n",
		}, []string{
			"AWS: go.mod depends on github.com/aws/aws-sdk-go-v2 [AWS=@keys --as sigv4 --host SERVICE.REGION.amazonaws.com]",
			"GITHUB_TOKEN: go.mod depends on github.com/google/go-github/v66; git's remote is at github.com: to fetch what is private, and to push",
			"DATABASE_URL: go.mod depends on github.com/jackc/pgx/v5 [DATABASE_URL=@address --as postgres]",
			"DEPLOY_KEY: git's remote is at forge.example, by ssh [DEPLOY_KEY=@FILE --as ssh --host forge.example]",
			"GET github.com/me/project.git/info/refs: git's remote: to fetch from it",
			"POST github.com/me/project.git/git-upload-pack: git's remote: to fetch from it",
		}},
		{"agents' own", map[string]string{".claude/settings.json": "{}", ".codex/x": "", "main.tf": "provider \"aws\" {\n}\n", "Dockerfile": "FROM x\n"}, []string{
			"ANTHROPIC_API_KEY: .claude is of Claude Code",
			"OPENAI_API_KEY: .codex is of Codex",
			"AWS: main.tf has the provider aws [AWS=@keys --as sigv4 --host SERVICE.REGION.amazonaws.com]",
			`note: containers are built and run in the VM with user = "root" and an image that has an engine: docs/images.md`,
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, look(t, made(t, test.files))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// A project may be hostile: nothing that it has gets further than a name or a host that was checked, and no value at all.
func TestHostileProject(t *testing.T) {
	const value = "sk-ant-api03-made-up-0123456789"
	elsewhere := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(elsewhere, []byte("STOLEN_TOKEN="+value), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := made(t, map[string]string{
		".env.a": "ANTHROPIC_API_KEY=" + value + "\nlower_token=x\nÄ_TOKEN=x\n_TOKEN\n" + strings.Repeat("A", 300) + "_TOKEN=x\n",
		".git/config": "url = https://github.com/../../evil\nurl = https://github.com/a/b\"]\nurl = https://user:" + value + "@github.com/o/r\n" +
			"url = git@evil\x1b[31m:x\nurl = https://exa mple/x/y\nurl = file:///etc/passwd\nurl = https://github.com/a/**\nurl = https://localhost/o/r\n",
		"package.json":      "{\"dependencies\": \"no\"}",
		"package-lock.json": "\"resolved\": \"https://127.0.0.1/\" \"resolved\": \"https://evil\\\"]/\"",
	})
	for name, target := range map[string]string{".env": elsewhere, "go.mod": "/dev/zero", "Pipfile": elsewhere} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pyproject.toml"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf(".env.z%d", i)), fmt.Appendf(nil, "N%d_TOKEN=%s\n", i, value), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found, err := Look(dir)
	if err != nil {
		t.Fatal(err)
	}
	if said := fmt.Sprintf("%+v", found); strings.Contains(said, value) || strings.Contains(said, "STOLEN") || strings.Contains(said, "evil") || strings.Contains(said, "\x1b") {
		t.Errorf("%s", said)
	}
	if len(found.Keys) > maxKeys || len(found.Rules) > maxRules {
		t.Errorf("%d keys, %d rules", len(found.Keys), len(found.Rules))
	}
	for _, k := range found.Keys {
		if !control.ValidKey(k.Name) {
			t.Errorf("%q is no name", k.Name)
		}
	}
	want := []string{"GET github.com/o/r/info/refs", "POST github.com/o/r/git-upload-pack"}
	var rules []string
	for _, r := range found.Rules {
		rules = append(rules, r.Text)
	}
	if !slices.Equal(rules, want) {
		t.Errorf("rules %q, want %q", rules, want)
	}
	if _, err := Look(filepath.Join(dir, "none")); err == nil {
		t.Error("a directory that is not there passes")
	}
}

// FuzzLook finds names and hosts in whatever a project has.
func FuzzLook(f *testing.F) {
	f.Add("A_TOKEN=x\n", "url = https://github.com/a/b.git", `{"dependencies":{"pg":"1"}}`, `registry = "https://a.example/x"`)
	f.Add("export X_KEY =", "url = ssh://git@h.example:22/x/y", `[]`, "")
	f.Fuzz(func(t *testing.T, env, git, json, lock string) {
		found, err := Look(made(t, map[string]string{".env": env, ".git/config": git, "package.json": json, "uv.lock": lock}))
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range found.Keys {
			if !control.ValidKey(k.Name) {
				t.Errorf("%q is no name", k.Name)
			}
		}
		for _, r := range found.Rules {
			if strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' || c == '*' }) {
				t.Errorf("%q is no rule", r.Text)
			}
		}
	})
}
