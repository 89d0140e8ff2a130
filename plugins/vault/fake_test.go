package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A fake speaks as much of Vault's API as the plugin asks for, with tokens and leases that end.
type fake struct {
	*httptest.Server
	mu      sync.Mutex
	secrets map[string][]map[string]string // versions by path, of the key-value engine
	tokens  map[string]time.Time           // when they end
	lasts   time.Duration                  // of tokens and leases
	leases  map[string]bool
	renewed map[string]int // "token" and "lease"
	logins  int
	revoked []string
	status  int // to answer with, instead of anything; 0: none
	next    int
}

func newFake(t *testing.T) *fake {
	f := &fake{
		secrets: map[string][]map[string]string{}, tokens: map[string]time.Time{}, leases: map[string]bool{},
		renewed: map[string]int{}, lasts: time.Hour,
	}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fake) put(path string, fields map[string]string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.secrets[path] = append(f.secrets[path], fields)
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var in map[string]string
	_ = json.NewDecoder(r.Body).Decode(&in)
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	answer := func(v any) { _ = json.NewEncoder(w).Encode(v) }
	auth := func(token string) map[string]any {
		f.tokens[token] = time.Now().Add(f.lasts)
		return map[string]any{"auth": map[string]any{"client_token": token, "lease_duration": int(f.lasts.Seconds()), "renewable": true}}
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
		fmt.Fprint(w, `{"errors":["secret-in-an-error"]}`)
		return
	}
	if path == "auth/approle/login" {
		if in["role_id"] != "role" || in["secret_id"] != "secret" {
			w.WriteHeader(400)
			return
		}
		f.logins++
		answer(auth(fmt.Sprint("hvs.", f.logins)))
		return
	}
	token := r.Header.Get("X-Vault-Token")
	if ends, ok := f.tokens[token]; !ok || time.Now().After(ends) {
		w.WriteHeader(403)
		return
	}
	switch path {
	case "auth/token/lookup-self":
		answer(map[string]any{"data": map[string]any{"ttl": int(f.lasts.Seconds()), "renewable": true}})
	case "auth/token/renew-self":
		f.renewed["token"]++
		answer(auth(token))
	case "auth/token/revoke-self":
		delete(f.tokens, token)
		f.revoked = append(f.revoked, token)
		w.WriteHeader(204)
	case "sys/leases/renew":
		if !f.leases[in["lease_id"]] {
			w.WriteHeader(400)
			return
		}
		f.renewed["lease"]++
		answer(map[string]any{"lease_id": in["lease_id"], "lease_duration": int(f.lasts.Seconds()), "renewable": true})
	case "sys/leases/revoke":
		delete(f.leases, in["lease_id"])
		f.revoked = append(f.revoked, in["lease_id"])
		w.WriteHeader(204)
	case "database/creds/app":
		f.next++
		id := fmt.Sprintf("database/creds/app/lease%04d", f.next)
		f.leases[id] = true
		answer(map[string]any{"lease_id": id, "lease_duration": int(f.lasts.Seconds()), "renewable": true,
			"data": map[string]any{"username": fmt.Sprint("user-", f.next), "password": fmt.Sprint("password-", f.next)}})
	case "secret/forbidden":
		w.WriteHeader(403)
	case "secret/strange":
		fmt.Fprint(w, "<html>")
	case "secret/elsewhere":
		http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
	default:
		f.read(w, path, r.URL.Query().Get("version"), answer)
	}
}

// read answers as the key-value engine does: its second version below secret/data, its first elsewhere.
func (f *fake) read(w http.ResponseWriter, path, version string, answer func(any)) {
	all := f.secrets[path]
	n := len(all)
	if version != "" {
		_, _ = fmt.Sscan(version, &n)
	}
	if n < 1 || n > len(all) {
		w.WriteHeader(404)
		return
	}
	if !strings.HasPrefix(path, "secret/data/") {
		answer(map[string]any{"lease_duration": 2764800, "data": all[n-1]})
		return
	}
	answer(map[string]any{"data": map[string]any{"data": all[n-1], "metadata": map[string]any{"version": n}}})
}
