package main_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	registryHost     = "registry.example.org"
	registryPassword = "rg-6Hq2vXw9Zt4Bn7Lk3Mf8Yc1Pd5Gs0Ja"
)

// A registry is Debian's docker-registry, which takes tokens of its token server alone.
type registry struct {
	toml string

	mu    sync.Mutex
	asked []string // scopes that tokens were asked for, in order
}

// newRegistry starts one.
func newRegistry(t *testing.T) *registry {
	t.Helper()
	if _, err := exec.LookPath("docker-registry"); err != nil {
		t.Fatalf("%v (try: apt-get install docker-registry)", err)
	}
	dir := t.TempDir()
	signing, tokens := issue(t, []string{"tokens"})
	serving, ca := issue(t, []string{registryHost})
	key, err := x509.MarshalECPrivateKey(serving.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	files := map[string][]byte{
		"ca.pem": ca, "tokens.pem": tokens, "cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: serving.Certificate[0]}),
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}),
		"config.yml": fmt.Appendf(nil, "version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %[1]s/data}, delete: {enabled: true}}\n"+
			"http: {addr: %[2]q, tls: {certificate: %[1]s/cert.pem, key: %[1]s/key.pem}}\n"+
			"auth: {token: {realm: https://auth.example.org/token, service: %[3]s, issuer: auth, rootcertbundle: %[1]s/tokens.pem}}\n", dir, address, registryHost),
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("docker-registry", "serve", filepath.Join(dir, "config.yml"))
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("registry:\n%s", log)
		}
	})
	awaitListener(t, address)
	r := &registry{}
	r.toml = fmt.Sprintf("\n[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", registryHost, address, filepath.Join(dir, "ca.pem")) +
		serveHosts(t, map[string]http.Handler{"auth.example.org": r.tokenServer(signing.PrivateKey.(*ecdsa.PrivateKey), signing.Certificate[0])})
	return r
}

// tokenServer gives out tokens as distribution's specification of token authentication has them, for whatever "me" asks.
func (r *registry) tokenServer(key *ecdsa.PrivateKey, cert []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		user, password, _ := req.BasicAuth()
		if user != "me" || password != registryPassword || req.URL.Path != "/token" || req.URL.Query().Get("service") != registryHost {
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED"}]}`, http.StatusUnauthorized)
			return
		}
		access := []map[string]any{}
		r.mu.Lock()
		r.asked = append(r.asked, strings.Join(req.URL.Query()["scope"], " "))
		r.mu.Unlock()
		for _, scope := range req.URL.Query()["scope"] {
			kind, rest, _ := strings.Cut(scope, ":")
			name, actions, _ := cutLast(rest, ":")
			access = append(access, map[string]any{"type": kind, "name": name, "actions": strings.Split(actions, ",")})
		}
		now := time.Now().Unix()
		header, _ := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(cert)}})
		claims, _ := json.Marshal(map[string]any{"iss": "auth", "sub": "me", "aud": registryHost, "iat": now, "nbf": now - 60, "exp": now + 300, "jti": rand.Text(), "access": access})
		signing := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
		sum := sha256.Sum256([]byte(signing))
		x, y, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		signature := append(x.FillBytes(make([]byte, 32)), y.FillBytes(make([]byte, 32))...)
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"token":"%s.%s","expires_in":300}`, signing, base64.RawURLEncoding.EncodeToString(signature))
	})
}

// writeImage writes an OCI image layout with one layer, which holds one file, and returns the layer's digest.
func writeImage(t *testing.T, dir string, content []byte) string {
	t.Helper()
	blob := func(b []byte) string {
		sum := sha256.Sum256(b)
		name := filepath.Join(dir, "blobs", "sha256", fmt.Sprintf("%x", sum))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprintf("sha256:%x", sum)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "hello", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(layer.Bytes()); err != nil || z.Close() != nil {
		t.Fatal(err)
	}
	digest := blob(packed.Bytes())
	config := fmt.Appendf(nil, `{"architecture":"amd64","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":["sha256:%x"]}}`, sha256.Sum256(layer.Bytes()))
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":%q,"size":%d},`+
		`"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":%q,"size":%d}]}`, blob(config), len(config), digest, packed.Len())
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":%d,"annotations":{"org.opencontainers.image.ref.name":"latest"}}]}`, blob(manifest), len(manifest))
	for name, text := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": index} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return digest
}

