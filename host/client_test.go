package main_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// clients returns the directory that make client-deps fills.
func clients(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../.cache/clients")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node")); err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the client packages are not installed (make client-deps)")
		}
		t.Skip("the client packages are not installed (try: make client-deps)")
	}
	return dir
}

// withClients runs command with the client packages mounted at /clients.
func (h *house) withClients(dir string, command ...string) result {
	h.t.Helper()
	return h.torno(append([]string{"run", "--agent", "my-agent", "--isolation", "namespace", "--trust-config", "--mount-ro", dir, "--"}, command...)...)
}

const placeholders = agentFile + `
[secret.ANTHROPIC_API_KEY]
placeholder = true

[secret.OPENAI_API_KEY]
placeholder = true
`

func TestClientCommands(t *testing.T) {
	h := newAgentHouse(t)
	for name, script := range map[string]string{
		"curl":       `curl -sS https://files.example.org/hello`,
		"wget":       `wget -qO- https://files.example.org/hello`,
		"urllib":     `/usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen("https://files.example.org/hello").read().decode(), end="")'`,
		"httpx":      `/usr/bin/python3 -c 'import httpx; print(httpx.get("https://files.example.org/hello").text, end="")'`,
		"fetch":      `node -e 'fetch("https://files.example.org/hello").then(r => r.text()).then(t => process.stdout.write(t))'`,
		"proxy":      `curl -sS --proxy "$TORNO_PROXY" https://files.example.org/hello`,
		"proxy http": `curl -sS --proxy "$TORNO_PROXY" -o /dev/null -w '%{http_code}' http://files.example.org/hello | grep -q 403 && echo "ok GET /hello"`,
	} {
		t.Run(name, func(t *testing.T) {
			if r := h.sh(script); r.stdout != "ok GET /hello\n" {
				t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
			}
		})
	}
}

func TestClientGit(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`cd "$HOME" && git clone -q https://git.example.org/demo.git && cat demo/README`)
	if r.stdout != "cloned through the hatch\n" {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

func TestClientGo(t *testing.T) {
	h := newAgentHouse(t)
	dir := t.TempDir()
	src := filepath.Join(dir, "get.go")
	if err := os.WriteFile(src, []byte(`package main

import (
	"io"
	"net/http"
	"os"
)

func main() {
	resp, err := http.Get("https://files.example.org/hello")
	if err != nil {
		panic(err)
	}
	io.Copy(os.Stdout, resp.Body)
}
`), 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, dir, "go", "build", "-o", filepath.Join(h.work, "get"), src)
	if r := h.run("./get"); r.stdout != "ok GET /hello\n" {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

func TestClientPythonSDKs(t *testing.T) {
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", placeholders)
	h.write("sdk.py", `import sys
sys.path.insert(0, "`+dir+`/python")
import anthropic, openai
m = anthropic.Anthropic().messages.create(model="claude-sonnet-4-20250514", max_tokens=64, messages=[{"role": "user", "content": "Hello"}])
print(m.content[0].text)
with anthropic.Anthropic().messages.stream(model="claude-sonnet-4-20250514", max_tokens=64, messages=[{"role": "user", "content": "Hello"}]) as s:
    print("".join(s.text_stream).strip())
print(openai.OpenAI().chat.completions.create(model="m", messages=[{"role": "user", "content": "Hello"}]).choices[0].message.content)
`)
	r := h.withClients(dir, "/usr/bin/python3", "sdk.py")
	if want := strings.Repeat("Hello from behind the hatch.\n", 3); r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

func TestClientNodeSDKs(t *testing.T) {
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", placeholders)
	h.write("sdk.cjs", `const modules = "`+dir+`/node/node_modules/";
const Anthropic = require(modules + "@anthropic-ai/sdk");
const OpenAI = require(modules + "openai");
(async () => {
  const a = await new Anthropic().messages.create({model: "claude-sonnet-4-20250514", max_tokens: 64, messages: [{role: "user", content: "Hello"}]});
  console.log(a.content[0].text);
  const o = await new OpenAI().chat.completions.create({model: "m", messages: [{role: "user", content: "Hello"}]});
  console.log(o.choices[0].message.content);
})();
`)
	r := h.withClients(dir, "node", "sdk.cjs")
	if want := strings.Repeat("Hello from behind the hatch.\n", 2); r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// The agent itself: one prompt, answered by a canned streaming upstream.
func TestClientClaude(t *testing.T) {
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", placeholders)
	claude := filepath.Join(dir, "node/node_modules/@anthropic-ai/claude-code-linux-x64/claude")
	if _, err := os.Stat(claude); err != nil {
		t.Fatal(err)
	}
	r := h.withClients(dir, "/bin/sh", "-c", `cd "$HOME" && exec "$0" -p "Say hello" --model claude-sonnet-4-20250514 </dev/null`, claude)
	if !strings.Contains(r.stdout, "Hello from behind the hatch.") {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// Events arrive one by one, not at the end: each is sent once the one before has arrived.
func TestClientEventsArriveOneByOne(t *testing.T) {
	h := newAgentHouse(t)
	r := h.run("/usr/bin/python3", "-c", `import requests
n = 0
with requests.get("https://files.example.org/sse", stream=True, timeout=60) as r:
    for line in r.iter_lines(chunk_size=1):
        if line:
            n += 1
            requests.get("https://files.example.org/sse/taken", timeout=60)
print(n)`)
	if r.stdout != "5\n" {
		t.Errorf("events: %q (stderr %q)", r.stdout, r.stderr)
	}
}

// 1 GiB each way, equal hashes, flat memory in the guest and the broker.
func TestClientBulk(t *testing.T) {
	h := newAgentHouse(t)
	size := "1073741824"
	if testing.Short() {
		t.Skip("moves 2 GiB; run without -short")
	}
	start := time.Now()
	r := h.sh(`set -e
curl -sS https://files.example.org/bytes/` + size + ` | sha256sum | cut -c1-64
head -c ` + size + ` /dev/zero | sha256sum | cut -c1-64
head -c ` + size + ` /dev/zero | curl -sS -T - -X POST https://files.example.org/sink`)
	t.Logf("2 GiB in %v", time.Since(start))
	lines := strings.Fields(r.stdout)
	if len(lines) != 5 || lines[0] != patternHash(1<<30) || lines[2] != size || lines[3] != lines[1] {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if hwm := peakMemory(t, h.serve.Process.Pid); hwm > 96<<20 {
		t.Errorf("the broker's memory peaked at %d MiB, want at most 96", hwm>>20)
	}
}
