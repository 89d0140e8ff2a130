package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// idServer is where tests have a token endpoint, as the broker sees it.
const idServer = "https://example.com:8443"

// An issuer is a stand-in of a token endpoint. It gives out tokens that no two of are alike.
type issuer struct {
	mu     sync.Mutex
	asked  []*http.Request // with their forms read
	forms  []url.Values
	issued []string
	answer func(w http.ResponseWriter, r *http.Request, token string) // nil: as RFC 6749 §5.1
}

func (s *issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := io.ReadAll(r.Body)
	form, _ := url.ParseQuery(string(b))
	token := fmt.Sprintf("token-%d-%s", len(s.issued), rand.Text())
	s.asked, s.forms, s.issued = append(s.asked, r), append(s.forms, form), append(s.issued, token)
	if s.answer != nil {
		s.answer(w, r, token)
		return
	}
	fmt.Fprintf(w, `{"access_token":%q,"token_type":"Bearer","expires_in":3600}`, token)
}

// last returns the last request, its form and the token that it got.
func (s *issuer) last() (*http.Request, url.Values, string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.asked) == 0 {
		return nil, nil, ""
	}
	n := len(s.asked) - 1
	return s.asked[n], s.forms[n], s.issued[n]
}

func (s *issuer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.issued)
}

// openedMinting is openedAs with a token endpoint at idServer.
func openedMinting(t testing.TB, up, id http.Handler, as, value string) (*desk, func() *peer) {
	t.Helper()
	api, tokens := httptest.NewTLSServer(up), httptest.NewTLSServer(id)
	t.Cleanup(api.Close)
	t.Cleanup(tokens.Close)
	d := newDesk(t, api)
	d.stop()
	d.cfg.Operator.Limits, d.cfg.tokenFresh = generous, time.Nanosecond
	d.cfg.Operator.Upstreams = append(d.cfg.Operator.Upstreams, control.Upstream{
		Host: "example.com", Port: 8443, Dial: tokens.Listener.Addr().String(), CA: filepath.Join(d.dir, "ca.pem"),
	})
	d.start()
	d.must(d.setAs("a", "KEY", value, as, 1, "https://example.com"))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return d, func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
}

// echoToken answers with the credential in a field and, in several spellings, in content.
func echoToken(w http.ResponseWriter, r *http.Request) {
	got := r.Header.Get("Authorization")
	w.Header().Set("X-Echo", got)
	token := strings.TrimPrefix(got, "Bearer ")
	fmt.Fprintf(w, "%s\n%s\n%s", got, base64.StdEncoding.EncodeToString([]byte("x:"+token)), spell(token, "%%%02X"))
}

