package main_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

// The rows of what was asked for, each by its name.

const agentFile = `name = "my-agent"
secrets = ["ANTHROPIC_API_KEY", "OPENAI_API_KEY", "DATABASE_URL"]

[egress]
allow = ["GET files.example.org", "POST files.example.org/sink", "git.example.org"]
deny = ["files.example.org/forbidden"]
`

// newAgentHouse is a house with the usual secrets and agent file.
func newAgentHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, "")
	h.secrets()
	h.write("torno.toml", agentFile)
	return h
}

// S1, S8: several secrets in one command; the exposed one is said to be visible.
func TestMissionS1SetSeveral(t *testing.T) {
	h := newHouse(t, "")
	r := h.torno("secrets", "set", "my-agent", "ANTHROPIC_API_KEY="+anthropicKey, "OPENAI_API_KEY="+openaiKey, "DATABASE_URL=postgresql://app@db/app")
	if r.code != 0 {
		t.Fatalf("exit %d: %s", r.code, r.stderr)
	}
	all := r.stdout + r.stderr
	for _, want := range []string{"ps", "DATABASE_URL: visible inside the VM"} {
		if !strings.Contains(all, want) {
			t.Errorf("output lacks %q:\n%s", want, all)
		}
	}
	if strings.Contains(all, anthropicKey) || strings.Contains(all, openaiKey) {
		t.Error("a value is echoed")
	}
	if r := h.tornoIn("from-stdin-0123456789abcdef\n", "secrets", "set", "my-agent", "OPENAI_API_KEY=-"); r.code != 0 {
		t.Errorf("from standard input: %s", r.stderr)
	}
	h.write("key", "from-file-0123456789abcdef\n")
	if r := h.torno("secrets", "set", "my-agent", "OPENAI_API_KEY=@key"); r.code != 0 {
		t.Errorf("from a file: %s", r.stderr)
	}
}

// S3: Anthropic gets x-api-key, OpenAI a bearer token, by presets that the secret's name selects.
func TestMissionS3Presets(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`curl -sS -o /dev/null -w '%{http_code}\n' https://api.anthropic.com/v1/models
curl -sS -o /dev/null -w '%{http_code}\n' -d '{}' https://api.openai.com/v1/chat/completions`)
	if r.stdout != "200\n200\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", r.code, r.stdout, r.stderr)
	}
}

// S3: the services' own redirects to where they keep large files work without a rule, and without the credential.
func TestMissionS3Redirects(t *testing.T) {
	h := newHouse(t, "")
	h.must("secrets", "set", "my-agent", "GITHUB_TOKEN="+githubToken, "HF_TOKEN=hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678")
	for from := range redirects {
		if r := h.sh("curl -sSL -r 0-9 https://" + from); r.stdout != "content, credentials: 0, range: \"bytes=0-9\"\n" {
			t.Errorf("%s: %q, stderr %q", from, r.stdout, r.stderr)
		}
	}
}

