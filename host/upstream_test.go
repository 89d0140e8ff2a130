package main_test

import (
	"compress/gzip"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// The keys that the canned upstreams ask for. They exist in this test and in the broker's store alone.
const (
	anthropicKey = "sk-ant-api03-8d1c5e0b7f4a42e69b3f6a0d9c2e71b4a5f8e3d2c1b0a9f8e7d6c5b4a3f2e1d0"
	openaiKey    = "sk-proj-2f9d8c7b6a5e4f3d2c1b0a9f8e7d6c5b4a3f2e1d0c9b8a7f"
	githubToken  = "ghp_w9K2mXz7Lq4Rt8Vb3Nc6Yh1Jd5Fs0Ga2Pe7U"
	customKey    = "c-4b7e1f9a2d8c3e6f5a0b1c2d3e4f5a6b"
)

// An upstream is a canned server for several hosts on one TLS port. Most answer only whether the right
// credential arrived; those below echoHost repeat all that they get.
type upstream struct {
	*httptest.Server
	ca string // PEM file of the CA that signed its certificate
	mu sync.Mutex
	// seen counts requests by "METHOD host path".
	seen map[string]int
}

// cannedHosts are the hosts that the canned upstream answers for, each routed to it by broker.toml.
var cannedHosts = []string{
	"api.anthropic.com", "api.openai.com", "api.github.com", "files.example.org", "api.example.org",
	"git.example.org", "forge.example.org", "evil.example.net", "s3.us-east-1.amazonaws.com", "bedrock-runtime.us-east-1.amazonaws.com",
	"codeload.github.com", "release-assets.githubusercontent.com", "huggingface.co", "cas-bridge.xethub.hf.co",
}

// redirects are where services send those who ask for large files.
var redirects = map[string]string{
	"api.github.com/repos/o/r/tarball/main":             "codeload.github.com/o/r/legacy.tar.gz/refs/heads/main",
	"api.github.com/repos/o/r/releases/assets/1":        "release-assets.githubusercontent.com/github-production-release-asset/1/2",
	"huggingface.co/o/m/resolve/main/model.safetensors": "cas-bridge.xethub.hf.co/xet-bridge-us/1/2",
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := &upstream{seen: map[string]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("api.anthropic.com/", u.anthropic)
	mux.HandleFunc("api.openai.com/", u.openai)
	mux.HandleFunc("api.github.com/", needs("Authorization", "Bearer "+githubToken))
	for from, to := range redirects {
		mux.HandleFunc(from, func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
				http.Error(w, "no credential", http.StatusUnauthorized)
				return
			}
			http.Redirect(w, r, "https://"+to, http.StatusFound)
		})
		mux.HandleFunc(to, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "content, credentials: %d, range: %q\n", len(r.Header.Get("Authorization")), r.Header.Get("Range"))
		})
	}
	mux.HandleFunc("api.example.org/", needs("X-Custom-Auth", customKey))
	mux.HandleFunc("api.example.org/debug", debug)
	mux.HandleFunc("evil.example.net/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "credentials: %d\n", len(r.Header.Get("Authorization"))+len(r.Header.Get("X-Api-Key")))
	})
	mux.HandleFunc("api.openai.com/v1/responses", responses)
	mux.Handle("s3.us-east-1.amazonaws.com/", &bucket{objects: map[string][]byte{}})
	mux.HandleFunc("bedrock-runtime.us-east-1.amazonaws.com/", bedrock)
	files(mux)
	hosts := slices.Clone(cannedHosts)
	for _, s := range schemes {
		hosts = append(hosts, s.name+echoHost)
		mux.HandleFunc(s.name+echoHost+"/", func(w http.ResponseWriter, r *http.Request) {
			if s.proof == "" && u.carries(r, s.value) || s.proof != "" && u.carries(r, r.Header.Get(s.proof)) && !u.carries(r, s.known()) {
				repeat(w, r, s.known())
				return
			}
			http.Error(w, "no credential", http.StatusUnauthorized)
		})
	}
	u.git(t, mux)
	u.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.seen[r.Method+" "+r.Host+" "+r.URL.Path]++
		u.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	cert, caPEM := issue(t, hosts)
	u.Server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	u.EnableHTTP2 = true
	u.StartTLS()
	t.Cleanup(u.Close)
	u.ca = filepath.Join(t.TempDir(), "upstream-ca.pem")
	if err := os.WriteFile(u.ca, caPEM, 0o644); err != nil {
		t.Fatal(err)
	}
	return u
}

