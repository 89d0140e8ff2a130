package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// An sshd is OpenSSH's server on loopback, with a key that it lets in.
type sshd struct {
	t    *testing.T
	dir  string
	port int
	key  string // file of the private key that may log in
	user string
}

// newSSHD starts a server whose host keys are of the given types.
func newSSHD(t *testing.T, keyType string, hostKeys ...string) *sshd {
	t.Helper()
	dir, err := os.MkdirTemp("", "sshd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	s := &sshd{t: t, dir: dir, key: filepath.Join(dir, "key"), user: me.Username}
	mustRun(t, dir, "ssh-keygen", "-q", "-t", keyType, "-N", "", "-C", "somebody", "-f", s.key)
	if me.Uid == "0" {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.port = ln.Addr().(*net.TCPAddr).Port
	ln.Close()
	config := fmt.Sprintf("ListenAddress 127.0.0.1:%d\nPidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"+
		"PasswordAuthentication no\nAuthorizedKeysFile %s.pub\nSubsystem sftp internal-sftp\nLogLevel VERBOSE\nMaxStartups 100\n", s.port, s.key)
	for _, kind := range hostKeys {
		file := filepath.Join(dir, "host_"+kind)
		mustRun(t, dir, "ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", file)
		config += "HostKey " + file + "\n"
	}
	file := filepath.Join(dir, "config")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s.start(file)
	return s
}

func (s *sshd) start(config string) {
	s.t.Helper()
	cmd := exec.Command("/usr/sbin/sshd", "-D", "-e", "-f", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		s.t.Fatalf("%v (try: apt-get install openssh-server)", err)
	}
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if s.t.Failed() {
			s.t.Logf("sshd:\n%s", &log)
		}
	})
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr())
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("sshd does not answer:\n%s", &log)
		}
	}
}

func (s *sshd) addr() string { return fmt.Sprintf("127.0.0.1:%d", s.port) }

// knownHosts returns a file that has the server's keys of a type under the given names.
func (s *sshd) knownHosts(kind string, names ...string) string {
	s.t.Helper()
	public, err := os.ReadFile(filepath.Join(s.dir, "host_"+kind+".pub"))
	if err != nil {
		s.t.Fatal(err)
	}
	file := filepath.Join(s.dir, "known_"+kind)
	var b strings.Builder
	for _, n := range names {
		b.WriteString(n + " " + string(public))
	}
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

// newSSHHouse is a house with an SSH key for git.example.org, on ports 22 and 2222. other.example.org has no key and
// leads to the same server.
func newSSHHouse(t *testing.T, keyType, hostKey string) (*house, *sshd) {
	t.Helper()
	s := newSSHD(t, keyType, "ed25519", "ecdsa", "rsa")
	extra := ""
	for _, at := range []string{"git.example.org:22", "git.example.org:2222", "other.example.org:22"} {
		host, port, _ := net.SplitHostPort(at)
		extra += fmt.Sprintf("\n[[upstream]]\nhost = %q\nport = %s\ndial = %q\n", host, port, s.addr())
	}
	h := newHouse(t, extra)
	h.must("secrets", "set", "my-agent", "DEPLOY_KEY=@"+s.key, "--as", "ssh", "--host", "git.example.org", "--host", "git.example.org:2222",
		"--known-hosts", s.knownHosts(hostKey, "git.example.org", "[git.example.org]:2222"))
	return h, s
}

// S17: OpenSSH's clients and git log in with a key that is not there.
func TestMissionS17SSH(t *testing.T) {
	h, s := newSSHHouse(t, "ed25519", "ed25519")
	repo := filepath.Join(s.dir, "repo")
	mustRun(t, s.dir, "git", "init", "-q", "-b", "main", repo)
	mustRun(t, repo, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "from the host")
	if err := os.WriteFile(filepath.Join(s.dir, "file"), bytes.Repeat([]byte("0123456789abcdef"), 1<<16), 0o644); err != nil {
		t.Fatal(err)
	}
	at := s.user + "@git.example.org"
	r := h.sh(fmt.Sprintf(`set -e
cd "$HOME"
ssh-add -l | cut -d' ' -f3-
ssh %[1]s 'echo over $SSH_CONNECTION' | cut -d' ' -f1
ssh -p 2222 %[1]s echo another port
git clone -q ssh://%[1]s%[2]s/repo 2>&1
git -C repo log --format=%%s
scp -q %[1]s:%[2]s/file copied && sha256sum <copied | cut -c1-8
echo 'put copied %[2]s/back' | sftp -q -b - %[1]s >/dev/null && echo sent
ls ~/.ssh 2>/dev/null || true`, at, s.dir))
	sum := sha256Of(filepath.Join(s.dir, "file"))
	want := "DEPLOY_KEY (ED25519)\nover\nanother port\nfrom the host\n" + sum + "\nsent\n"
	if r.stdout != want {
		t.Errorf("stdout %q, want %q (stderr %q)", r.stdout, want, r.stderr)
	}
	if got := sha256Of(filepath.Join(s.dir, "back")); got != sum {
		t.Errorf("what came back has %s, want %s", got, sum)
	}
	out := h.must("audit", "tail", "--last", "100", "--json")
	if n := strings.Count(out, `"ssh_signed"`); n != 5 || !strings.Contains(out, `"by":"user `+s.user+`"`) {
		t.Errorf("%d signatures are recorded, want 5:\n%s", n, out)
	}
}

// A client that does not name its connection logs in once a person has allowed it, and not where they have not.
func TestClientSSHAsks(t *testing.T) {
	h, s := newSSHHouse(t, "ed25519", "ed25519")
	program := filepath.Join(h.work, "sshclient")
	build := exec.Command("go", "build", "-trimpath", "-o", program, "./testdata/sshclient")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for verb, want := range map[string]string{"allow": "in\n", "deny": ""} {
		done := make(chan result, 1)
		go func() { done <- h.run("./sshclient", s.user, "git.example.org:22", "echo in") }()
		var id string
		for deadline := time.Now().Add(patience); id == "" && time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
			var all []struct{ ID, Rule string }
			if err := json.Unmarshal([]byte(h.must("approvals", "list", "--json")), &all); err != nil {
				t.Fatal(err)
			}
			if len(all) == 1 && strings.Contains(all[0].Rule, "a login as "+s.user) {
				id = all[0].ID
			}
		}
		h.must("approvals", verb, id)
		if r := <-done; r.stdout != want || (r.code == 0) != (want != "") {
			t.Errorf("%s: exit %d, %q, %q", verb, r.code, r.stdout, r.stderr)
		}
	}
}

