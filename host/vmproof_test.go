package main_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A scheme is one way in which a secret reaches a host that repeats it.
type scheme struct {
	name, value string
	path        string // what the workload asks for
	set         []string
	proof       string // field that a signature stands in: the secret itself never goes, and the host repeats what it knows of it
}

const echoHost = ".echo.example.net"

// schemes are all that there are. Each has a host of its own: name and echoHost.
var schemes = []scheme{
	{"bearer", "bearer-3f1d8a6c0b9e47d2a5c8e1f6b4d7092a", "/", nil, ""},
	{"header", "header-7c2e9b4f1a8d63e05b7f2c9d6a1e48b3", "/", []string{"--header", "X-Custom-Auth: {KEY}"}, ""},
	{"basic", "basic-a94c1e7f3b8d02e6c5f9a1d7b3e8406c", "/", []string{"--as", "basic:user=me"}, ""},
	{"template", "template-5e8b2d7f9c1a46e3d0b8f5a2c7e9146d", "/", []string{"--as", "basic:template={KEY}:"}, ""},
	{"query", "query-c6d1f8a3e7b94052c8d6f1a9e3b7405d", "/?a=1", []string{"--as", "query:name=key"}, ""},
	{"path", "path-1b7e4c9f2d8a56e3b0c7f4d1a9e8263b", "/bot/send", []string{"--as", "path:template=/bot{KEY}/"}, ""},
	{"cookie", "cookie-8d2f6a1c9e4b73d0f5a8c2e6b1d9407f", "/", []string{"--as", "cookie:name=sid"}, ""},
	{"hmac", "hmac-2f6b9d1e8c4a73f05d2b9e6c1a8f4d70", "/", []string{"--as", "hmac:preset=stripe"}, "Stripe-Signature"},
	{"rfc9421", "rfc9421-6e1c8f3a9d5b40e27c6f1a8d3b9e5072", "/", []string{"--as", "rfc9421:alg=hmac-sha256,keyid=k1"}, "Signature"},
	{"sigv4", "AKIAECHO000000000001:4d9a7e2c6f1b83d05a9e7c2f4b6d1a8e3c5f7092", "/a", []string{"--as", "sigv4:service=s3,region=eu-central-1"}, "X-Amz-Date"},
	{"azure", "OGYyZDdiNGM5ZTFhNmYzZDBiNWM4ZTdhMmY5ZDRiNmMxZThhM2Y3ZDViMGM=", "/c", []string{"--as", "azure-storage:account=echo"}, "X-Ms-Date"},
	{"jwt", "jwt-b3e8d1f6a9c24e70b5d8f3a1c6e9724d", "/", []string{"--as", "jwt:alg=HS256,iss=me"}, "Authorization"},
	{"jwtrequest", "jwtrequest-9c4f7b2e6d1a8350f9c4b7e2d6a1835f", "/", []string{"--as", `jwt-request:alg=HS256,claims={"req":"{method} {url}"}`}, "Authorization"},
}

// known is what the host of a scheme that signs knows of the secret.
func (s scheme) known() string {
	if s.proof == "" {
		return ""
	}
	_, key, ok := strings.Cut(s.value, ":")
	if !ok {
		key = s.value
	}
	return key
}

// repeat answers with the whole request and what else it knows, as it stands and in what else programs write it in.
func repeat(w http.ResponseWriter, r *http.Request, known string) {
	all := r.RequestURI + "\n" + known + "\n"
	for name, values := range r.Header {
		all += name + ": " + strings.Join(values, ", ") + "\n"
	}
	if user, password, ok := r.BasicAuth(); ok {
		all += user + ":" + password + "\n"
	}
	quoted, _ := json.Marshal(all)
	w.Header().Set("X-Seen", strings.ReplaceAll(all, "\n", " "))
	for _, text := range []string{
		all, base64.StdEncoding.EncodeToString([]byte(all)), base64.RawURLEncoding.EncodeToString([]byte("1" + all)), fmt.Sprintf("%x", all),
		fmt.Sprintf("%X", all), url.QueryEscape(all), string(quoted), html.EscapeString(all),
	} {
		fmt.Fprintln(w, text)
	}
}

