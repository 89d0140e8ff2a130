package main_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// serveHosts starts a server that is all of these hosts, and returns how broker.toml leads to it.
func serveHosts(t *testing.T, hosts map[string]http.Handler) (toml string) {
	t.Helper()
	mux := http.NewServeMux()
	var names []string
	for name, h := range hosts {
		names = append(names, name)
		mux.Handle(name+"/", h)
	}
	cert, ca := issue(t, names)
	s := httptest.NewUnstartedServer(mux)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		toml += fmt.Sprintf("\n[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", name, s.Listener.Addr(), file)
	}
	return toml
}

// An issuer is a token endpoint. It gives out tokens that no two of are alike to whom it knows.
type issuer struct {
	t     *testing.T
	knows func(r *http.Request) error // with its form read

	mu     sync.Mutex
	issued map[string]bool
}

func (s *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	err := r.ParseForm()
	if err == nil {
		err = s.knows(r)
	}
	if err != nil {
		s.t.Log(err)
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	token := "real-" + rand.Text() + rand.Text()
	if s.issued == nil {
		s.issued = map[string]bool{}
	}
	s.issued[token] = true
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token":%q,"id_token":%q,"token_type":"Bearer","expires_in":3600}`, token, token)
}

// wants is a handler that lets nobody in but with a token of the issuer's.
func (s *issuer) wants(h http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token, ok := strings.CutPrefix(strings.Join(r.Header.Values("Authorization"), "|"), "Bearer ")
		s.mu.Lock()
		ok = ok && s.issued[token]
		s.mu.Unlock()
		if !ok {
			http.Error(w, `{"error":{"code":401,"message":"no token of ours"}}`, http.StatusUnauthorized)
			return
		}
		h(w, r)
	})
}

// newGoogle is Google's token endpoint, which verifies assertions, and a bucket "things" behind it. key is the account's.
func newGoogle(t *testing.T) (hosts map[string]http.Handler, key string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "robot@my-project.iam.gserviceaccount.com", "project_id": "my-project", "private_key_id": "k1",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), "token_uri": "https://oauth2.googleapis.com/token",
	})
	if err != nil {
		t.Fatal(err)
	}
	id := &issuer{t: t, knows: func(r *http.Request) error {
		signing, signature, _ := cutLast(r.PostForm.Get("assertion"), ".")
		sig, err := base64.RawURLEncoding.DecodeString(signature)
		if err != nil || r.PostForm.Get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer" {
			return fmt.Errorf("grant %q, %v", r.PostForm.Get("grant_type"), err)
		}
		sum := sha256.Sum256([]byte(signing))
		return rsa.VerifyPKCS1v15(&private.PublicKey, crypto.SHA256, sum[:], sig)
	}}
	objects := &sync.Map{}
	return map[string]http.Handler{
		"oauth2.googleapis.com": id,
		"my-service.a.run.app":  id.wants(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "served") }),
		"storage.googleapis.com": id.wants(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			name := strings.TrimPrefix(r.URL.Path, "/download/storage/v1/b/things/o/")
			switch {
			case r.Method == "POST" && r.URL.Path == "/upload/storage/v1/b/things/o":
				b, _ := io.ReadAll(r.Body)
				objects.Store("greeting", b)
				fmt.Fprint(w, `{"name":"greeting","bucket":"things","generation":"1"}`)
			case r.URL.Path == "/storage/v1/b/things/o":
				fmt.Fprint(w, `{"kind":"storage#objects","items":[{"name":"greeting","bucket":"things","generation":"1"}]}`)
			case name == "greeting":
				b, _ := objects.Load(name)
				w.Header().Set("X-Goog-Generation", "1")
				_, _ = w.Write(b.([]byte))
			default:
				http.Error(w, `{"error":{"code":404,"message":"not found"}}`, http.StatusNotFound)
			}
		}),
	}, string(b)
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

const (
	azureSecret = "az-5Q~7fKd2.bXw9LtYp3RmVn8Hc1Zs6Gj4Ea0"
	azureTenant = "contoso.example"
	azureClient = "00000000-0000-0000-0000-000000000000"
)

// newAzure is Entra ID's token endpoint and an API behind it.
func newAzure(t *testing.T) map[string]http.Handler {
	t.Helper()
	id := &issuer{t: t, knows: func(r *http.Request) error {
		if r.URL.Path != "/"+azureTenant+"/oauth2/v2.0/token" || r.PostForm.Get("client_id") != azureClient || r.PostForm.Get("client_secret") != azureSecret ||
			r.PostForm.Get("scope") != "https://management.azure.com/.default" {
			return fmt.Errorf("%s: client %q, scope %q", r.URL.Path, r.PostForm.Get("client_id"), r.PostForm.Get("scope"))
		}
		return nil
	}}
	return map[string]http.Handler{
		"login.microsoftonline.com": id,
		"management.azure.com": id.wants(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprint(w, `{"value":[{"subscriptionId":"s1"}]}`)
		}),
	}
}
