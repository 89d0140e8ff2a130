package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/nstest"
)

func newCA(t *testing.T, subject pkix.Name, isCA bool) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: subject, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func TestSubjectHashAgreesWithOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("needs openssl; try: apt-get install openssl")
	}
	for _, subject := range []pkix.Name{
		{CommonName: "torno session CA"},
		{CommonName: "  Torno   Session\tCA ", Organization: []string{"Größe & Co", "Second"}, Country: []string{"DE"}},
		{CommonName: "ÄÖÜ", OrganizationalUnit: []string{"A", "b"}},
		{},
	} {
		ca := newCA(t, subject, true)
		cmd := exec.Command(openssl, "x509", "-noout", "-subject_hash")
		cmd.Stdin = bytes.NewReader(ca)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := parse(ca)
		if err != nil {
			t.Fatal(err)
		}
		got, err := subjectHash(cert.RawSubject)
		if want := strings.TrimSpace(string(out)); got != want || err != nil {
			t.Errorf("%v: got %s, %v, want %s", subject, got, err, want)
		}
	}
}

func TestInstallRefuses(t *testing.T) {
	ca := newCA(t, pkix.Name{CommonName: "x"}, true)
	for name, bad := range map[string][]byte{
		"empty":    nil,
		"leaf":     newCA(t, pkix.Name{CommonName: "x"}, false),
		"two":      append(ca[:len(ca):len(ca)], ca...),
		"not PEM":  []byte("hello"),
		"bad DER":  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1, 2}}),
		"key":      pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1, 2}}),
		"trailing": append(ca[:len(ca):len(ca)], "junk"...),
	} {
		if env, err := Install(bad, slog.New(slog.DiscardHandler)); err == nil {
			t.Errorf("%s: installed, %q", name, env)
		}
	}
}

// writableEtc puts a tmpfs with the given bundle over /etc.
func writableEtc(t *testing.T, bundle []byte) {
	t.Helper()
	if err := unix.Mount("tmpfs", "/etc", "tmpfs", 0, "mode=0755"); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("/etc/ssl/certs", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bundles[0], bundle, 0o644); err != nil {
		t.Fatal(err)
	}
}

func checkInstalled(t *testing.T, env []string, old, ca []byte) {
	t.Helper()
	want := append(old[:len(old):len(old)], ca...)
	for _, path := range []string{bundles[0], bundleFile} {
		if got, err := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, %v, want the old roots and the CA, %d bytes", path, len(got), err, len(want))
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
			t.Errorf("%s: %v, %v, want mode 0644", path, info.Mode(), err)
		}
	}
	for _, entry := range env {
		name, path, _ := strings.Cut(entry, "=")
		if got, err := os.ReadFile(path); err != nil || !bytes.Contains(got, ca) {
			t.Errorf("%s names %q, which lacks the CA: %v", name, path, err)
		}
	}
	if len(env) != len(variables) {
		t.Errorf("got %d variables, want %d", len(env), len(variables))
	}
}

func TestInstall(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		old, ca := newCA(t, pkix.Name{CommonName: "an old root"}, true), newCA(t, pkix.Name{CommonName: "session"}, true)
		writableEtc(t, old)
		log := slog.New(slog.DiscardHandler)
		for range 2 { // the second changes nothing
			env, err := Install(ca, log)
			if err != nil {
				t.Fatal(err)
			}
			checkInstalled(t, env, old, ca)
		}
		links, _ := filepath.Glob("/etc/ssl/certs/*.0")
		if len(links) != 1 {
			t.Fatalf("hashed links: %q, want one", links)
		}
		if got, err := os.ReadFile(links[0]); !bytes.Equal(got, ca) {
			t.Errorf("hashed link: %v", err)
		}
	})
}

// A root file system that cannot be written to gets the bundle mounted over its own.
func TestInstallReadOnly(t *testing.T) {
	nstest.Run(t, func(t *testing.T) {
		old, ca := newCA(t, pkix.Name{CommonName: "an old root"}, true), newCA(t, pkix.Name{CommonName: "session"}, true)
		writableEtc(t, old)
		if err := unix.Mount("", "/etc", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		env, err := Install(ca, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		checkInstalled(t, env, old, ca)
	})
}

// TestKeyStore has Java's own tool read the store.
func TestKeyStore(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skip("needs keytool; try: apt-get install default-jre-headless")
	}
	path := filepath.Join(t.TempDir(), "cacerts.jks")
	bundle := append(newCA(t, pkix.Name{CommonName: "one"}, true), newCA(t, pkix.Name{CommonName: "two"}, true)...)
	store := keyStore(bundle, time.Now())
	if err := os.WriteFile(path, store, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(keytool, "-list", "-v", "-keystore", path, "-storepass", javaPassword).CombinedOutput()
	if err != nil || strings.Count(string(out), "trustedCertEntry") != 2 || !strings.Contains(string(out), "Owner: CN=two") {
		t.Errorf("%v\n%s", err, out)
	}
	store[len(store)/2] ^= 1 // the control
	if err := os.WriteFile(path, store, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(keytool, "-list", "-keystore", path, "-storepass", javaPassword).Run(); err == nil {
		t.Error("keytool reads a broken store")
	}
}
