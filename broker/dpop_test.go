package broker

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/protocol"
)

// A dpopServer is an authorisation server and a resource server that take tokens with proofs alone (testdata/dpop.mjs).
type dpopServer struct {
	http.Handler
	refresh, key string // a refresh token and the key that it is bound to
}

// startDPoP starts one.
func startDPoP(t *testing.T) *dpopServer {
	t.Helper()
	modules, err := filepath.Abs("../.cache/clients/node/node_modules")
	if err == nil {
		_, err = os.Stat(filepath.Join(modules, "oidc-provider"))
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("the client packages are not installed (make client-deps)")
		}
		t.Skip("the client packages are not installed (try: make client-deps)")
	}
	cmd := exec.Command("node", "testdata/dpop.mjs", modules, idServer, "https://example.com")
	var log strings.Builder
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the server: %s", &log)
		}
	})
	var said struct {
		Address int    `json:"address"`
		Refresh string `json:"refresh_token"`
		Key     string `json:"dpop_key"`
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err != nil || json.Unmarshal(line, &said) != nil {
		t.Fatalf("%q, %v: %s", line, err, &log)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", said.Address)})
	transport := &http.Transport{}
	proxy.Transport = transport
	t.Cleanup(transport.CloseIdleConnections)
	return &dpopServer{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("X-Forwarded-Proto", "https")
		proxy.ServeHTTP(w, r)
	}), said.Refresh, said.Key}
}

// counted counts requests by the status that they were answered with.
type counted struct {
	http.Handler
	statuses map[int]int
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s := &statusWriter{w, 200}
	c.Handler.ServeHTTP(s, r)
	c.statuses[s.status]++
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (s *statusWriter) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// TestDPoP has real servers judge tokens and proofs, both of which want nonces: the first request to each is sent twice, with
// its content, and no later one until the nonce changes.
func TestDPoP(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		server := startDPoP(t)
		api, id := &counted{server, map[int]int{}}, &counted{server, map[int]int{}}
		d, stream := openedMinting(t, api, id, "oauth2:token="+idServer+"/token,id=machine,scope=read,dpop="+alg, "machine-secret-0123456789")
		ask := func(method, path, content string, statuses string) {
			t.Helper()
			req := get(path, protocol.Field{Name: "authorization", Value: "DPoP own"}, protocol.Field{Name: "dpop", Value: "own"}, protocol.Field{Name: "dpop", Value: "own2"})
			req.Method = method
			resp, body, err := stream().ask(req, content)
			var got struct{ Client, Method, Body, Token, Bound string }
			if err != nil || resp.Status != 200 || json.Unmarshal([]byte(body), &got) != nil || got.Method != method || got.Body != content || got.Client != "machine" || len(got.Bound) != 43 {
				t.Fatalf("%s %s: %v, %s, %v", method, path, resp, body, err)
			}
			if n := strings.Count(got.Token, "*"); n < 40 || !strings.HasPrefix(got.Token, "DPoP ") {
				t.Errorf("came back: %s", got.Token)
			}
			if s := fmt.Sprint(api.statuses, id.statuses); s != statuses {
				t.Errorf("%s %s: answered %s, want %s", method, path, s, statuses)
			}
		}
		ask("POST", "/rs/things?x=1&y=%2F", `{"a":1}`, "map[200:1 401:1] map[200:1 400:1]")
		ask("GET", "/rs/a%20b/c;d", "", "map[200:2 401:1] map[200:1 400:1]")
		ask("DELETE", "/rs/rotate", "", "map[200:3 401:1] map[200:1 400:1]") // its answer has the next nonce
		ask("PUT", "/rs/things", "content", "map[200:4 401:1] map[200:1 400:1]")
		log := d.auditText()
		if strings.Count(log, `"status":401`) != 1 || strings.Count(log, `"event":"token_minted"`) != 1 || !strings.Contains(log, `"secret":"KEY"`) {
			t.Errorf("audit: %s", log)
		}
	}
}

