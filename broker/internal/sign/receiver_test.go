package sign

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
)

// clientPackage returns the directory of somebody else's package that is installed for tests.
func clientPackage(t *testing.T, name string) string {
	t.Helper()
	dir, err := filepath.Abs("../../../.cache/clients/" + name)
	if err == nil {
		_, err = os.Stat(dir)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the client packages are not installed (make client-deps)")
		}
		t.Skip("the client packages are not installed (try: make client-deps)")
	}
	return dir
}

// ask runs a program that reads v in JSON, and returns the words that it prints.
func ask(t *testing.T, cmd *exec.Cmd, v any) []string {
	t.Helper()
	in, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), &said
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, said.String())
	}
	return strings.Fields(string(out))
}

// A received is what the receivers' programs read.
type received struct {
	Preset  string            `json:"preset"`
	Value   string            `json:"value"`
	URL     string            `json:"url"`
	Content string            `json:"content"`
	Headers map[string]string `json:"headers"`
}

// receive signs a delivery at a time.
func receive(t *testing.T, preset, kind, content string, at time.Time) received {
	t.Helper()
	value := verifiers[preset].value
	r := &Request{Method: "POST", Host: "hooks.example.org", Target: "/a%20b?q=1&r=%2F", Content: []byte(content), Whole: true,
		Fields: protocol.Fields{{Name: "content-type", Value: kind}}}
	fields, err := signMessageAt(hmacSigner(t, "hmac:preset="+preset), value, r, at)
	if err != nil {
		t.Fatal(err)
	}
	d := received{preset, value, "https://" + r.Host + r.Target, content, map[string]string{}}
	for _, f := range fields {
		if f.Name == Target {
			d.URL = "https://" + r.Host + f.Value
			continue
		}
		d.Headers[f.Name] = f.Value
	}
	return d
}

// deliveries are, for each preset, one that is right and some that have one thing wrong, and what receivers say to each.
func deliveries(t *testing.T, presets ...string) (all []received, want []string) {
	t.Helper()
	now := time.Now()
	for _, preset := range presets {
		kind, content := "application/json", `{"id":"evt_1","object":"event","data":"ü & x"}`
		if preset == "twilio" {
			kind, content = "application/x-www-form-urlencoded", "Digits=1234&Body=%C3%BC+%26+x&A=2&A=1&A=2&To=%2B18005551212"
		}
		add := func(answer string, d received) { all, want = append(all, d), append(want, answer) }
		right := receive(t, preset, kind, content, now)
		add("true", right)
		other := right
		other.Content = strings.Replace(content, "1", "3", 1)
		add("false", other)
		other = right
		other.Value = "whsec_6WbX0hTa8bFY6pXTq5hX5v1wS3Wm6jyu"
		add("false", other)
		binds := verifiers[preset].binds
		if strings.Contains(binds, "time") {
			add("false", receive(t, preset, kind, content, now.Add(-time.Hour)))
		}
		if strings.Contains(binds, "query") {
			other = right
			other.URL = strings.Replace(right.URL, "q=1", "q=2", 1)
			add("false", other)
			other.URL = strings.Replace(right.URL, "/a", "/b", 1)
			add("false", other)
		}
	}
	return all, want
}

// TestReceivers has the packages of Slack, Stripe, Twilio and Standard Webhooks receive what presets sign.
func TestReceivers(t *testing.T) {
	packages := clientPackage(t, "python")
	all, want := deliveries(t, "slack", "stripe", "standard-webhooks", "twilio", "twilio-json")
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/receivers.py")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	got := ask(t, cmd, all)
	compareAnswers(t, all, want, got)
}

// octokit is a program for Node that receives as GitHub's own package does.
const octokit = `
import(process.argv[1] + "/@octokit/webhooks/dist-bundle/index.js").then(async ({Webhooks}) => {
  for (const d of JSON.parse(require("fs").readFileSync(0, "utf8")))
    console.log(await new Webhooks({secret: d.value}).verify(d.content, d.headers["x-hub-signature-256"]));
});
`

// TestReceiverGitHub has GitHub's package receive what its preset signs.
func TestReceiverGitHub(t *testing.T) {
	packages := clientPackage(t, "node/node_modules")
	all, want := deliveries(t, "github")
	compareAnswers(t, all, want, ask(t, exec.CommandContext(t.Context(), "node", "-e", octokit, packages), all))
}

func compareAnswers(t *testing.T, all []received, want, got []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d answers, want %d: %q", len(got), len(want), got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("%+v: %s, want %s", all[i], got[i], want[i])
		}
	}
}
