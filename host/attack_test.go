package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// The attacks that need the whole house. Those that one room can show stand in that room's tests.

// python runs a program in the guest as the workload.
func (h *house) python(program string) result {
	h.t.Helper()
	return h.run("/usr/bin/python3", "-c", program)
}

// The workload speaks to the broker itself: no AF_VSOCK, no socket file, no token.
func TestAttack1OwnChannel(t *testing.T) {
	h := newAgentHouse(t)
	r := h.python(`import socket, os
for family in (40, 17, 16, 38):   # VSOCK, PACKET, NETLINK (the control: allowed), ALG
    try:
        socket.socket(family, socket.SOCK_RAW if family == 16 else socket.SOCK_STREAM).close()
        print(family, "opened")
    except OSError as e:
        print(family, "refused")
for path in ("/run/torno/b", "/run/torno/r", "/run/torno-run/r"):
    try:
        s = socket.socket(socket.AF_UNIX); s.connect(path); print(path, "connected")
    except OSError as e:
        print("refused")`)
	if want := "40 refused\n17 refused\n16 opened\n38 refused\nrefused\nrefused\nrefused\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
}

// The workload looks at, or touches, the guest.
func TestAttack6Inspect(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`for f in mem environ maps exe cwd root fd/0; do
  if cat /proc/1/$f >/dev/null 2>&1 || ls /proc/1/$f/ >/dev/null 2>&1; then echo "leak $f"; fi
done
kill -0 1 2>/dev/null && echo "leak kill"
ls /proc/self/fd | wc -l
for f in /dev/mem /proc/kcore /dev/kmsg; do [ -e $f ] && head -c1 $f >/dev/null 2>&1 && echo "leak $f"; done
unshare -r true 2>/dev/null && echo "leak unshare"
mount -t tmpfs none /mnt 2>/dev/null && echo "leak mount"
[ "$(cat /proc/self/status | grep NoNewPrivs | cut -f2)" = 1 ] || echo "leak nnp"
grep CapEff /proc/self/status | cut -f2
ulimit -c`)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if strings.Contains(r.stdout, "leak") || len(lines) != 3 || lines[1] != "0000000000000000" || lines[2] != "0" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// The host's files that hold secrets are not there: home directories, torno's state, the shadow file.
func TestAttack6HostFiles(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(fmt.Sprintf(`ls -A /root 2>/dev/null | head -3; ls %s 2>/dev/null; cat /etc/shadow 2>/dev/null | head -1
touch /usr/x 2>/dev/null && echo "wrote /usr"; touch ./x 2>/dev/null && echo "wrote the work directory"
grep -c . /proc/net/dev`, h.dir+"/state"))
	if r.stdout != "3\n" { // two lines of heading and lo
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// One name in TLS, another in the request.
func TestAttack11Disagreement(t *testing.T) {
	h := newAgentHouse(t)
	for _, c := range []struct{ name, curl, want string }{
		{"host differs", `-H 'Host: evil.example.net' https://files.example.org/`, "421 misdirected"},
		{"host with port", `-H 'Host: files.example.org:8443' https://files.example.org/`, "421 misdirected"},
		{"userinfo in host", `-H 'Host: a@files.example.org' https://files.example.org/`, "400 "},
		{"connect in the tunnel", `-X CONNECT --request-target evil.example.net:443 https://files.example.org/`, "40"},
		{"absolute form elsewhere", `--request-target https://evil.example.net/ https://files.example.org/`, "421 misdirected"},
	} {
		r := h.sh(`curl -sS -o /dev/null -w '%{http_code} %header{torno-reason}\n' ` + c.curl)
		if strings.Contains(r.stdout, "%header") || r.stdout == "" {
			r = h.sh(`curl -sS -o /dev/null -D - ` + c.curl + ` | awk 'NR==1{s=$2} tolower($1)=="torno-reason:"{r=$2} END{gsub(/\r/,"",r); print s, r}'`)
		}
		if !strings.HasPrefix(r.stdout, c.want) {
			t.Errorf("%s: %q, want %q (stderr %q)", c.name, r.stdout, c.want, r.stderr)
		}
	}
	if n := h.upstream.count("GET evil.example.net /"); n != 0 {
		t.Errorf("%d requests reached the other host", n)
	}
}

// The name is right, the address an attacker's: the named host serves, the audit keeps the address.
func TestAttack12DialledElsewhere(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`curl -sS --resolve files.example.org:443:203.0.113.7 https://files.example.org/hello`)
	if r.stdout != "ok GET /hello\n" {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	if out := h.must("audit", "tail", "--json", "--last", "10"); !strings.Contains(out, "203.0.113.7") {
		t.Errorf("the audit does not name the dialled address:\n%s", out)
	}
}

// A secret bound to :443 asked for :8443, or over http.
func TestAttack15OtherPortAndScheme(t *testing.T) {
	h := newHouse(t, "")
	h.secrets()
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"ANTHROPIC_API_KEY\"]\n[egress]\nallow = [\"api.anthropic.com:8443\", \"http://api.anthropic.com\"]\n")
	r := h.sh(`for u in https://api.anthropic.com:8443/ http://api.anthropic.com/; do
curl -sS -o /dev/null -D - $u | awk 'NR==1{s=$2} tolower($1)=="torno-reason:"{r=$2} END{gsub(/\r/,"",r); print s, r}'; done`)
	if strings.Contains(r.stdout, "200") || !strings.Contains(r.stdout, "insecure_scheme") {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
	for _, k := range []string{"GET api.anthropic.com:8443 /", "GET api.anthropic.com /"} {
		if n := h.upstream.count(k); n != 0 {
			t.Errorf("%s reached the upstream %d times", k, n)
		}
	}
}

// The workload's own credential fields are replaced where a rule sets them, in every casing.
func TestAttack17OwnCredentialFields(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`curl -sS -o /dev/null -w '%{http_code}\n' -H 'X-API-KEY: mine' -H 'x-Api-Key: other' https://api.anthropic.com/v1/models
curl -sS -o /dev/null -w '%{http_code}\n' -H 'Connection: x-api-key' https://api.anthropic.com/v1/models`)
	if r.stdout != "200\n400\n" {
		t.Errorf("stdout %q, want 200 (replaced) and 400 (nominated); stderr %q", r.stdout, r.stderr)
	}
}

// Paths that a rule and a server could read in two ways.
func TestAttack21Paths(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`for p in //forbidden /./forbidden /a/../forbidden /%66orbidden /%2e/forbidden /x/%2e%2e/forbidden; do
curl -sS --path-as-is -o /dev/null -D - https://files.example.org$p | awk 'NR==1{s=$2} END{print s}'; done`)
	if want := strings.Repeat("403\n", 6); r.stdout != want {
		t.Errorf("stdout %q, want %q", r.stdout, want)
	}
}