// TestDPoPRefresh has a refresh token used that is bound to the key beside it, and replaced each time: the key stays with it,
// also where the broker begins anew.
func TestDPoPRefresh(t *testing.T) {
	server := startDPoP(t)
	user, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "public", "refresh_token": server.refresh, "dpop_key": server.key})
	d, stream := openedMinting(t, server, server, "refresh-token:token="+idServer+"/token,dpop=ES256", string(user))
	for range 3 {
		resp, body, err := stream().ask(get("/me"), "")
		if err != nil || resp.Status != 200 || body != `{"sub":"somebody"}` {
			t.Fatalf("%v, %q, %v", resp, body, err)
		}
		d.stop() // with it go the access tokens
		d.start()
	}
	if log := d.auditText(); strings.Count(log, `"event":"secret_replaced"`) != 3 {
		t.Errorf("audit: %s", log)
	}
	// The controls: another key than the refresh token's, and none.
	for _, as := range []string{",dpop=EdDSA", ",dpop=ES256"} {
		other := startDPoP(t)
		user, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "public", "refresh_token": other.refresh})
		_, stream := openedMinting(t, other, other, "refresh-token:token="+idServer+"/token"+as, string(user))
		if resp, _, err := stream().ask(get("/me"), ""); err != nil || resp.Fields.Get("torno-reason") != "credential_unavailable" {
			t.Errorf("%s: %v, %v", as, resp, err)
		}
	}
}

// TestDPoPStolen has somebody who got hold of the token send it, with the proof of another request, with one of their own, or with
// none: the resource server takes it from the broker alone. The control is what the broker sends.
func TestDPoPStolen(t *testing.T) {
	server := startDPoP(t)
	var authorization, proof string
	_, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization, proof = r.Header.Get("Authorization"), r.Header.Get("DPoP")
		server.ServeHTTP(w, r)
	}), server, "oauth2:token="+idServer+"/token,id=machine,scope=read,dpop=ES256", "machine-secret-0123456789")
	if resp, _, err := stream().ask(get("/rs/things"), ""); err != nil || resp.Status != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	send := func(method, path, authorization, proof string) int {
		r, err := http.NewRequest(method, "https://example.com"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", authorization)
		if proof != "" {
			r.Header.Set("DPoP", proof)
		}
		resp, err := direct{server}.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode
	}
	for name, status := range map[string]int{
		"as a bearer token": send("GET", "/rs/things", "Bearer "+strings.TrimPrefix(authorization, "DPoP "), ""),
		"without a proof":   send("GET", "/rs/things", authorization, ""),
		"the same request":  send("GET", "/rs/things", authorization, proof),
		"another path":      send("GET", "/rs/other", authorization, proof),
		"another method":    send("POST", "/rs/things", authorization, proof),
		"another proof":     send("GET", "/rs/things", authorization, proof[:len(proof)-4]+"AAAA"),
	} {
		if status != 401 {
			t.Errorf("%s: %d", name, status)
		}
	}
}

// TestAttack32Nonces has a host want one nonce after another: each request is sent twice at most, and once where its content is
// gone by then.
func TestAttack32Nonces(t *testing.T) {
	var arrived []string
	id := &issuer{answer: func(w http.ResponseWriter, _ *http.Request, token string) {
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"DPoP","expires_in":3600}`, token)
	}}
	d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		arrived = append(arrived, fmt.Sprintf("%s %d", r.Method, len(b)))
		w.Header().Set("DPoP-Nonce", fmt.Sprintf("n-%d", len(arrived)))
		w.Header().Set("WWW-Authenticate", `DPoP error="use_dpop_nonce"`)
		w.WriteHeader(401)
	}), id, "oauth2:token="+idServer+"/token,id=c,dpop=ES256", "s3cret")
	ask := func(method, content string, want ...string) {
		t.Helper()
		arrived = nil
		req := get("/")
		req.Method = method
		resp, _, err := stream().ask(req, content)
		if err != nil || resp.Status != 401 || fmt.Sprint(arrived) != fmt.Sprint(want) {
			t.Errorf("%s: %v, %v: arrived %q, want %q", method, resp, err, arrived, want)
		}
	}
	ask("GET", "", "GET 0", "GET 0")
	ask("POST", "content", "POST 7", "POST 7")
	ask("PUT", strings.Repeat("x", 1<<20), fmt.Sprintf("PUT %d", 1<<20))
	if id.count() != 1 {
		t.Errorf("%d tokens", id.count())
	}
	if log := d.auditText(); strings.Count(log, `"status":401`) != 5 {
		t.Errorf("audit: %s", log)
	}
}
