package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"torno.internal/broker/plugin"
	"torno.internal/broker/plugin/plugintest"
)

// configOf configures the plugin for f, by AppRole or by a token.
func configOf(t *testing.T, f *fake, token bool) plugin.Config {
	t.Helper()
	config := map[string]string{"address": f.URL}
	files := map[string][]byte{"token": []byte("given\n")}
	if !token {
		config["role_id"], files = "role", map[string][]byte{"secret_id": []byte("secret\n")}
	}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	return plugin.Config{JSON: b, Files: files}
}

// start returns a source for f.
func start(t *testing.T, f *fake, token bool) *source {
	t.Helper()
	s := &source{}
	if err := s.Configure(t.Context(), configOf(t, f, token)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestConformance(t *testing.T) {
	for _, token := range []bool{false, true} {
		f := newFake(t)
		f.tokens["given"] = time.Now().Add(time.Hour)
		f.put("secret/data/app", map[string]string{"key": "first-value-0123456789", "other": "second-value"})
		f.put("kv/app", map[string]string{"key": "of-the-first-engine"})
		plugintest.Source(t, &source{}, plugintest.SourceCase{
			Config: configOf(t, f, token), Versions: false, Missing: "secret/data/nothing#key",
			Have: map[string]string{"secret/data/app#key": "first-value-0123456789", "secret/data/app#other": "second-value", "kv/app#key": "of-the-first-engine"},
		})
	}
}

func TestVersions(t *testing.T) {
	f := newFake(t)
	f.put("secret/data/app", map[string]string{"key": "one"})
	f.put("secret/data/app", map[string]string{"key": "two"})
	s := start(t, f, false)
	for ref, want := range map[string][2]string{"secret/data/app#key": {"two", "2"}, "secret/data/app?version=1#key": {"one", "1"}} {
		if got, err := s.Fetch(t.Context(), ref); err != nil || string(got.Value) != want[0] || got.Version != want[1] || !got.Expires.IsZero() {
			t.Errorf("%s: %q, version %q, %v", ref, got.Value, got.Version, err)
		}
	}
	f.put("secret/data/app", nil) // deleted
	if _, err := s.Fetch(t.Context(), "secret/data/app#key"); !errors.Is(err, plugin.ErrNotFound) {
		t.Error(err)
	}
}

// TestRenewed has tokens and leases of a few seconds live on, and be given back.
func TestRenewed(t *testing.T) {
	for _, token := range []bool{false, true} {
		t.Run(fmt.Sprintf("token=%v", token), func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.lasts = 9 * time.Second
			f.tokens["given"] = time.Now().Add(f.lasts)
			s := start(t, f, token)
			user, err := s.Fetch(t.Context(), "database/creds/app#username")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(15 * time.Second)
			again, err1 := s.Fetch(t.Context(), "database/creds/app#username")
			password, err2 := s.Fetch(t.Context(), "database/creds/app#password")
			if err := errors.Join(err1, err2); err != nil {
				t.Fatal(err)
			}
			if string(user.Value) != "user-1" || string(again.Value) != "user-1" || string(password.Value) != "password-1" || again.Version != user.Version || !again.Expires.After(user.Expires) {
				t.Errorf("%q, %q, %q of %v", user.Value, again.Value, password.Value, again.Expires)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			f.mu.Lock()
			wanted := map[bool]string{false: "hvs.1", true: "database/creds/app/lease0001"}[token]
			if f.renewed["token"] == 0 || f.renewed["lease"] == 0 || len(f.revoked) != 1 || f.revoked[0] != wanted {
				t.Errorf("renewed %v, revoked %v", f.renewed, f.revoked)
			}
			f.mu.Unlock()
		})
	}
}

// TestLogsInAgain has tokens be revoked under the plugin, and leases be lost.
func TestLogsInAgain(t *testing.T) {
	f := newFake(t)
	f.put("secret/data/app", map[string]string{"key": "one"})
	s := start(t, f, false)
	f.mu.Lock()
	clear(f.tokens)
	f.mu.Unlock()
	if got, err := s.Fetch(t.Context(), "secret/data/app#key"); err != nil || string(got.Value) != "one" || f.logins != 2 {
		t.Errorf("%q, %v after %d logins", got.Value, err, f.logins)
	}
}

func TestFailures(t *testing.T) {
	f := newFake(t)
	s := start(t, f, false)
	for ref, want := range map[string]error{
		"secret/forbidden#key": plugin.ErrDenied, "secret/data/none#key": plugin.ErrNotFound, "sys/seal-status#sealed": plugin.ErrInvalid,
		"auth/token/lookup-self#id": plugin.ErrInvalid, "secret/data/app": plugin.ErrInvalid, "secret/data/../x#key": plugin.ErrInvalid,
		"secret/data/app?list=true#key": plugin.ErrInvalid, "secret/data/app?version=01#key": plugin.ErrInvalid, "/secret#key": plugin.ErrInvalid,
	} {
		if _, err := s.Fetch(t.Context(), ref); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", ref, err, want)
		}
	}
	for _, ref := range []string{"secret/strange#key", "secret/elsewhere#key"} {
		if _, err := s.Fetch(t.Context(), ref); err == nil {
			t.Errorf("%s is fetched", ref)
		}
	}
	for status, want := range map[int]error{500: plugin.ErrUnavailable, 503: plugin.ErrUnavailable, 429: plugin.ErrUnavailable, 473: plugin.ErrUnavailable, 404: plugin.ErrNotFound} {
		f.mu.Lock()
		f.status = status
		f.mu.Unlock()
		if _, err := s.Fetch(t.Context(), "secret/data/app#key"); !errors.Is(err, want) || strings.Contains(err.Error(), "secret-in-an-error") {
			t.Errorf("status %d: %v, want %v", status, err, want)
		}
	}
	f.Close()
	if _, err := s.Fetch(t.Context(), "secret/data/app#key"); !errors.Is(err, plugin.ErrUnavailable) {
		t.Errorf("nobody there: %v", err)
	}
}

func TestConfigure(t *testing.T) {
	f := newFake(t)
	secret := map[string][]byte{"secret_id": []byte("secret")}
	for config, files := range map[string]map[string][]byte{
		`{"address":"http://vault.example.org"}`: {"token": []byte("t")}, `{"address":"vault"}`: {"token": []byte("t")},
		`{"address":"https://u@vault.example.org"}`: {"token": []byte("t")}, `{"address":"https://vault.example.org/v1"}`: {"token": []byte("t")},
		`{"address":"` + f.URL + `"}`: nil, `{"address":"` + f.URL + `","role_id":"role"}`: nil, `{"address":"` + f.URL + `","role":"role"}`: secret,
		`{"address":"` + f.URL + `","role_id":"another"}`: secret, `{"address":"` + f.URL + `","role_id":"role","x":1}`: secret,
	} {
		s := &source{}
		if err := s.Configure(t.Context(), plugin.Config{JSON: []byte(config), Files: files}); err == nil {
			t.Errorf("%s passes", config)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("secret/data/app#key")
	f.Add("secret/data/app?version=3#key")
	f.Fuzz(func(t *testing.T, ref string) {
		path, field, err := parse(ref)
		if err != nil {
			return
		}
		if path+"#"+field != ref || strings.Contains(path, "..") && strings.Contains("/"+path+"/", "/../") || strings.HasPrefix(path, "/") {
			t.Errorf("%q becomes %q, %q", ref, path, field)
		}
	})
}
