package cli

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"torno.internal/protocol/control"
)

// TestSchemesPage runs every command of docs/schemes.md.
func TestSchemesPage(t *testing.T) { runPage(t, "docs/schemes.md", 43, schemeFiles(t)) }

// TestSchemesOfREADME runs every command of the README's table, which has a row for each scheme.
func TestSchemesOfREADME(t *testing.T) {
	files := schemeFiles(t)
	host, private := newHostKey(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	files["id_ed25519"], files["known"] = string(pem.EncodeToMemory(block)), knownhosts.Line([]string{"git.example.org"}, host)+"\n"
	runPage(t, "README.md", len(control.Schemes()), files)
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, scheme := range control.Schemes() {
		as := " --as " + scheme
		switch scheme {
		case control.SchemeBearer:
			as = " --host"
		case control.SchemeHeader:
			as = " --header"
		}
		if !regexp.MustCompile("(?m)^\\| " + scheme + " \\| .* \\| `torno secrets set my-agent [^`]*" + as).Match(page) {
			t.Errorf("the README has no row of %s", scheme)
		}
	}
}

// schemeFiles are what the commands of the pages of schemes read.
func schemeFiles(t *testing.T) map[string]string {
	t.Helper()
	key := privatePEM(t)
	files := map[string]string{"client.pem": clientPEM(t), "key.pem": key, "token.jwt": "eyJh.eyJi.bWFkZSB1cA\n", "secret": "made-up-0123456789:abcdefghij\n"}
	addKeys(files)
	files["p256.pem"] = p256PEM(t)
	for name, value := range map[string]map[string]string{
		"key.json":  {"type": "service_account", "client_email": "robot@example.org", "private_key": key},
		"user.json": {"type": "authorized_user", "client_id": "c", "client_secret": "made-up", "refresh_token": "made-up"},
	} {
		b, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	return files
}

// addKeys adds the files that schemes of HMACs are set with.
func addKeys(files map[string]string) {
	const key64 = "bWFkZS11cC0wMTIzNDU2Nzg5YWJjZGVmZ2hpag=="
	files["key"], files["key64"], files["id-key"] = "made-up-0123456789abcdef\n", key64+"\n", "key-1:made-up-0123456789abcdef\n"
	files["hex"] = strings.Repeat("0123456789abcdef", 4) + "\n"
	files["id-key64"], files["id-key64-passphrase"] = "key-1:"+key64+"\n", "key-1:"+key64+":made-up-passphrase-0123\n"
}

// TestPresetsOfHMAC wants a line of docs/schemes.md for every preset.
func TestPresetsOfHMAC(t *testing.T) {
	page, err := os.ReadFile("../../../docs/schemes.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range control.HMACPresets() {
		if !strings.Contains(string(page), "| `"+name+"` |") || !strings.Contains(string(page), " --as hmac:preset="+name+"`") {
			t.Errorf("the page has no line of preset %s", name)
		}
	}
}

// TestSSHPage runs every command of docs/ssh.md that sets a key.
func TestSSHPage(t *testing.T) {
	host, private := newHostKey(t)
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	known := knownhosts.Line([]string{"git.example.org"}, host) + "\n"
	t.Setenv("HOME", t.TempDir())
	if err := os.MkdirAll(os.Getenv("HOME")+"/.ssh", 0o700); err != nil {
		t.Fatal(err)
	}
	known += knownhosts.Line([]string{"[git.example.org]:2222"}, host) + "\n"
	if err := os.WriteFile(os.Getenv("HOME")+"/.ssh/known_hosts", []byte(known), 0o600); err != nil {
		t.Fatal(err)
	}
	runPage(t, "docs/ssh.md", 4, map[string]string{"id_ed25519": string(pem.EncodeToMemory(block)), "known": known})
}

// TestPostgresPage runs every command of docs/postgres.md that sets a password.
func TestPostgresPage(t *testing.T) {
	runPage(t, "docs/postgres.md", 5, map[string]string{"address": "postgresql://app:made-up-0123456789@db.example.org:5432/app\n", "password": "made-up-0123456789\n"})
}

// runPage runs every command of a page that sets a secret, of which there are at least so many, beside files.
func runPage(t *testing.T, name string, least int, files map[string]string) {
	t.Helper()
	page, err := os.ReadFile("../../../" + name)
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	t.Chdir(t.TempDir())
	if err := os.WriteFile(filepath.Base(name), page, 0o600); err != nil { // the caller may look at it
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	lines := regexp.MustCompile("`torno (secrets set [^`]*)`").FindAllStringSubmatch(string(page), -1)
	if len(lines) < least {
		t.Fatalf("%d commands on the page", len(lines))
	}
	for _, line := range lines {
		r := torno(t, "", words(line[1])...)
		if r.code != 0 || !strings.Contains(r.out, ": set, version") {
			t.Errorf("%s: %+v", line[1], r)
		}
	}
	for _, m := range b.metas {
		if err := control.CheckMeta(m); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
	}
}

// privatePEM returns an Ed25519 key.
func privatePEM(t *testing.T) string {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// p256PEM returns a key on the curve P-256.
func p256PEM(t *testing.T) string {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// clientPEM returns a key and its certificate.
func clientPEM(t *testing.T) string {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})) +
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}))
}

// words parts a command as a shell does where nothing but single quotes is special.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
		} else {
			all = append(all, strings.Fields(part)...)
		}
	}
	return all
}

func TestSchemeFlag(t *testing.T) {
	for _, c := range []struct{ as, want string }{
		{"digest", "is none of"}, {"basic:realm=x", "no parameter"}, {"query", "needs name"}, {"basic:user", "NAME=VALUE"}, {"path:template=/x", "lacks {T}"},
	} {
		newBroker(t)
		if r := torno(t, "", "secrets", "set", "my-agent", "T=x0123456789abcdef0123", "--host", "a.example", "--as", c.as); r.code != 2 || !strings.Contains(r.errOut, c.want) {
			t.Errorf("--as %s: %+v", c.as, r)
		}
	}
	for prefix, want := range map[string]string{"": "basic", "basic:": "basic:user=", "basic:user=a,": "basic:user=a,template="} {
		if words, _ := completeSchemes(nil, nil, prefix); !strings.Contains(strings.Join(words, " ")+" ", want+" ") {
			t.Errorf("%q completes to %q", prefix, words)
		}
	}
}