// S4: a field of one's own, bound to a host; without one the corrected command is printed.
func TestMissionS4CustomHeader(t *testing.T) {
	h := newHouse(t, "")
	r := h.torno("secrets", "set", "my-agent", "CUSTOM_API_SECRET="+customKey, "--header", "X-Custom-Auth: {CUSTOM_API_SECRET}")
	if r.code != 2 || !strings.Contains(r.stderr, "--host") || strings.Contains(r.stderr, customKey) {
		t.Errorf("without a host: exit %d, stderr %q; want 2 and the corrected command without the value", r.code, r.stderr)
	}
	h.must("secrets", "set", "my-agent", "CUSTOM_API_SECRET="+customKey, "--header", "X-Custom-Auth: {CUSTOM_API_SECRET}", "--host", "api.example.org")
	if r := h.sh("curl -sS https://api.example.org/"); r.stdout != "credential: right\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// S5: names are listed, values never; delete deletes.
func TestMissionS5ListAndDelete(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	for _, args := range [][]string{{"secrets", "list", "my-agent"}, {"secrets", "list", "my-agent", "--json"}} {
		out := h.must(args...)
		if !strings.Contains(out, "ANTHROPIC_API_KEY") || strings.Contains(out, anthropicKey) || strings.Contains(out, "postgresql") {
			t.Errorf("torno %q:\n%s", args, out)
		}
	}
	h.must("secrets", "delete", "my-agent", "ANTHROPIC_API_KEY")
	if out := h.must("secrets", "list", "my-agent"); strings.Contains(out, "ANTHROPIC_API_KEY") {
		t.Errorf("still listed:\n%s", out)
	}
	if r := h.torno("secrets", "delete", "my-agent", "ANTHROPIC_API_KEY"); r.code != 1 {
		t.Errorf("deleting twice: exit %d, want 1", r.code)
	}
}

// S7: agent A's key never serves agent B.
func TestMissionS7AgentsAreApart(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	h.must("secrets", "set", "other", "ANTHROPIC_API_KEY=sk-ant-api03-this-is-not-the-right-key-0123456789")
	call := []string{"--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "https://api.anthropic.com/v1/models"}
	for agent, want := range map[string]string{"my-agent": "200", "other": "401", "nobody": "403"} {
		r := h.torno(append([]string{"run", "--agent", agent, "--isolation", "namespace"}, call...)...)
		if r.stdout != want {
			t.Errorf("%s: status %q, want %s (stderr %q)", agent, r.stdout, want, r.stderr)
		}
	}
}

// S8, S10: the exposed secret is a variable; the proxied ones are not.
func TestMissionS10NoVariable(t *testing.T) {
	h := newAgentHouse(t)
	r := h.run("/usr/bin/python3", "-c", `import os
print(os.environ.get("ANTHROPIC_API_KEY"))
print(os.environ["DATABASE_URL"])
print([k for k in os.environ if k.lower() in ("http_proxy", "https_proxy", "all_proxy")])`)
	if want := "None\npostgresql://app@db/app\n[]\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
}

// S9: a declared secret that is not set stops the run with its name.
func TestMissionS9MissingSecret(t *testing.T) {
	h := newAgentHouse(t)
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"STRIPE_SECRET_KEY\"]\n")
	r := h.run("true")
	if r.code != 125 || !strings.Contains(r.stderr, "STRIPE_SECRET_KEY") || !strings.Contains(r.stderr, "torno secrets set") {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
}

// S11: the document's own program, unchanged.
func TestMissionS11Requests(t *testing.T) {
	h := newAgentHouse(t)
	h.write("agent.py", `import os
import requests

print(os.environ.get("ANTHROPIC_API_KEY"))
response = requests.post(
    "https://api.anthropic.com/v1/messages",
    json={
        "model": "claude-sonnet-4-20250514",
        "max_tokens": 1024,
        "messages": [{"role": "user", "content": "Hello"}]
    }
)
print(response.json()["content"][0]["text"])
print("x-api-key" in {k.lower() for k in response.request.headers})
`)
	r := h.run("/usr/bin/python3", "agent.py")
	if want := "None\nHello from behind the hatch.\nFalse\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q (exit %d, stderr %q)", r.stdout, want, r.code, r.stderr)
	}
}