// Private addresses of the host's network: refused after resolution, whatever the spelling.
func TestAttack23PrivateAddresses(t *testing.T) {
	h := newHouse(t, "")
	h.write("torno.toml", "name = \"my-agent\"\n[egress]\ndefault = \"allow\"\n")
	r := h.sh(`for u in http://127.0.0.1.nip.invalid/ http://169.254.169.254/latest/meta-data/ https://10.0.0.1/ https://192.168.1.1/ 'https://[fd00::1]/' 'https://[::ffff:10.0.0.1]/' http://2130706433/ http://0x7f.1/; do
curl -sS -m 20 -o /dev/null -D - "$u" 2>&1 | awk 'NR==1{s=$2} tolower($1)=="torno-reason:"{r=$2} END{gsub(/\r/,"",r); print s, r}'; done`)
	got := strings.Split(strings.TrimSpace(r.stdout), "\n")
	want := []string{"502 unknown_name", "403 forbidden_address", "403 forbidden_address", "403 forbidden_address",
		"403 forbidden_address"}
	for i, w := range want {
		if i >= len(got) || got[i] != w {
			t.Errorf("address %d: want %q, all: %q (stderr %q)", i, w, got, r.stderr)
		}
	}
	if strings.Contains(r.stdout, "200") {
		t.Errorf("an address was reached: %q", got)
	}
}