func rsaKey(t testing.TB) (*rsa.PrivateKey, string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func ecKey(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

// maskedRun is what a token leaves behind, in one of the mask characters.
var maskedRun = regexp.MustCompile(`[*]{20,}|#{20,}|~{20,}|x{20,}|[.]{20,}`)

// tokenLeaks reports whether text holds a run of a token that counts.
func tokenLeaks(token, text string) bool {
	_, runs := redact.NewMatcher([]redact.Secret{secretOf(token)}).Text(text)
	return runs > 0
}

// TestAttack42BrokeredTokens gets a token by each kind of secret. The host gets the token alone, what it repeats is masked,
// and neither token nor secret is in the audit.
func TestAttack42BrokeredTokens(t *testing.T) {
	_, rsaPEM := rsaKey(t)
	_, ecPEM := ecKey(t)
	google, _ := json.Marshal(map[string]string{"type": "service_account", "client_email": "robot@example.org", "private_key_id": "k1", "private_key": rsaPEM, "token_uri": idServer + "/token"})
	user, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "cid", "client_secret": testKey, "refresh_token": "refresh-" + rand.Text()})
	tests := []struct {
		as, value string
		path      string
		form      map[string]string // "*": anything
		auth      string            // of the token request: its beginning
		wrap      func(w http.ResponseWriter, r *http.Request, token string)
	}{
		{"oauth2:token=" + idServer + "/token,id=me,scope=read write", testKey, "/token", map[string]string{"grant_type": "client_credentials", "scope": "read write", "client_secret": ""}, "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+testKey)), nil},
		{"oauth2:token=" + idServer + "/token,id=me,auth=post", testKey, "/token", map[string]string{"client_id": "me", "client_secret": testKey}, "", nil},
		{"oauth2:token=" + idServer + "/token,id=me,auth=jwt", ecPEM, "/token", map[string]string{"client_assertion": "*", "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"}, "", nil},
		{"refresh-token:token=" + idServer + "/token,id=me", testKey, "/token", map[string]string{"grant_type": "refresh_token", "refresh_token": testKey, "client_id": "me"}, "", nil},
		{"refresh-token:token=" + idServer + "/token", string(user), "/token", map[string]string{"refresh_token": "*", "client_id": "cid", "client_secret": testKey}, "", nil},
		{"jwt-bearer:token=" + idServer + "/token,iss=me", rsaPEM, "/token", map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": "*"}, "", nil},
		{"token-exchange:token=" + idServer + "/token,audience=x", testKey, "/token", map[string]string{"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token": testKey, "audience": "x"}, "", nil},
		{"github-app:app=12,installation=34,api=" + idServer, rsaPEM, "/app/installations/34/access_tokens", nil, "Bearer eyJ", func(w http.ResponseWriter, _ *http.Request, token string) {
			w.WriteHeader(http.StatusCreated)
			fmt.Fprintf(w, `{"token":%q,"expires_at":%q,"permissions":{"contents":"read"}}`, token, time.Now().Add(time.Hour).UTC().Format(time.RFC3339))
		}},
		{"google:token=" + idServer + "/token", string(google), "/token", map[string]string{"assertion": "*"}, "", nil},
		{"google:audience=https://run.example.org,token=" + idServer + "/token", string(google), "/token", map[string]string{"assertion": "*"}, "", func(w http.ResponseWriter, _ *http.Request, token string) {
			fmt.Fprintf(w, `{"id_token":%q}`, token)
		}},
		{"azure:tenant=t1,id=me,login=" + idServer, testKey, "/t1/oauth2/v2.0/token", map[string]string{"grant_type": "client_credentials", "client_secret": testKey, "scope": control.DefaultAzureScope}, "", nil},
		{"registry:realm=" + idServer + "/token,service=registry.example.org,user=me", testKey, "/token?service=registry.example.org&scope=repository%3Aorg%2Fimage%3Apull", nil, "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+testKey)), func(w http.ResponseWriter, _ *http.Request, token string) {
			fmt.Fprintf(w, `{"token":%q,"access_token":%q,"expires_in":300,"issued_at":"2026-01-02T03:04:05Z"}`, token, token)
		}},
	}
	for _, tt := range tests {
		t.Run(strings.SplitN(tt.as, "=", 2)[0], func(t *testing.T) {
			id := &issuer{answer: tt.wrap}
			var sent string
			d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				sent = strings.Join(r.Header.Values("Authorization"), "|")
				echoToken(w, r)
			}), id, tt.as, tt.value)
			for range 3 {
				resp, body, err := stream().ask(get("/v2/org/image/manifests/latest", protocol.Field{Name: "authorization", Value: "Bearer own"}), "")
				if err != nil || resp.Status != 200 {
					t.Fatalf("%v, %v; %s", resp, err, d.auditText())
				}
				_, _, token := id.last()
				if sent != "Bearer "+token {
					t.Errorf("the host got %q, want %q", sent, token)
				}
				if all := body + resp.Fields.Get("x-echo"); tokenLeaks(token, all) || len(maskedRun.FindAllString(all, -1)) < 4 {
					t.Errorf("came back: %q", all)
				}
			}
			req, form, token := id.last()
			if req.RequestURI != tt.path || !strings.HasPrefix(req.Header.Get("Authorization"), tt.auth) || (req.Header.Get("Authorization") == "") != (tt.auth == "") {
				t.Errorf("asked %s with %q", req.RequestURI, req.Header.Get("Authorization"))
			}
			for k, want := range tt.form {
				if got := form.Get(k); got != want && (want != "*" || got == "") {
					t.Errorf("%s = %q, want %q", k, got, want)
				}
			}
			if id.count() != 1 {
				t.Errorf("%d tokens for three requests", id.count())
			}
			log := d.auditWith(eventMinted)
			if tokenLeaks(token, log) || leaks(log) {
				t.Errorf("audit: %s", log)
			}
		})
	}
}