// count returns how often "METHOD host path" was asked for.
func (u *upstream) count(key string) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.seen[key]
}

// carries reports whether a request carries value anywhere, and counts it by the first label of its host.
func (u *upstream) carries(r *http.Request, value string) bool {
	user, password, _ := r.BasicAuth()
	carried := value != "" && strings.Contains(fmt.Sprint(r.RequestURI, r.Header, user, password), value)
	if carried {
		label, _, _ := strings.Cut(r.Host, ".")
		u.mu.Lock()
		defer u.mu.Unlock()
		u.seen["credential "+label]++
	}
	return carried
}

// brokerTOML routes the canned hosts to the upstream.
func (u *upstream) brokerTOML() string {
	hosts := slices.Clone(cannedHosts)
	for _, s := range schemes {
		hosts = append(hosts, s.name+echoHost)
	}
	var b strings.Builder
	for _, h := range hosts {
		fmt.Fprintf(&b, "[[upstream]]\nhost = %q\ndial = %q\nca = %q\n\n", h, u.Listener.Addr().String(), u.ca)
	}
	return b.String()
}

func needs(field, value string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Values(field); len(got) != 1 || got[0] != value {
			http.Error(w, fmt.Sprintf("wrong %s (%d values)", field, len(got)), http.StatusUnauthorized)
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		fmt.Fprintln(w, "credential: right")
	}
}