// A redirect is passed on, not followed; the next hop gets no credential.
func TestAttack24Redirect(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`curl -sS -o /dev/null -w '%{http_code} %{redirect_url}\n' https://files.example.org/redirect
curl -sS -L -o /dev/null -w '%{http_code}\n' https://files.example.org/redirect`)
	if want := "307 https://evil.example.net/stolen\n403\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
	if n := h.upstream.count("GET evil.example.net /stolen"); n != 0 {
		t.Errorf("the redirect was followed %d times", n)
	}
}

// Ways out that are not TCP.
func TestAttack25OtherWaysOut(t *testing.T) {
	h := newAgentHouse(t)
	r := h.python(`import errno, socket
def udp(family, addr):
    s = socket.socket(family, socket.SOCK_DGRAM)
    s.settimeout(3)
    try:
        s.connect(addr); s.send(b"x")
        s.recv(1); return "answered"
    except ConnectionRefusedError:
        return "refused"
    except OSError as e:
        return "unreachable" if e.errno in (errno.ENETUNREACH, errno.EHOSTUNREACH) else "silent"
print("quic4", udp(socket.AF_INET, ("93.184.216.34", 443)))
print("quic6", udp(socket.AF_INET6, ("2606:2800:220:1::1", 443)))
for kind, proto in ((socket.SOCK_RAW, socket.IPPROTO_ICMP), (socket.SOCK_DGRAM, socket.IPPROTO_ICMP)):
    try:
        s = socket.socket(socket.AF_INET, kind, proto)
        s.settimeout(1)
        s.sendto(b"\x08\x00\xf7\xff\x00\x00\x00\x00", ("8.8.8.8", 1))
        s.recv(64)
        print("icmp answered")
    except OSError:
        print("icmp closed")
print("dot", end=" ")
s = socket.create_connection(("9.9.9.9", 853), 5)
s.sendall(b"\x00\x1d\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x03org\x00\x00\x01\x00\x01")
s.settimeout(10)
try:
    print("closed" if s.recv(1) == b"" else "answered")
except OSError as e:
    print("closed")
print(socket.gethostbyname("any.name.at.all.example").startswith("100."))`)
	if want := "quic4 unreachable\nquic6 unreachable\nicmp closed\nicmp closed\ndot closed\nTrue\n"; r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
}

// A request to the broker's own scheme, through the front and through the explicit proxy.
func TestAttack41SchemeTorno(t *testing.T) {
	h := newAgentHouse(t)
	r := h.python(`import os, socket, ssl
def ask(s):
    s.sendall(b"GET torno://broker/v1/leaf HTTP/1.1\r\nHost: api.anthropic.com\r\n\r\n")
    return s.recv(4096).split(b"\r\n")[0].decode()
s = socket.create_connection(("api.anthropic.com", 443))
print(ask(ssl.create_default_context().wrap_socket(s, server_hostname="api.anthropic.com")))
print(ask(socket.create_connection(("api.anthropic.com", 80))))
host, port = os.environ["TORNO_PROXY"].removeprefix("http://").strip("/").split(":")
print(ask(socket.create_connection((host, int(port)))))`)
	for line := range strings.Lines(r.stdout) {
		if !strings.HasPrefix(line, "HTTP/1.1 400 ") {
			t.Errorf("answered %q, want 400", line)
		}
	}
	if strings.Count(r.stdout, "\n") != 3 {
		t.Errorf("stdout %q, stderr %q", r.stdout, r.stderr)
	}
}

// A response that the upstream cuts short is never passed on as whole.
func TestCutResponseStaysCut(t *testing.T) {
	h := newAgentHouse(t)
	r := h.sh(`curl -sS https://files.example.org/cut >/dev/null; echo $?`)
	if r.stdout != "18\n" { // CURLE_PARTIAL_FILE
		t.Errorf("curl says %q, want 18 (stderr %q)", r.stdout, r.stderr)
	}
}

