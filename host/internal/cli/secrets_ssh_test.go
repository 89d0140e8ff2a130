package cli

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

func newHostKey(t *testing.T) (ssh.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return key, private
}

// The hosts' keys are sealed with an SSH key: from the person's known_hosts, hashed or not, from a file that is named, or
// from what is well known.
func TestSetSSHKey(t *testing.T) {
	host, private := newHostKey(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	value := string(pem.EncodeToMemory(block))
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Chdir(home)
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(".ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	line := func(name string) string { return knownhosts.Line([]string{name}, host) + "\n" }
	write(".ssh/known_hosts", line("own.example.org")+line("[own.example.org]:2222")+line(knownhosts.HashHostname("hashed.example.org")))
	write("named", line("named.example.org"))
	write("key", value)
	for _, c := range []struct {
		flags string
		want  string // the parameter's value without keys, or a part of the error
		code  int
	}{
		{"--host own.example.org", "own.example.org", 0},
		{"--host own.example.org:22 --host own.example.org:2222", "own.example.org,[own.example.org]:2222", 0},
		{"--host hashed.example.org", "hashed.example.org", 0},
		{"--host ssh://github.com", "github.com", 0},
		{"--host named.example.org --known-hosts named", "named.example.org", 0},
		{"--host named.example.org", "ssh-keyscan -t ed25519 -p 22 named.example.org", 1},
		{"--host github.com --known-hosts named", "no host key of github.com:22", 1},
		{"--host named.example.org --known-hosts nowhere", "no such file", 1},
		{"--host https://own.example.org", "ssh:// is wanted", 2},
		{"", "say where it may be sent", 2},
	} {
		b := newBroker(t)
		r := torno(t, "", append([]string{"secrets", "set", "my-agent", "DEPLOY_KEY=@key", "--as", "ssh"}, strings.Fields(c.flags)...)...)
		if r.code != c.code || c.code != 0 && !strings.Contains(r.errOut, c.want) {
			t.Errorf("%s: %+v, want %d with %q", c.flags, r, c.code, c.want)
			continue
		}
		if c.code != 0 {
			continue
		}
		m := b.metas[0]
		var names []string
		for l := range strings.SplitSeq(m.Inject.Param(control.ParamKnownHosts), ",") {
			names = append(names, strings.Fields(l)[0])
		}
		if got := strings.Join(names, ","); got != c.want || m.Weak || b.values["DEPLOY_KEY"] != strings.TrimSpace(value) {
			t.Errorf("%s: pins %q, want %q; weak %v", c.flags, got, c.want, m.Weak)
		}
	}
}

// A passphrase is taken off before the key is sealed.
func TestUnlock(t *testing.T) {
	_, private := newHostKey(t)
	block, err := ssh.MarshalPrivateKeyWithPassphrase(private, "", []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	locked := secret.New(pem.EncodeToMemory(block))
	opened, err := openKey(locked, secret.New([]byte("open sesame")))
	if err != nil {
		t.Fatal(err)
	}
	_ = opened.Use(func(b []byte) error {
		key, err := ssh.ParseRawPrivateKey(b)
		if k, ok := key.(*ed25519.PrivateKey); err != nil || !ok || !k.Equal(private) {
			t.Errorf("another key: %v", err)
		}
		return nil
	})
	if _, err := openKey(locked, secret.New([]byte("wrong"))); err == nil || strings.Contains(err.Error(), "wrong") {
		t.Errorf("with another passphrase: %v", err)
	}
	newBroker(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile("key", pem.EncodeToMemory(block), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := torno(t, "", "secrets", "set", "my-agent", "K=@key", "--as", "ssh", "--host", "github.com"); r.code != 1 || !strings.Contains(r.errOut, "passphrase") {
		t.Errorf("without a terminal: %+v", r)
	}
}