// Attack 8: the memory is searched while the workload makes calls to hosts that repeat every credential, under every
// scheme and in many encodings, and at the end. Beside those that send a secret are those that sign with one or mint tokens with
// it, and the metadata services of clouds.
func TestVMAttack8Proof(t *testing.T) {
	needVM(t)
	h, proving, others, more := newProvingHouse(t, reflecting)
	h.secrets()
	h.write("torno.toml", "")
	if err := os.Remove(filepath.Join(h.work, "torno.toml")); err != nil { // all secrets are in use then
		t.Fatal(err)
	}
	for _, s := range schemes {
		key := "ECHO_" + strings.ToUpper(s.name)
		args := []string{"secrets", "set", "my-agent", key + "=" + s.value, "--host", s.name + echoHost}
		for _, a := range s.set {
			args = append(args, strings.ReplaceAll(a, "KEY", key))
		}
		h.must(args...)
	}
	var urls []string
	for _, s := range schemes {
		urls = append(urls, "https://"+s.name+echoHost+s.path)
	}
	list, err := json.Marshal(urls)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(h.dir, "proof.json")
	r := h.runWith([]string{"--proof-file", file, "--memory", "512M"}, "/usr/bin/python3", "-c", `import collections, json, requests, time
`+metadataScript+`
more = `+pythonList(more)+`
urls, s, masked = json.loads('`+string(list)+`'), requests.Session(), collections.Counter()
until, n = time.monotonic() + 8, 0
while time.monotonic() < until or n <= 5 * len(urls):
    for url in urls:
        r = s.get(url); n += 1
        masked[url.split("/")[2].split(".")[0]] += r.status_code == 200 and r.text.count("*" * 20) >= 8 and "*" * 20 in r.headers["x-seen"]
    bad = metadata(s) + sum(s.get(url).status_code != 200 for url in more)
    assert bad == 0, bad
print(min(masked.values()) * len(masked) == n, len(masked))`)
	proofs := readProofs(t, file)
	if want := fmt.Sprintf("True %d\n", len(schemes)); r.code != 0 || r.stdout != want || len(proofs) < 2 {
		t.Fatalf("exit %d, %d proofs, stdout %q, want %q (stderr %q)", r.code, len(proofs), r.stdout, want, r.stderr)
	}
	for i, p := range proofs {
		if p.Outcome != "clean" || !p.Control || p.Secrets < 2+len(schemes)+len(others) || p.Present < 32<<20 {
			t.Errorf("proof %d: %+v", i, p)
		}
	}
	proving.check(t, others)
	for _, s := range schemes { // the control: they did get it
		if n := h.upstream.count("credential " + s.name); n <= 5 {
			t.Errorf("%s%s got its secret %d times", s.name, echoHost, n)
		}
	}
}

type proofResult struct {
	Outcome string `json:"outcome"`
	Control bool   `json:"control"`
	Secrets int    `json:"secrets"`
	Present int64  `json:"present"`
}

func readProofs(t *testing.T, file string) (proofs []proofResult) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &proofs)
	}
	if err != nil {
		t.Fatal(err)
	}
	return proofs
}

// A guest that does hold a secret is caught, the run fails and the session is suspended.
func TestVMAttack8LeakIsCaught(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	leaky := filepath.Join(h.dir, "leaky-guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-X main.version="+anthropicKey, "-o", leaky, "../guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	file := filepath.Join(h.dir, "proof.json")
	r := h.runWith([]string{"--guest", leaky, "--proof-file", file}, "true")
	proofs := readProofs(t, file)
	if r.code != 125 || len(proofs) == 0 || proofs[len(proofs)-1].Outcome != "leak" {
		t.Errorf("exit %d, proofs %+v, stderr %q", r.code, proofs, r.stderr)
	}
	if out := h.must("audit", "tail", "--last", "20"); !strings.Contains(out, "proof_leak") {
		t.Errorf("the audit does not tell:\n%s", out)
	}
	if strings.Contains(r.stderr+r.stdout, anthropicKey[20:40]) {
		t.Error("the secret is in what torno printed")
	}
}
