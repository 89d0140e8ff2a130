package main_test

import (
	"crypto/sha256"
	"crypto/tls"
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// rootFile is an agent file whose commands are root in the VM.
const rootFile = agentFile + "\n[workload]\nuser = \"root\"\n"

//go:embed testdata/attack/inside.py
var attackInside string

// outcomes are what each attempt of testdata/attack/inside.py comes to, for the user agent and for root. Where
// they differ, root in a VM of its own may; the host leans on neither.
var outcomes = []struct{ name, agent, root string }{
	{"1 AF_VSOCK", "EAFNOSUPPORT", "EAFNOSUPPORT"},
	{"1 AF_VSOCK pair", "EAFNOSUPPORT", "EAFNOSUPPORT"},
	{"1 AF_VSOCK as root of a user namespace", "refused", "refused"},
	{"1 helper binds a low port", "", "EACCES"},
	{"1 helper connects from a high port", "", "ECONNRESET"},
	{"1 root binds what it was handed", "", "allowed"},
	{"1 and reaches the broker", "", "allowed"},
	{"1 through the kernel", "EACCES", "status 3"}, // wrong token
	{"2 io_uring", "ENOSYS", "ENOSYS"},
	{"2 x32 socket", "ENOSYS", "ENOSYS"},
	{"2 int 0x80", "SIGSYS", "SIGSYS"},
	{"2 i386 socketcall", "SIGSYS", "SIGSYS"},
	{"2 process before the guest", "none", "none"},
	{"6 /proc/1/mem", "ENOENT", "EACCES"},
	{"6 /proc/1/environ", "ENOENT", "EACCES"},
	{"6 /proc/1/maps", "ENOENT", "EACCES"},
	{"6 /proc/1/fd", "ENOENT", "EACCES"},
	{"6 /proc/1/root", "ENOENT", "EACCES"},
	{"6 ptrace", "EPERM", "EPERM"},
	{"6 process_vm_readv", "EPERM", "EPERM"},
	{"6 pidfd_getfd", "EPERM", "EPERM"},
	{"6 kernel memory", "EACCES", "EPERM"},
	{"6 /proc/kcore", "EACCES", "EPERM"},
	{"6 kernel log", "EPERM", "EPERM"},
	{"6 module", "EPERM", "EPERM"},
	{"6 kexec", "EPERM", "EPERM"},
	{"6 bpf map", "EPERM", "EPERM"},
	{"6 perf", "EPERM", "EPERM"},
	{"6 userfaultfd", "EPERM", "EPERM"},
	{"6 keyring", "ENOSYS", "ENOSYS"},
	{"7 mount", "refused", "allowed"},
	{"7 user namespace", "refused", "allowed"},
	{"7 write /usr", "EACCES", "allowed"},
	{"7 chown", "EPERM", "allowed"},
	{"7 clock", "EPERM", "EPERM"},
}

// Attacks 1, 2, 6 and 7, from inside, as both users. Afterwards the session may what it may, and no more, and
// all of the VM's memory is searched.
func TestVMAttack1267BothUsers(t *testing.T) {
	needVM(t)
	for _, user := range []string{"agent", "root"} {
		t.Run(user, func(t *testing.T) {
			h := newAgentHouse(t)
			h.write("torno.toml", agentFile+"\n[workload]\nuser = \""+user+"\"\n")
			h.write("inside.py", attackInside)
			file := filepath.Join(h.dir, "proof.json")
			r := h.runWith([]string{"--proof-file", file}, "/bin/sh", "-c", `python3 inside.py || echo failed
for u in https://api.anthropic.com/v1/models https://denied.example.net/; do curl -sS -o /dev/null -w "after\t%{http_code}\n" $u; done`)
			got := map[string][]string{}
			for line := range strings.Lines(r.stdout) {
				name, outcome, _ := strings.Cut(strings.TrimSpace(line), "\t")
				got[name] = append(got[name], outcome)
			}
			want := 0
			for _, o := range outcomes {
				expected := o.agent
				if user == "root" {
					expected = o.root
				}
				if expected == "" {
					continue
				}
				if want++; strings.Join(got[o.name], " ") != expected {
					t.Errorf("%s: %q, want %q", o.name, got[o.name], expected)
				}
			}
			if len(got) != want+1 || strings.Join(got["after"], " ") != "200 403" {
				t.Errorf("%d outcomes, want %d; afterwards %q (stdout %q, stderr %q)", len(got), want+1, got["after"], r.stdout, r.stderr)
			}
			proofs := readProofs(t, file)
			if len(proofs) == 0 || proofs[len(proofs)-1].Outcome != "clean" || !proofs[len(proofs)-1].Control {
				t.Errorf("proofs %+v", proofs)
			}
			if n := h.upstream.count("GET denied.example.net /"); n != 0 {
				t.Errorf("%d requests went where the session may not", n)
			}
		})
	}
}

// Attacks 1 and 7: the guest itself has fallen, token and all. It gets what the session may have, by the host's
// decision, and nothing else.
func TestVMAttack1StolenToken(t *testing.T) {
	needVM(t)
	h := newAgentHouse(t)
	attacker := filepath.Join(h.dir, "stolen")
	build := exec.Command("go", "build", "-trimpath", "-o", attacker, "./testdata/stolen")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := h.runWith([]string{"--guest", attacker}, "true")
	for _, want := range []string{
		"within policy: 200", "beyond policy: 403 denied", "denied path: 403 denied", "secret over http: 403 insecure_scheme",
		"private address: 403 denied", "own scheme on the wrong stream: 400 bad_request", "workload's request on the wrong stream: 400 bad_request",
		"unknown path of the channel: 501 unsupported", "another token: wrong token", "hello again: hello already used", "leaf: 200",
	} {
		if !strings.Contains(r.stderr, "stolen: "+want) {
			t.Errorf("no %q", want)
		}
	}
	if r.code != 125 || t.Failed() {
		t.Errorf("exit %d, stderr %q", r.code, r.stderr)
	}
	if n := h.upstream.count("GET api.anthropic.com /v1/models"); n != 1 {
		t.Errorf("%d requests went to the upstream, want the one within policy", n)
	}
	if strings.Contains(r.stderr, anthropicKey[20:40]) {
		t.Error("the secret is in what the attacker printed")
	}
}

// Root installs packages with apt, whose downloads go through the broker by http and by https. What the policy does
// not name is not to be had.
func TestVMRootInstallsPackages(t *testing.T) {
	needVM(t)
	plain := httptest.NewServer(debRepository(t, "plain"))
	t.Cleanup(plain.Close)
	cert, ca := issue(t, []string{"deb.example.org"})
	secure := httptest.NewUnstartedServer(debRepository(t, "secure"))
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	secure.StartTLS()
	t.Cleanup(secure.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, fmt.Sprintf("[[upstream]]\nhost = \"deb.example.org\"\nport = 80\ndial = %q\n\n[[upstream]]\nhost = \"deb.example.org\"\ndial = %q\nca = %q\n",
		plain.Listener.Addr(), secure.Listener.Addr(), caFile))
	h.secrets()
	h.write("torno.toml", `name = "my-agent"
secrets = ["ANTHROPIC_API_KEY"]
[egress]
allow = ["GET http://deb.example.org", "GET deb.example.org"]
[workload]
user = "root"
`)
	r := h.sh(`exec 2>&1; rm -f /etc/apt/sources.list /etc/apt/sources.list.d/*
printf 'deb [trusted=yes] %s ./\n' http://deb.example.org/plain https://deb.example.org/secure >/etc/apt/sources.list
apt-get -q update && apt-get -qy install torno-plain torno-secure || echo no packages
echo 'deb [trusted=yes] https://denied.example.org/ ./' >/etc/apt/sources.list
apt-get -q update
torno-plain; torno-secure; dpkg-query -W -f '${Package} ${Status}\n' torno-plain torno-secure`)
	if !strings.Contains(r.stdout, "403  Forbidden") {
		t.Errorf("no refusal in %q", r.stdout)
	}
	for _, want := range []string{"\nplain is installed\n", "\nsecure is installed\n", "torno-plain install ok installed\n", "torno-secure install ok installed\n"} {
		if !strings.Contains(r.stdout, want) {
			t.Fatalf("no %q in %q (exit %d)", want, r.stdout, r.code)
		}
	}
}

// debRepository serves, below /NAME, a repository of one package, torno-NAME, with one program of that name.
func debRepository(t *testing.T, name string) http.Handler {
	t.Helper()
	dir := t.TempDir()
	pkg := "torno-" + name
	control := "Package: " + pkg + "\nVersion: 1.0\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: says that it is there\n"
	for path, content := range map[string]string{
		"tree/DEBIAN/control":  control,
		"tree/DEBIAN/postinst": "#!/bin/sh\nset -e\nchown nobody /usr/bin/" + pkg + "\n",
		"tree/usr/bin/" + pkg:  "#!/bin/sh\necho " + name + " is installed\n",
	} {
		path = filepath.Join(dir, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	file := pkg + "_1.0_all.deb"
	mustRun(t, dir, "dpkg-deb", "--root-owner-group", "-Zgzip", "--build", "tree", file)
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		t.Fatal(err)
	}
	index := fmt.Sprintf("%sFilename: ./%s\nSize: %d\nSHA256: %x\n", control, file, len(b), sha256.Sum256(b))
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, "tree")), os.WriteFile(filepath.Join(dir, "Packages"), []byte(index), 0o644)); err != nil {
		t.Fatal(err)
	}
	return http.StripPrefix("/"+name, http.FileServer(http.Dir(dir)))
}