// skopeo pushes, copies, pulls and deletes an image without a credential of its own. Where tokens are got it says by the secret, or
// the registry by its challenge, at the origin that is sealed.
func TestClientRegistry(t *testing.T) {
	for _, as := range []string{"registry:user=me,realm=https://auth.example.org", "registry:user=me,realm=https://auth.example.org/token,service=" + registryHost} {
		reg := newRegistry(t)
		h := newHouse(t, reg.toml)
		h.must("secrets", "set", "my-agent", "REGISTRY_PASSWORD="+registryPassword, "--host", registryHost, "--as", as)
		content := make([]byte, 8<<20)
		_, _ = rand.Read(content)
		layer := strings.TrimPrefix(writeImage(t, filepath.Join(h.work, "image"), content), "sha256:")
		r := h.torno("run", "--agent", "my-agent", "--isolation", "namespace", "--", "/bin/sh", "-c", `set -e
export TMPDIR="$HOME"
alias copy='skopeo --insecure-policy copy -q'
copy oci:image:latest docker://`+registryHost+`/team/app:1
copy docker://`+registryHost+`/team/app:1 docker://`+registryHost+`/other/app:1
copy docker://`+registryHost+`/other/app:1 oci:$HOME/back:latest
cmp image/blobs/sha256/`+layer+` $HOME/back/blobs/sha256/`+layer+`
skopeo list-tags docker://`+registryHost+`/other/app
skopeo delete docker://`+registryHost+`/other/app:1
curl -sS -o /dev/null -w '%{http_code}\n' https://`+registryHost+`/v2/other/app/manifests/1`)
		if r.code != 0 || !strings.Contains(r.stdout, `"1"`) || !strings.HasSuffix(r.stdout, "\n404\n") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", as, r.code, r.stdout, r.stderr)
		}
		reg.mu.Lock()
		for _, want := range []string{"repository:team/app:pull,push", "repository:other/app:pull,delete"} {
			if !slices.Contains(reg.asked, want) && !slices.Contains(reg.asked, strings.Replace(want, "pull,delete", "delete", 1)) {
				t.Errorf("%s: nobody asked for %s: %q", as, want, reg.asked)
			}
		}
		if len(reg.asked) > 12 {
			t.Errorf("%s: %d tokens: %q", as, len(reg.asked), reg.asked)
		}
		reg.mu.Unlock()
	}
}

// TestAttack32Registry has a registry whose challenge names a token server of somebody else's: the password goes nowhere, and the
// answer says why.
func TestAttack32Registry(t *testing.T) {
	var got []string
	h := newHouse(t, serveHosts(t, map[string]http.Handler{
		registryHost: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("WWW-Authenticate", `Bearer realm="https://thief.example.net/token",service="`+registryHost+`"`)
			w.WriteHeader(http.StatusUnauthorized)
		}),
		"thief.example.net": http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = append(got, r.Header.Get("Authorization")) }),
	}))
	h.must("secrets", "set", "my-agent", "REGISTRY_PASSWORD="+registryPassword, "--host", registryHost, "--as", "registry:user=me,realm=https://auth.example.org")
	r := h.torno("run", "--agent", "my-agent", "--isolation", "namespace", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %header{torno-reason}", "https://"+registryHost+"/v2/")
	if r.stdout != "502 credential_unavailable" || len(got) > 0 {
		t.Errorf("%+v; the other server got %q", r, got)
	}
	if log := h.log.String(); !strings.Contains(log, "thief.example.net/token") || findIn(log, registryPassword) != "" {
		t.Errorf("log: %s", log)
	}
}