// 512 slow exchanges at once and 488 more waiting: each is answered, by the upstream or by 503.
func TestStreamsExhausted(t *testing.T) {
	h := newAgentHouse(t)
	r := h.python(`import asyncio, collections, ssl
async def one(ctx):
    r, w = await asyncio.open_connection("files.example.org", 443, ssl=ctx, server_hostname="files.example.org", ssl_handshake_timeout=120)
    w.write(b"GET /slow/6000 HTTP/1.1\r\nHost: files.example.org\r\nConnection: close\r\n\r\n")
    head = (await r.read()).split(b"\r\n\r\n")[0].decode()
    w.close()
    reason = [l.split(": ")[1] for l in head.split("\r\n") if l.startswith("torno-reason")]
    return head.split(" ")[1], *reason
async def main():
    ctx = ssl.create_default_context()
    done = await asyncio.wait_for(asyncio.gather(*(one(ctx) for _ in range(1000)), return_exceptions=True), 110)
    c = collections.Counter(d if isinstance(d, tuple) else repr(d) for d in done)
    for k, n in sorted(c.items(), key=str):
        print(k, n)
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
asyncio.run(main())`)
	var ok, exhausted, other int
	for line := range strings.Lines(r.stdout) {
		n := 0
		_, _ = fmt.Sscan(line[strings.LastIndex(line, " ")+1:], &n)
		switch {
		case strings.HasPrefix(line, "('200',)"):
			ok += n
		case strings.HasPrefix(line, "('503', 'streams_exhausted')"):
			exhausted += n
		default:
			other += n
		}
	}
	if ok < 512 || ok+exhausted != 1000 || other != 0 {
		t.Errorf("%d answered, %d exhausted, %d otherwise\n%s\n%s", ok, exhausted, other, r.stdout, r.stderr)
	}
	t.Logf("%d answered, %d told to try again", ok, exhausted)
}

// Fields that would steer a client around the capture, or pass for the broker's word, or outlive the session.
func TestAttack27Steering(t *testing.T) {
	for _, cookies := range []string{"strip", "pass"} {
		h := newHouse(t, "[agents.my-agent]\ncookies = \""+cookies+"\"\n")
		h.must("secrets", "set", "my-agent", "CUSTOM_API_SECRET="+customKey, "--header", "X-Custom-Auth: {CUSTOM_API_SECRET}", "--host", "api.example.org")
		r := h.sh(`curl -sS -D - -o /dev/null https://api.example.org/debug`)
		got := strings.ToLower(r.stdout)
		for field, want := range map[string]bool{
			"alt-svc:": false, "torno-reason:": false, "strict-transport-security:": true, "location:": true, "set-cookie:": cookies == "pass",
		} {
			if strings.Contains(got, field) != want {
				t.Errorf("cookies = %s: %s present: %v, want %v, in %q", cookies, field, !want, want, r.stdout)
			}
		}
		if strings.Contains(got, customKey[4:16]) {
			t.Errorf("cookies = %s: the key came back: %q", cookies, r.stdout)
		}
	}
}

// A workload asks the service for a credential of its own, with a key that may ask for one.
func TestAttack42Minting(t *testing.T) {
	const script = `for path in app/installations/1/access_tokens repos/o/r/keys user/keys; do
curl -sS -o /dev/null -D - -X POST https://api.github.com/$path | awk 'NR==1{s=$2} tolower($1)=="torno-reason:"{r=$2} END{gsub(/\r/,"",r); print s, r}'; done
curl -sS -o /dev/null -w '%{http_code}\n' https://api.github.com/repos/o/r/issues`
	for minting, want := range map[string]string{
		"deny": strings.Repeat("403 denied_by_rule\n", 3) + "200\n",
		"pass": strings.Repeat("200 \n", 3) + "200\n",
	} {
		h := newHouse(t, "[agents.my-agent]\nminting = \""+minting+"\"\n")
		h.must("secrets", "set", "my-agent", "GITHUB_TOKEN="+githubToken)
		if r := h.sh(script); r.stdout != want {
			t.Errorf("minting = %s: %q, want %q (stderr %q)", minting, r.stdout, want, r.stderr)
		}
		if n := h.upstream.count("POST api.github.com /app/installations/1/access_tokens"); (n > 0) != (minting == "pass") {
			t.Errorf("minting = %s: %d requests reached the upstream", minting, n)
		}
	}
}