// anthropic answers like the Messages API, whole or as events, if the key is right.
func (u *upstream) anthropic(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Api-Key") != anthropicKey || len(r.Header.Values("X-Api-Key")) != 1 {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`)
		return
	}
	if r.URL.Path != "/v1/messages" || r.Method != http.MethodPost {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{}`)
		return
	}
	var req struct {
		Model  string `json:"model"`
		Stream bool   `json:"stream"`
	}
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		zr, err := gzip.NewReader(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		body = zr
	}
	if err := json.NewDecoder(body).Decode(&req); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	const text = "Hello from behind the hatch."
	message := func(content string, stop string) string {
		return fmt.Sprintf(`{"id":"msg_01","type":"message","role":"assistant","model":%q,"content":[%s],"stop_reason":%s,"stop_sequence":null,"usage":{"input_tokens":5,"output_tokens":7}}`,
			req.Model, content, stop)
	}
	if !req.Stream {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, message(`{"type":"text","text":"`+text+`"}`, `"end_turn"`))
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	event := func(kind, data string) {
		fmt.Fprintf(w, "event: %s\ndata: %s\n\n", kind, data)
		w.(http.Flusher).Flush()
	}
	event("message_start", `{"type":"message_start","message":`+message("", "null")+`}`)
	event("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`)
	for word := range strings.SplitSeq(text, " ") {
		event("content_block_delta", fmt.Sprintf(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":%q}}`, word+" "))
	}
	event("content_block_stop", `{"type":"content_block_stop","index":0}`)
	event("message_delta", `{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":7}}`)
	event("message_stop", `{"type":"message_stop"}`)
}

// openai answers like the Chat Completions API if the key is right.
func (u *upstream) openai(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	if got := r.Header.Values("Authorization"); len(got) != 1 || got[0] != "Bearer "+openaiKey {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"error":{"message":"wrong key","type":"invalid_request_error"}}`)
		return
	}
	fmt.Fprint(w, `{"id":"c1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"Hello from behind the hatch."},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`)
}

// debug answers as frameworks do in debug mode: with all of the request, in an error page, with fields that steer.
func debug(w http.ResponseWriter, r *http.Request) {
	key := r.Header.Get("X-Custom-Auth")
	for name, value := range map[string]string{
		"Alt-Svc": `h3=":443"; ma=86400`, "Torno-Reason": "none", "Set-Cookie": "session=" + key + "; Domain=example.org; Max-Age=31536000",
		"Strict-Transport-Security": "max-age=31536000", "Location": "https://api.example.org/login?key=" + key, "X-Debug": "X-Custom-Auth: " + key,
	} {
		w.Header().Set(name, value)
	}
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, "<pre>Traceback: X-Custom-Auth=%s base64=%s hex=%x</pre>\n", key, base64.StdEncoding.EncodeToString([]byte("key:"+key)), key)
}

// files serves bulk, slow, streamed and odd answers.
func files(mux *http.ServeMux) {
	const host = "files.example.org"
	mux.HandleFunc(host+"/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, "ok", r.Method, r.URL.RequestURI()) })
	mux.HandleFunc(host+"/bytes/{n}", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.ParseInt(r.PathValue("n"), 10, 64)
		w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		_, _ = io.Copy(w, io.LimitReader(&pattern{}, n))
	})
	mux.HandleFunc(host+"/sink", func(w http.ResponseWriter, r *http.Request) {
		h := sha256.New()
		n, err := io.Copy(h, r.Body)
		fmt.Fprintln(w, n, hex.EncodeToString(h.Sum(nil)), err)
	})
	taken := make(chan struct{})
	mux.HandleFunc(host+"/sse", func(w http.ResponseWriter, r *http.Request) { // the next event only once this one has arrived
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 5 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			w.(http.Flusher).Flush()
			select {
			case <-taken:
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc(host+"/sse/taken", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case taken <- struct{}{}:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc(host+"/slow/{ms}", func(w http.ResponseWriter, r *http.Request) {
		ms, _ := strconv.Atoi(r.PathValue("ms"))
		time.Sleep(time.Duration(ms) * time.Millisecond)
		fmt.Fprintln(w, "slow")
	})
	mux.HandleFunc(host+"/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://evil.example.net/stolen", http.StatusTemporaryRedirect)
	})
	mux.HandleFunc(host+"/cut", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		c, _, _ := w.(http.Hijacker).Hijack()
		c.Close()
	})
}

// A pattern is an endless reader of bytes that never repeat within 64 KiB.
type pattern struct{ n uint64 }

func (p *pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(p.n*0x9E3779B97F4A7C15>>56) ^ byte(p.n)
		p.n++
	}
	return len(b), nil
}

// git serves one repository over smart HTTP.
func (u *upstream) git(t *testing.T, mux *http.ServeMux) {
	root := t.TempDir()
	mustRun(t, root, "git", "init", "-q", "--bare", "-b", "main", filepath.Join(root, "demo.git"))
	work := filepath.Join(root, "work")
	mustRun(t, root, "git", "init", "-q", "-b", "main", work)
	if err := os.WriteFile(filepath.Join(work, "README"), []byte("cloned through the hatch\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	mustRun(t, work, "git", "add", "README")
	mustRun(t, work, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "one")
	mustRun(t, work, "git", "push", "-q", filepath.Join(root, "demo.git"), "main")
	backend := &cgi.Handler{
		Path: "/usr/lib/git-core/git-http-backend",
		Env:  []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"},
	}
	mux.Handle("git.example.org/", backend)
	mustRun(t, root, "git", "clone", "-q", "--bare", filepath.Join(root, "demo.git"), filepath.Join(root, "private.git"))
	mustRun(t, filepath.Join(root, "private.git"), "git", "config", "http.receivepack", "true")
	mux.HandleFunc("forge.example.org/", func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user == "" || password != githubToken {
			w.Header().Set("WWW-Authenticate", `Basic realm="forge"`)
			http.Error(w, "no credential", http.StatusUnauthorized)
			return
		}
		backend.ServeHTTP(w, r)
	})
}

// issue returns a certificate for hosts, signed by a new CA, and the CA as PEM.
func issue(t *testing.T, hosts []string) (tls.Certificate, []byte) {
	t.Helper()
	ca, caKey := newCA(t)
	leaf := leafFor(t, ca, caKey, hosts)
	return leaf, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
}
