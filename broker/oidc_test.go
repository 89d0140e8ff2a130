package broker

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// oidcIssuer is what the provider's tokens name.
const oidcIssuer = idServer + "/"

// startOIDC starts zitadel/oidc's example provider and returns a handler that leads to it.
func startOIDC(t *testing.T) http.Handler {
	t.Helper()
	program, err := filepath.Abs("../.cache/oidc/oidc")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the OpenID Connect server is not built (make client-deps)")
		}
		t.Skip("the OpenID Connect server is not built (try: make client-deps)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := ln.Addr().String()
	ln.Close()
	cmd := exec.Command(program, "-listen", at, "-issuer", oidcIssuer, "-redirect", "http://localhost:1/done")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 400 {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: at})
			transport := &http.Transport{}
			proxy.Transport = transport
			t.Cleanup(transport.CloseIdleConnections)
			return proxy
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the OpenID Connect server does not listen")
	return nil
}

// TestOIDCClientCredentials has a real server judge the client, and the token.
func TestOIDCClientCredentials(t *testing.T) {
	provider := startOIDC(t)
	for _, tt := range []struct{ id, value, reason string }{{"sid1", "verysecret", ""}, {"sid1", "verysecreT", "credential_unavailable"}, {"sid2", "verysecret", "credential_unavailable"}} {
		var token string
		_, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			token = strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
			_, _ = io.WriteString(w, token)
		}), provider, "oauth2:token="+idServer+"/oauth/token,id="+tt.id+",scope=openid", tt.value)
		resp, body, err := stream().ask(get("/"), "")
		if err != nil || resp.Fields.Get("torno-reason") != tt.reason {
			t.Errorf("%s: %v, %v", tt.id, resp, err)
		}
		if (token != "") != (tt.reason == "") || token != "" && tokenLeaks(token, body) {
			t.Errorf("%s: token %q came back in %q", tt.id, token, body)
		}
	}
}

// TestOIDCRefresh logs a user in, hands the refresh token to the broker, and has the server say whose the access token is.
// The server issues another refresh token each time and takes none twice.
func TestOIDCRefresh(t *testing.T) {
	provider := startOIDC(t)
	refresh := logIn(t, provider)
	user, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "web", "client_secret": "secret", "refresh_token": refresh})
	d, stream := openedMinting(t, provider, provider, "refresh-token:token="+idServer+"/oauth/token,auth=basic", string(user))
	for range 3 {
		resp, body, err := stream().ask(get("/userinfo"), "")
		if err != nil || resp.Status != 200 || !strings.Contains(body, `"sub":"id1"`) {
			t.Fatalf("%v, %q, %v", resp, body, err)
		}
		d.stop() // with it go the access tokens
		d.start()
	}
	if log := d.auditText(); strings.Count(log, `"event":"secret_replaced"`) != 3 {
		t.Errorf("audit: %s", log)
	}
	// The control: the first refresh token is worth nothing by now.
	_, stream = openedMinting(t, provider, provider, "refresh-token:token="+idServer+"/oauth/token,auth=basic", string(user))
	if resp, _, err := stream().ask(get("/userinfo"), ""); err != nil || resp.Fields.Get("torno-reason") != "credential_unavailable" {
		t.Errorf("a refresh token that was used: %v, %v", resp, err)
	}
}

// A direct transport calls a handler.
type direct struct{ http.Handler }

func (d direct) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if r.Body == nil {
		r.Body = http.NoBody
	}
	d.ServeHTTP(rec, r)
	resp := rec.Result()
	resp.Request = r
	return resp, nil
}

// logIn goes through the provider's pages as a browser and returns the refresh token.
func logIn(t *testing.T, provider http.Handler) string {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: direct{provider}, Jar: jar, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Host != "example.com:8443" || strings.HasPrefix(r.URL.Path, "/login") {
			return http.ErrUseLastResponse
		}
		return nil
	}}
	at := func(resp *http.Response, err error) *url.URL {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		u, err := resp.Location()
		if err != nil {
			b, _ := io.ReadAll(resp.Body)
			t.Fatalf("%s leads nowhere: %d %s", resp.Request.URL, resp.StatusCode, b)
		}
		return u
	}
	const redirect = "http://localhost:1/done"
	page := at(browser.Get(idServer + "/auth?" + url.Values{"client_id": {"web"}, "redirect_uri": {redirect}, "response_type": {"code"}, "scope": {"openid profile offline_access"}, "state": {"s"}}.Encode()))
	done := at(browser.PostForm(idServer+"/login/username", url.Values{"id": {page.Query().Get("authRequestID")}, "username": {"test-user@example.com"}, "password": {"verysecure"}}))
	req, err := http.NewRequest("POST", idServer+"/oauth/token", strings.NewReader(url.Values{"grant_type": {"authorization_code"}, "code": {done.Query().Get("code")}, "redirect_uri": {redirect}}.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("web", "secret")
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := browser.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var tokens struct {
		Refresh string `json:"refresh_token"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&tokens); err != nil || tokens.Refresh == "" {
		t.Fatalf("%d: no refresh token (%v)", resp.StatusCode, err)
	}
	return tokens.Refresh
}