// S17: keys and host keys of every type.
func TestMissionS17SSHKeyTypes(t *testing.T) {
	for _, c := range [][2]string{{"rsa", "rsa"}, {"ecdsa", "ecdsa"}} {
		h, s := newSSHHouse(t, c[0], c[1])
		if r := h.sh("ssh " + s.user + "@git.example.org echo in"); r.stdout != "in\n" {
			t.Errorf("%v: %q, stderr %q", c, r.stdout, r.stderr)
		}
	}
}

func sha256Of(file string) string {
	out, err := exec.Command("sha256sum", file).Output()
	if err != nil {
		return err.Error()
	}
	return string(out[:8])
}

// Attack 44: what is no login through one of the session's own tunnels, to the host whose key is known, is not signed.
func TestAttack44SSHInside(t *testing.T) {
	h, s := newSSHHouse(t, "ed25519", "ed25519")
	const careless = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o GlobalKnownHostsFile=/dev/null -o LogLevel=ERROR"
	at := s.user + "@git.example.org"
	for name, c := range map[string]struct {
		script, want string
	}{
		"control":             {"ssh " + at + " echo in 2>&1", "in\n"},
		"another host":        {"ssh " + careless + " " + s.user + "@other.example.org echo in 2>/dev/null || echo refused", "refused\n"},
		"another host key":    {"ssh " + careless + " -o HostKeyAlgorithms=ssh-rsa,rsa-sha2-256 " + at + " echo in 2>/dev/null || echo refused", "refused\n"},
		"no session":          {"ssh-keygen -q -t ed25519 -N '' -f k && (ssh-add k || ssh-add -D || ssh-add -x </dev/null) 2>/dev/null || echo refused", "refused\n"},
		"a file":              {"ssh-add -L >k.pub; echo text >file; ssh-keygen -Y sign -n file -f k.pub file 2>/dev/null || echo refused", "refused\n"},
		"a forwarded agent":   {fmt.Sprintf("ssh -A %s 'ssh-add -l >/dev/null && echo there; ssh %s -p %d %s@127.0.0.1 echo in 2>/dev/null || echo refused'", at, careless, s.port, s.user), "there\nrefused\n"},
		"behind another host": {fmt.Sprintf("ssh %s -J %s -p %d %s@127.0.0.1 echo in 2>/dev/null || echo refused", careless, at, s.port, s.user), "refused\n"},
	} {
		if r := h.sh(`cd "$HOME"; ` + c.script); r.stdout != c.want {
			t.Errorf("%s: %q, want %q (stderr %q)", name, r.stdout, c.want, r.stderr)
		}
	}
	out := h.must("audit", "tail", "--last", "200", "--json")
	for _, want := range []string{"the host's key is not the known one", "the agent is forwarded", "was not seen on an open tunnel", "what is to be signed is no login"} {
		if !strings.Contains(out, want) {
			t.Errorf("the audit does not say %q:\n%s", want, out)
		}
	}
	if r := h.torno("policy", "check", "my-agent", "CONNECT", "ssh://git.example.org"); r.code != 0 || !strings.Contains(r.stdout, "list audience") || !strings.Contains(r.stdout, "DEPLOY_KEY version 1") {
		t.Errorf("policy check: exit %d, %q, %q", r.code, r.stdout, r.stderr)
	}
}
