package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

// A fake answers GetSecretValue as AWS does, to who signs for it.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	secrets map[string]string
	version int
	failure string // the type of an error to answer with
	status  int
}

func newFake(t *testing.T) *fake {
	f := &fake{secrets: map[string]string{}, status: 400}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) put(_ *testing.T, ref, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[ref] = value
	f.version++
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fail := func(kind string) {
		w.WriteHeader(f.status)
		fmt.Fprintf(w, `{"__type":"com.amazonaws#%s","message":"secret-in-an-error"}`, kind)
	}
	body, _ := io.ReadAll(r.Body)
	if f.failure != "" {
		fail(f.failure)
		return
	}
	if !signed(r, body) {
		fail("InvalidSignatureException")
		return
	}
	var in struct {
		SecretID string `json:"SecretId"`
	}
	if err := json.Unmarshal(body, &in); err != nil || r.Header.Get("X-Amz-Target") != "secretsmanager.GetSecretValue" {
		fail("InvalidParameterException")
		return
	}
	value, ok := f.secrets[in.SecretID]
	if !ok {
		fail("ResourceNotFoundException")
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]string{"Name": in.SecretID, "SecretString": value, "VersionId": fmt.Sprintf("%036d", f.version)})
}

// signed signs the request anew, and compares.
func signed(r *http.Request, body []byte) bool {
	at, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(at).Abs() > time.Minute {
		return false
	}
	again, _ := http.NewRequest(r.Method, "http://"+r.Host+r.URL.Path, bytes.NewReader(body))
	for _, name := range []string{"Content-Type", "X-Amz-Target"} {
		again.Header.Set(name, r.Header.Get(name))
	}
	sum := sha256.Sum256(body)
	keys := aws.Credentials{AccessKeyID: "AKIAEXAMPLE", SecretAccessKey: "secret"}
	if err := v4.NewSigner().SignHTTP(r.Context(), keys, again, hex.EncodeToString(sum[:]), "secretsmanager", "eu-central-1", at); err != nil {
		return false
	}
	return again.Header.Get("Authorization") == r.Header.Get("Authorization")
}

func configOf(f *fake) plugin.Config {
	return plugin.Config{
		JSON:  []byte(`{"region":"eu-central-1","endpoint":"` + f.URL + `"}`),
		Files: map[string][]byte{"credentials": []byte("AKIAEXAMPLE:secret\n")},
	}
}

func TestConformance(t *testing.T) {
	f := newFake(t)
	f.put(t, "a/plain", "first-value-0123456789")
	f.put(t, "fields", `{"user":"me","password":"of-the-object","port":5432}`)
	plugintest.Source(t, &source{}, plugintest.SourceCase{
		Config: configOf(f), Versions: true, Missing: "nothing", Change: f.put,
		Have: map[string]string{"a/plain": "first-value-0123456789", "fields#password": "of-the-object", "fields#port": "5432"},
	})
}

func TestFailures(t *testing.T) {
	f := newFake(t)
	f.put(t, "plain", "text")
	s := &source{}
	if err := s.Configure(t.Context(), configOf(f)); err != nil {
		t.Fatal(err)
	}
	for ref, want := range map[string]error{"plain#key": plugin.ErrInvalid, "none": plugin.ErrNotFound, "plain#": plugin.ErrInvalid, "-plain": plugin.ErrInvalid} {
		if _, err := s.Fetch(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", ref, err, want)
		}
	}
	for kind, want := range kinds {
		f.mu.Lock()
		f.failure = kind
		f.mu.Unlock()
		if _, err := s.Fetch(t.Context(), "plain"); !errors.Is(err, want) || strings.Contains(err.Error(), "secret-in-an-error") {
			t.Errorf("%s: %v, want %v", kind, err, want)
		}
	}
	f.mu.Lock()
	f.failure, f.status = "Other", 503
	f.mu.Unlock()
	if _, err := s.Fetch(t.Context(), "plain"); !errors.Is(err, plugin.ErrUnavailable) {
		t.Error(err)
	}
	wrong := configOf(f)
	wrong.Files = map[string][]byte{"credentials": []byte("AKIAEXAMPLE:another")}
	f.mu.Lock()
	f.failure, f.status = "", 400
	f.mu.Unlock()
	s = &source{}
	if err := s.Configure(t.Context(), wrong); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context(), "plain"); !errors.Is(err, plugin.ErrDenied) {
		t.Errorf("another key: %v", err)
	}
	for _, bad := range []string{`{}`, `{"region":"EU"}`, `{"region":"eu","endpoint":"http://aws.example"}`, `{"region":"eu","x":1}`} {
		if err := (&source{}).Configure(t.Context(), plugin.Config{JSON: []byte(bad), Files: wrong.Files}); !errors.Is(err, plugin.ErrInvalid) {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if err := (&source{}).Configure(t.Context(), plugin.Config{JSON: []byte(`{"region":"eu"}`)}); !errors.Is(err, plugin.ErrInvalid) {
		t.Error("no credentials pass")
	}
}