// S12: a client made at import time works, for the guest is ready before the first instruction.
func TestMissionS12PlaceholderForSDKs(t *testing.T) {
	h := newAgentHouse(t)
	h.write("torno.toml", agentFile+"\n[secret.ANTHROPIC_API_KEY]\nplaceholder = true\n")
	r := h.sh(`echo "$ANTHROPIC_API_KEY"; curl -sS -o /dev/null -w '%{http_code}\n' -H "x-api-key: $ANTHROPIC_API_KEY" https://api.anthropic.com/v1/models
curl -sS -o /dev/null -D - -H "Authorization: Bearer $ANTHROPIC_API_KEY" https://api.openai.com/v1/models | grep -i torno-reason`)
	lines := strings.Split(r.stdout, "\n")
	if len(lines) < 3 || !strings.HasPrefix(lines[0], "sk-ant-") || lines[0] == anthropicKey || lines[1] != "200" ||
		!strings.Contains(lines[2], "placeholder_blocked") {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// S13: what tools print, errors and debug logs hold no credential, also where the host repeats it.
func TestMissionS13OutputsAndErrors(t *testing.T) {
	h := newHouse(t, "")
	h.must("secrets", "set", "my-agent", "CUSTOM_API_SECRET="+customKey, "--header", "X-Custom-Auth: {CUSTOM_API_SECRET}", "--host", "api.example.org")
	r := h.sh(`curl -sv https://api.example.org/debug 2>&1
/usr/bin/python3 - <<'EOF'
import http.client, logging, requests
http.client.HTTPConnection.debuglevel = 1
logging.basicConfig(level=logging.DEBUG)
try:
    r = requests.get("https://api.example.org/debug")
    print(r.headers, r.text)
    r.raise_for_status()
except requests.HTTPError as e:
    print("error:", e, e.response.text)
EOF`)
	all := r.stdout + r.stderr
	if strings.Count(all, "Traceback") != 3 || strings.Count(all, "****") < 12 {
		t.Fatalf("the echo did not come through: exit %d, %q", r.code, all)
	}
	for name, form := range map[string]string{
		"raw": customKey, "hex": hex.EncodeToString([]byte(customKey)), "base64": base64.StdEncoding.EncodeToString([]byte("key:" + customKey)),
	} {
		const run = 12
		for i := 0; i+run <= len(form); i++ {
			if piece := form[i : i+run]; piece != "" && name == "raw" && strings.Contains(all, piece) {
				t.Fatalf("%d bytes of the key are in the output", run)
			}
		}
		if strings.Contains(all, form) {
			t.Errorf("the key is in the output, %s", name)
		}
	}
}

// A refused call is a real HTTP answer with its reason, and the audit says why.
func TestRefusalIsHTTP(t *testing.T) {
	h := newAgentHouse(t)
	for _, c := range []struct{ url, status, reason string }{
		{"https://evil.example.net/", "403", "denied"},
		{"https://files.example.org/forbidden", "403", "denied_by_rule"},
		{"http://api.anthropic.com/v1/models", "403", "insecure_scheme"},
		{"https://torno.invalid/", "403", "self_test"},
	} {
		r := h.sh(fmt.Sprintf(`curl -sS -D - -o /dev/null %s`, c.url))
		if !strings.Contains(r.stdout, " "+c.status+" ") || !strings.Contains(r.stdout, "torno-reason: "+c.reason+"\r\n") {
			t.Errorf("%s: want %s %s, got %q (stderr %q)", c.url, c.status, c.reason, r.stdout, r.stderr)
		}
	}
	if n := h.upstream.count("GET evil.example.net /"); n != 0 {
		t.Errorf("%d refused requests reached the upstream", n)
	}
	if out := h.must("audit", "tail", "--last", "20"); !strings.Contains(out, "evil.example.net") || !strings.Contains(out, "denied") {
		t.Errorf("the audit does not say why:\n%s", out)
	}
	if out := h.must("audit", "verify"); out == "" {
		t.Error("audit verify says nothing")
	}
}

// The workload's own exit code comes through, and torno's are apart from it.
func TestExitCodes(t *testing.T) {
	h := newAgentHouse(t)
	for _, c := range []struct {
		script string
		code   int
	}{{"exit 0", 0}, {"exit 7", 7}, {"kill -TERM $$", 143}, {"exit 125", 125}} {
		if r := h.sh(c.script); r.code != c.code {
			t.Errorf("%q: exit %d, want %d (stderr %q)", c.script, r.code, c.code, r.stderr)
		}
	}
	if r := h.run("/no/such/program"); r.code != 127 {
		t.Errorf("missing program: exit %d, want 127 (stderr %q)", r.code, r.stderr)
	}
	if r := h.run("/etc/hostname"); r.code != 126 {
		t.Errorf("a file that is no program: exit %d, want 126 (stderr %q)", r.code, r.stderr)
	}
}

// Standard streams are binary clean and whole.
func TestStdio(t *testing.T) {
	h := newAgentHouse(t)
	var in strings.Builder
	for i := range 100_000 {
		in.WriteByte(byte(i))
		in.WriteByte(byte(i >> 8))
	}
	r := h.tornoIn(in.String(), "run", "--agent", "my-agent", "--isolation", "namespace", "--trust-config", "--",
		"/bin/sh", "-c", "cat; echo err >&2")
	if r.stdout != in.String() {
		t.Errorf("standard output: %d bytes, want %d, the same", len(r.stdout), in.Len())
	}
	if !strings.Contains(r.stderr, "err\n") {
		t.Errorf("standard error: %q", r.stderr)
	}
}