// A token that the host does not take is got anew, once, for requests that can be sent twice. Each try has a record.
func TestTokenRefusedByHost(t *testing.T) {
	id := &issuer{}
	var mu sync.Mutex
	var sent []string
	refuse := 1
	d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		sent = append(sent, r.Method+" "+r.Header.Get("Authorization"))
		if _, _, token := id.last(); len(sent) <= refuse || r.Header.Get("Authorization") != "Bearer "+token {
			w.WriteHeader(http.StatusUnauthorized)
		}
		echoToken(w, r)
	}), id, "oauth2:token="+idServer+"/token,id=me", testKey)
	p := stream()
	post := get("/", protocol.Field{Name: "content-length", Value: "1"})
	post.Method = "POST"
	if resp, _, err := p.ask(post, "x"); err != nil || resp.Status != 401 || id.count() != 1 {
		t.Fatalf("POST: %v, %v; %d tokens", resp, err, id.count())
	}
	mu.Lock()
	sent = nil
	mu.Unlock()
	resp, body, err := p.ask(get("/x"), "")
	if err != nil || resp.Status != 200 || id.count() != 2 || len(sent) != 2 || sent[0] == sent[1] {
		t.Fatalf("%v, %v; sent %q", resp, err, sent)
	}
	for _, token := range id.issued {
		if tokenLeaks(token, body) {
			t.Errorf("%s came back in %q", token, body)
		}
	}
	if log := d.auditText(); strings.Count(log, `"path":"/x"`) != 2 || strings.Count(log, `"status":401`) != 2 {
		t.Errorf("audit: %s", log)
	}
	if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Status != 200 { // the stream goes on
		t.Errorf("%v, %v", resp, err)
	}
}

// TestAttack32Endpoints has the token endpoint lead elsewhere, or not be there: nothing is sent to the host, nothing secret is
// logged, and the session goes on.
func TestAttack32Endpoints(t *testing.T) {
	arrived, elsewhere := 0, 0
	evil := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer evil.Close()
	id := &issuer{answer: func(w http.ResponseWriter, r *http.Request, _ string) {
		http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
	}}
	d, stream := openedMinting(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived++ }), id, "oauth2:token="+idServer+"/token,id=me", testKey)
	p := stream()
	for range 3 {
		resp, _, err := p.ask(get("/"), "")
		if err != nil || resp.Status != 502 || resp.Fields.Get("torno-reason") != "credential_unavailable" {
			t.Errorf("%v, %v", resp, err)
		}
	}
	if arrived != 0 || elsewhere != 0 || id.count() != 1 {
		t.Errorf("%d requests arrived, %d at the redirect's target; %d were made", arrived, elsewhere, id.count())
	}
	if log := d.auditWith(eventNotMinted); leaks(log) {
		t.Errorf("audit: %s", log)
	}
	private := "oauth2:token=https://10.0.0.1/token,id=me"
	_, stream = openedMinting(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { arrived++ }), id, private, testKey)
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Fields.Get("torno-reason") != "credential_unavailable" || arrived != 0 {
		t.Errorf("a private address: %v, %v", resp, err)
	}
}

