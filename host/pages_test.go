package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A page is one of the documentation whose commands are run, in its order, in the working directory of a house: what stands
// in blocks of "console" behind "$ ". What they print is compared with what the page shows; there "…" stands for anything in a
// line, and a line of nothing else for any lines. A block whose language has a name behind it is written to that file.
type page struct {
	file  string
	files map[string]string // that the reader has: keys, mostly
	least int               // commands that are found
	house func(t *testing.T, p *page) *house
	same  map[string]string // what the page says, and what it is on this machine
}

// plain is a house with the canned upstreams.
func plain(t *testing.T, _ *page) *house { return newHouse(t, "") }

// withSDKs is plain, where the clients are installed.
func withSDKs(t *testing.T, _ *page) *house {
	clients(t)
	return newHouse(t, "")
}

var pages = []*page{
	{file: "secrets.md", least: 8, house: plain, files: map[string]string{
		"anthropic.key": "sk-ant-made-up-0123456789abcdef\n", "acme.token": "acme-made-up-0123456789abcdef\n",
		"app.env": "PORT=3000\nANTHROPIC_API_KEY=sk-ant-made-up-0123456789abcdef\nDATABASE_URL='postgresql://app@db/app'\n",
	}},
	{file: "quickstart.md", least: 11, house: plain, files: map[string]string{"anthropic.key": anthropicKey}},
	{file: "howto/claude-code.md", least: 5, house: withSDKs, files: map[string]string{"anthropic.key": anthropicKey}},
	{file: "howto/codex.md", least: 3, house: withSDKs, files: map[string]string{"openai.key": openaiKey, "codex.py": codexStandIn}},
	{file: "howto/sdks.md", least: 3, house: withSDKs, files: map[string]string{"anthropic.key": anthropicKey, "openai.key": openaiKey}},
	{file: "howto/github.md", least: 4, house: plain, files: map[string]string{"github.token": githubToken}},
	{file: "howto/aws.md", least: 3, files: map[string]string{"aws.key": gatewayKeyID + ":" + gatewaySecret},
		house: func(t *testing.T, _ *page) *house { return newHouse(t, "\n"+newGateway(t).toml) }},
	{file: "howto/ssh.md", least: 3, house: withSSH},
	{file: "howto/postgres.md", least: 4, house: withPostgres, files: map[string]string{"reports": "mysql://reader:made-up-0123456789@reports.example.org/r"}},
	{file: "howto/platform.md", least: 6, house: func(t *testing.T, p *page) *house {
		h := newHouse(t, "")
		h.must("secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+anthropicKey)
		return h
	}},
}

// codexStandIn is what is run for codex: it asks what it asks, with OpenAI's own SDK.
const codexStandIn = `import openai, sys
assert sys.argv[1] == "exec"
print(openai.OpenAI().chat.completions.create(model="m", messages=[{"role": "user", "content": sys.argv[2]}]).choices[0].message.content)
`

func withSSH(t *testing.T, p *page) *house {
	s := newSSHD(t, "ed25519", "ed25519")
	h := newHouse(t, fmt.Sprintf("\n[[upstream]]\nhost = \"git.example.org\"\nport = 22\ndial = %q\n", s.addr()))
	repo := filepath.Join(s.dir, "repo")
	mustRun(t, s.dir, "git", "init", "-q", "-b", "main", repo)
	mustRun(t, repo, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "from the host")
	mustRun(t, s.dir, "cp", s.key, filepath.Join(h.work, "id_ed25519"))
	mustRun(t, s.dir, "cp", s.knownHosts("ed25519", "git.example.org"), filepath.Join(h.work, "known_hosts"))
	p.same = map[string]string{"git@git.example.org:project": s.user + "@git.example.org:" + repo + " project"}
	return h
}

func withPostgres(t *testing.T, p *page) *house {
	db := newPostgres(t)
	h := newHouse(t, fmt.Sprintf("\n[[upstream]]\nhost = \"db.example.org\"\nport = 5432\ndial = \"127.0.0.1:%d\"\nca = %q\n", db.port, db.ca))
	h.write("address", "postgresql://app:"+rolePassword+"@db.example.org/app")
	p.same = map[string]string{"psql ": psql}
	return h
}

// standsFor is torno as the pages' reader has it: on a machine with QEMU, an image and the programs that the pages name. The test
// has namespaces, and those programs where make client-deps has put them.
const standsFor = `#!/bin/sh
[ "$1" = run ] || exec %[1]s/torno "$@"
shift
i=$#
while [ $i -gt 0 ]; do
	word=$1; shift; i=$((i - 1)); set -- "$@" "$word"
	[ "$word" = -- ] && [ -z "$seen" ] || continue
	seen=1
	case $1 in
	claude) shift; i=$((i - 1)); set -- "$@" sh -c 'cd "$HOME" && exec "$0" "$@"' %[2]s/node/node_modules/@anthropic-ai/claude-code-linux-x64/claude ;;
	codex) shift; i=$((i - 1)); set -- "$@" env PYTHONPATH=%[2]s/python /usr/bin/python3 codex.py ;;
	python3) shift; i=$((i - 1)); lib=%[2]s/python; [ "$1" != bucket.py ] || lib=  # Debian's boto3 goes with Debian's libraries
		set -- "$@" env PYTHONPATH=$lib /usr/bin/python3 ;;
	esac
done
[ -d %[2]s ] && set -- --mount-ro %[2]s "$@"
exec %[1]s/torno run --isolation namespace "$@"
`

// TestPages runs every command of every page.
func TestPages(t *testing.T) {
	for _, p := range pages {
		t.Run(strings.TrimSuffix(filepath.Base(p.file), ".md"), func(t *testing.T) { p.run(t) })
	}
}

// block is a fenced block: its language, a file's name behind it, and the text.
var block = regexp.MustCompile("(?ms)^```(\\w+)(?: (\\S+))?\n(.*?)^```")

func (p *page) run(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("../docs", p.file))
	if err != nil {
		t.Fatal(err)
	}
	h := p.house(t, p)
	installed, err := filepath.Abs("../.cache/clients")
	if err != nil {
		t.Fatal(err)
	}
	programs := filepath.Join(h.dir, "programs")
	if err := os.Mkdir(programs, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(programs, "torno"), fmt.Appendf(nil, standsFor, bin, installed), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range p.files {
		h.write(name, content)
		if filepath.Ext(name) != ".py" { // which the workload reads
			if err := os.Chmod(filepath.Join(h.work, name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	commands := 0
	for _, b := range block.FindAllStringSubmatch(string(text), -1) {
		if b[2] != "" {
			h.write(b[2], b[3])
			continue
		}
		if b[1] != "console" {
			continue
		}
		for _, step := range strings.Split("\n"+b[3], "\n$ ")[1:] {
			command, want, _ := strings.Cut(step, "\n")
			commands++
			if got, err := p.command(t, h, programs, command); err != nil || !shown(want).MatchString(got) {
				t.Fatalf("$ %s\n%s%v, want\n%s", command, got, err, want)
			}
		}
	}
	if commands < p.least {
		t.Errorf("%d commands were run, at least %d are there", commands, p.least)
	}
}

// command runs one command of a page, as its reader would.
func (p *page) command(t *testing.T, h *house, programs, command string) (string, error) {
	for from, to := range p.same {
		command = strings.ReplaceAll(command, from, to)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", command)
	cmd.Dir = h.work
	cmd.Env = append(h.command("version").Env, "PATH="+programs+":/usr/local/bin:/usr/bin:/bin")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return strings.ReplaceAll(out.String(), "\r\n", "\n"), err
}

// shown matches output as a page shows it.
func shown(want string) *regexp.Regexp {
	var pattern strings.Builder
	for line := range strings.Lines(strings.TrimRight(want, "\n")) {
		line = strings.TrimRight(line, "\n")
		if line == "…" {
			pattern.WriteString(`(?:.*\n)*`)
			continue
		}
		pattern.WriteString(strings.ReplaceAll(regexp.QuoteMeta(line), "…", ".*") + `\n`)
	}
	return regexp.MustCompile(`\A` + pattern.String() + `\z`)
}

// What a page shows is compared, and not only looked at.
func TestShown(t *testing.T) {
	for _, test := range []struct {
		want, got string
		ok        bool
	}{
		{"a\n", "a\n", true}, {"a\n", "b\n", false}, {"a …c\n", "a b c\n", true}, {"a …c\n", "a b\nc\n", false},
		{"…\n", "a\nb\n", true}, {"…\n", "", true}, {"a\n…\nz\n", "a\nb\nz\n", true}, {"a\n…\n", "b\nc\n", false}, {"", "a\n", false}, {"a\n", "a\nb\n", false},
	} {
		if got := shown(test.want).MatchString(test.got); got != test.ok {
			t.Errorf("%q shows %q: %v", test.want, test.got, got)
		}
	}
}
