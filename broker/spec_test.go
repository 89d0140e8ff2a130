package broker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A guest that was written from SPEC.md alone, in another language, passes hello, leaf and forward
// exchanges against the real broker.
func TestSpecClient(t *testing.T) {
	const python = "/usr/bin/python3"
	if _, err := os.Stat(python); err != nil {
		t.Skipf("needs %s (try: apt-get install python3)", python)
	}
	up := httptest.NewTLSServer(http.HandlerFunc(checkKey))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d.must(err)
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	d.must(err)
	der := filepath.Join(t.TempDir(), "key.der")
	d.must(os.WriteFile(der, pub, 0o600))
	cmd := exec.Command(python, "../protocol/testdata/client.py", strings.TrimPrefix(s.Broker, "unix://"), der, "example.com:443")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	var got struct {
		Agent, CA   string
		Certificate []byte
		NotAfter    time.Time `json:"not_after"`
		SecondHello string    `json:"second_hello"`
		Results     []struct {
			Status          int
			Content, Reason string
		}
	}
	d.must(json.Unmarshal(stdout.Bytes(), &got))
	roots := x509.NewCertPool()
	cert, err := x509.ParseCertificate(got.Certificate)
	d.must(err)
	if !roots.AppendCertsFromPEM([]byte(got.CA)) {
		t.Error("no CA")
	}
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "example.com"}); err != nil {
		t.Error(err)
	}
	if got.Agent != "a" || len(got.Results) != 3 || got.Results[0].Content != "true 0 " || got.Results[1].Content != "true 100000 " ||
		got.Results[2].Reason != "self_test" || !strings.Contains(got.SecondHello, "status 5") {
		t.Errorf("%+v", got)
	}
}