// A revoked secret's token is of no use any more, and what the host repeats of it is masked on.
func TestRevokedTokens(t *testing.T) {
	id := &issuer{}
	d, stream := openedMinting(t, http.HandlerFunc(echoToken), id, "oauth2:token="+idServer+"/token,id=me", testKey)
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Status != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=KEY", nil, nil))
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Fields.Get("torno-reason") != "revoked" || id.count() != 1 {
		t.Errorf("%v, %v; %d tokens", resp, err, id.count())
	}
}

// TestAttack32RefreshEchoed has an endpoint that issues another refresh token each time, and takes none twice. The new one is
// sealed before anything else happens, so that a new broker goes on with it; it is masked as the first one is.
func TestAttack32RefreshEchoed(t *testing.T) {
	user, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "cid", "client_secret": "cs-" + rand.Text(), "refresh_token": testKey})
	for as, value := range map[string]string{"refresh-token:token=" + idServer + "/token,id=me": testKey, "refresh-token:token=" + idServer + "/token": string(user)} {
		refresh := testKey
		var all []string
		id := &issuer{}
		id.answer = func(w http.ResponseWriter, _ *http.Request, token string) {
			if id.forms[len(id.forms)-1].Get("refresh_token") != refresh {
				w.WriteHeader(http.StatusBadRequest)
				_, _ = io.WriteString(w, `{"error":"invalid_grant"}`)
				return
			}
			refresh = "refresh-" + rand.Text()
			all = append(all, refresh)
			fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"expires_in":3600}`, token, refresh)
		}
		d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, testKey+" "+strings.Join(all, " "))
		}), id, as, value)
		ask := func(secret ...string) {
			t.Helper()
			resp, body, err := stream().ask(get("/"), "")
			if err != nil || resp.Status != 200 {
				t.Fatalf("%v, %q, %v", resp, body, err)
			}
			for _, r := range append(secret, all...) {
				if tokenLeaks(r, body) {
					t.Errorf("%s came back in %q", r, body)
				}
			}
		}
		ask(testKey)
		d.stop()
		d.start() // tokens are gone, what they were got with is not
		ask()     // what was the first token is worth nothing by now, and nobody knows it any more
		if len(all) != 2 {
			t.Errorf("%d refresh tokens", len(all))
		}
		if log := d.auditText(); strings.Count(log, `"event":"secret_replaced"`) != 2 {
			t.Errorf("audit: %s", log)
		}
	}
}

// TestAttack32TokenInOpenAnswer has a host repeat in an answer that has begun a token that the session got later: it is
// masked as those that were there before.
func TestAttack32TokenInOpenAnswer(t *testing.T) {
	id, later := &issuer{}, make(chan string)
	d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := strings.HasPrefix(r.Header.Get("Authorization"), "Bearer token-0-")
		switch {
		case r.URL.Path == "/events":
			_, _ = io.WriteString(w, "begun ")
			w.(http.Flusher).Flush()
			for piece := range later {
				_, _ = io.WriteString(w, piece)
				w.(http.Flusher).Flush()
			}
		case first:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}), id, "oauth2:token="+idServer+"/token,id=me", testKey)
	p := stream()
	d.must(p.w.WriteRequest(get("/events")))
	d.must(p.w.Close(nil))
	var resp protocol.Response
	d.must(p.r.ReadResponse(&resp))
	_, _, old := id.last()
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Status != 200 || id.count() != 2 {
		t.Fatalf("%v, %v; %d tokens", resp, err, id.count())
	}
	_, _, token := id.last()
	later <- "old " + old + " new " + token[:9]
	later <- token[9:] + " end"
	close(later)
	body, err := io.ReadAll(p.r)
	d.must(err)
	text := string(body)
	if !strings.HasPrefix(text, "begun ") || !strings.HasSuffix(text, " end") || len(maskedRun.FindAllString(text, -1)) < 2 {
		t.Errorf("the control: %q", text)
	}
	for _, token := range []string{old, token} {
		if tokenLeaks(token, text) {
			t.Errorf("%s came through: %q", token, text)
		}
	}
}
