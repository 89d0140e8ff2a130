package main_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A runtime is one way to make TLS connections, with roots found in its own way. URL and @CACHE in its script stand for
// what to get and where make client-deps put packages.
type runtime struct {
	name   string
	needs  string // a program, or a path below .cache
	script string
}

const (
	nodeGet = ` -e 'fetch("URL").then(r => r.text()).then(t => process.stdout.write(t), e => { console.error(e.cause ?? e); process.exit(1) })'`
	javaGet = `import java.net.*; import java.net.http.*;
public class Get { public static void main(String[] a) throws Exception {
System.out.print(HttpClient.newHttpClient().send(HttpRequest.newBuilder(URI.create(a[0])).build(), HttpResponse.BodyHandlers.ofString()).body()); } }`
)

var runtimes = []runtime{
	{"curl", "curl", `curl -sS URL`},
	{"wget", "wget", `wget -qO- URL`},
	{"openssl s_client's roots", "openssl", `h=${1#https://}; h=${h%%/*}; printf 'GET /hello HTTP/1.0\r\nHost: %s\r\n\r\n' "$h" | openssl s_client -quiet -verify_return_error -verify_quiet -connect "$h$PORT" -servername "${h%%:*}" 2>/dev/null | tail -1`},
	{"Python urllib", "/usr/bin/python3", `/usr/bin/python3 -c 'import urllib.request as u; print(u.urlopen("URL").read().decode(), end="")'`},
	{"Python requests, system's", "/usr/bin/python3", `/usr/bin/python3 -c 'import requests; print(requests.get("URL").text, end="")'`},
	{"Python httpx2, of PyPI", "clients/python/httpx2", `PYTHONPATH=@CACHE/clients/python /usr/bin/python3 -c 'import httpx2; print(httpx2.get("URL").text, end="")'`},
	{"Node, system's", "node", `node` + nodeGet},
	{"Node 22", "runtimes/node_modules/node22/bin/node", `@CACHE/runtimes/node_modules/node22/bin/node` + nodeGet},
	{"Node 24", "runtimes/node_modules/node24/bin/node", `@CACHE/runtimes/node_modules/node24/bin/node` + nodeGet},
	{"Deno", "runtimes/node_modules/@deno/linux-x64-glibc/deno", `DENO_DIR=$(mktemp -d) @CACHE/runtimes/node_modules/@deno/linux-x64-glibc/deno eval --no-config 'await Deno.stdout.write(new Uint8Array(await (await fetch("URL")).arrayBuffer()))'`},
	{"Bun", "runtimes/node_modules/@oven/bun-linux-x64/bin/bun", `@CACHE/runtimes/node_modules/@oven/bun-linux-x64/bin/bun -e 'process.stdout.write(await (await fetch("URL")).text())'`},
	{"Java", "java", `d=$(mktemp -d) && cat > $d/Get.java <<'EOF' && java $d/Get.java URL
` + javaGet + `
EOF`},
	{"Ruby", "ruby", `ruby -ropen-uri -e 'print URI.open("URL").read'`},
	{"PHP", "php", `php -r 'echo file_get_contents("URL");'`},
	{"Perl", "/usr/bin/perl", `/usr/bin/perl -MLWP::UserAgent -e '$r = LWP::UserAgent->new->get("URL"); $r->is_success or die $r->status_line; print $r->content'`},
	{"git", "git", `git ls-remote GITURL >/dev/null && echo "ok GET /hello"`},
}

// TestTrust runs what is installed here through a session: each must accept the session's certificates. The control is the
// same client outside, at a server whose CA nobody trusts: it must refuse.
func TestTrust(t *testing.T) {
	cache, err := filepath.Abs("../.cache")
	if err != nil {
		t.Fatal(err)
	}
	h := newAgentHouse(t)
	for _, r := range runtimes {
		t.Run(r.name, func(t *testing.T) {
			r.find(t, cache)
			script := strings.NewReplacer("GITURL", "https://git.example.org/demo.git", "URL", "https://files.example.org/hello", "@CACHE", cache, "$PORT", ":443").Replace(r.script)
			got := h.withClients(cache, "/bin/sh", "-c", `cd "$HOME" && `+script, "sh", "https://files.example.org/hello")
			if got.stdout != "ok GET /hello\n" {
				t.Errorf("stdout %q, exit %d, stderr %q", got.stdout, got.code, got.stderr)
			}
			url := strings.Replace(h.upstream.URL, "127.0.0.1", "localhost", 1)
			script = strings.NewReplacer("GITURL", url+"/demo.git", "URL", url+"/hello", "@CACHE", cache, "$PORT", "").Replace(r.script)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, "/bin/sh", "-c", script, "sh", url+"/hello")
			var out bytes.Buffer
			cmd.Stdout = &out
			if _ = cmd.Run(); strings.Contains(out.String(), "ok GET /hello") {
				t.Errorf("the control: outside it believes a CA that nobody knows: %q", &out)
			}
		})
	}
}

// find skips a runtime that is not installed, unless all are wanted.
func (r runtime) find(t *testing.T, cache string) {
	t.Helper()
	_, err := exec.LookPath(r.needs)
	if strings.Contains(r.needs, "/") && !filepath.IsAbs(r.needs) {
		_, err = os.Stat(filepath.Join(cache, r.needs))
	}
	switch {
	case err == nil:
	case os.Getenv("TORNO_CLIENTS") == "all":
		t.Fatalf("%s is not installed (make test-clients installs it)", r.needs)
	default:
		t.Skipf("%s is not installed (try: make test-clients)", r.needs)
	}
}
