package broker

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"torno.internal/broker/internal/redact"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// generous lets tests echo as much as they like.
var generous = control.Limits{ReflectionsPerResponse: 1 << 20, ReflectionsPerSession: 1 << 20}

// leaks reports whether text holds a run of the test key that counts, in any encoding of the table.
func leaks(text string) bool {
	_, runs := redact.NewMatcher([]redact.Secret{secretOf(testKey)}).Text(text)
	return runs > 0
}

func secretOf(v string) redact.Secret { return redact.Secret{Value: secret.New([]byte(v))} }

// echoes are the spellings that an upstream may answer a credential in.
var echoes = map[string]func(v string) string{
	"raw":       func(v string) string { return v },
	"bearer":    func(v string) string { return "Bearer " + v },
	"base64":    func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) },
	"base64+1":  func(v string) string { return base64.StdEncoding.EncodeToString([]byte(":" + v)) },
	"base64+2":  func(v string) string { return base64.StdEncoding.EncodeToString([]byte("u:" + v)) },
	"base64url": func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) },
	"hex":       func(v string) string { return hex.EncodeToString([]byte(v)) },
	"HEX":       func(v string) string { return strings.ToUpper(hex.EncodeToString([]byte(v))) },
	"percent":   func(v string) string { return spell(v, "%%%02X") },
	"query":     url.QueryEscape,
	"json":      func(v string) string { return spell(v, `\u%04x`) },
	"html":      func(v string) string { return spell(v, "&#x%x;") },
	"htmltext":  html.EscapeString,
	"utf16":     func(v string) string { return spell(v, "%c\x00") },
	"cut":       func(v string) string { return v[8:20] },
}

func spell(v, format string) string {
	var b strings.Builder
	for i := range len(v) {
		fmt.Fprintf(&b, format, v[i])
	}
	return b.String()
}

// opened returns a stream of a new session whose host is up.
func opened(t testing.TB, up http.Handler, limits control.Limits) (*desk, control.SessionCreated, func() *peer) {
	t.Helper()
	srv := httptest.NewTLSServer(up)
	t.Cleanup(srv.Close)
	d := newDesk(t, srv)
	d.stop()
	d.cfg.Operator.Limits = limits
	d.start()
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	return d, s, func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
}

// TestAttack28Echo lets the upstream repeat the credential wherever a response has room, in every spelling:
// fields, redirects, cookies, interim responses, content, trailers.
func TestAttack28Echo(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		spelled := echoes[r.URL.Query().Get("as")](strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		field := strings.ReplaceAll(spelled, "\x00", "")
		w.Header().Set("Link", "</x?"+field+">; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("X-Echo", field)
		w.Header().Set("Location", "https://example.com/?t="+field)
		w.Header().Set("Set-Cookie", "session="+field)
		w.Header().Set("Trailer", "X-Trailer")
		w.WriteHeader(http.StatusFound)
		for i := range len(spelled) { // every byte on its own
			_, _ = io.WriteString(w, spelled[i:i+1])
			if i%3 == 0 {
				w.(http.Flusher).Flush()
			}
		}
		_, _ = io.WriteString(w, "\n"+spelled+"\n")
		w.Header().Set("X-Trailer", field)
	}), generous)
	for name := range echoes {
		t.Run(name, func(t *testing.T) {
			p := stream()
			if err := p.w.WriteRequest(get("/?as=" + url.QueryEscape(name))); err != nil {
				t.Fatal(err)
			}
			if err := p.w.Close(nil); err != nil {
				t.Fatal(err)
			}
			var seen []protocol.Fields
			var resp protocol.Response
			for resp.Status < 200 {
				resp = protocol.Response{}
				if err := p.r.ReadResponse(&resp); err != nil {
					t.Fatal(err)
				}
				seen = append(seen, resp.Fields)
			}
			body, err := io.ReadAll(p.r)
			if err != nil {
				t.Fatal(err)
			}
			var trailer protocol.Fields
			if err := p.r.ReadTrailer(&trailer); err != nil {
				t.Fatal(err)
			}
			if len(seen) != 2 || resp.Status != 302 || trailer.Get("x-trailer") == "" || !bytes.Contains(body, []byte("****")) {
				t.Fatalf("the echo did not come through: %d heads, status %d, trailer %v, %q", len(seen), resp.Status, trailer, body)
			}
			if resp.Fields.Get("set-cookie") != "" {
				t.Error("a cookie passed")
			}
			for _, f := range append(seen, trailer) {
				for _, l := range f {
					if leaks(l.Value) {
						t.Errorf("field %s: %q", l.Name, l.Value)
					}
				}
			}
			if leaks(string(body)) {
				t.Errorf("content: %q", body)
			}
		})
	}
	if !leaks("x"+testKey) || !leaks(echoes["html"](testKey)) { // the positive control of all of the above
		t.Error("leaks finds nothing")
	}
}

// coders code content as upstreams do.
var coders = map[string]func(w io.Writer) io.WriteCloser{
	"gzip":    func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) },
	"deflate": func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) },
	"br":      func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) },
	"zstd":    func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z },
}

// TestAttack28CodedEcho lets the upstream compress the echo although identity was asked for.
func TestAttack28CodedEcho(t *testing.T) {
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		coding := r.URL.Path[1:]
		w.Header().Set("Content-Encoding", coding)
		w.Header().Set("ETag", `"strong"`)
		w.Header().Set("Content-Digest", "sha-256=:AAAA:")
		if r.URL.RawQuery == "part" {
			w.WriteHeader(206)
		}
		if coders[coding] == nil {
			_, _ = io.WriteString(w, r.Header.Get("Authorization"))
			return
		}
		z := coders[coding](w)
		fmt.Fprintf(z, "asked for %s, %s", r.Header.Get("Accept-Encoding"), r.Header.Get("Authorization"))
		_ = z.Close()
	}), generous)
	for coding := range coders {
		resp, body, err := stream().ask(get("/"+coding, protocol.Field{Name: "accept-encoding", Value: "gzip, br, zstd"}), "")
		if err != nil {
			t.Fatalf("%s: %v", coding, err)
		}
		if !strings.HasPrefix(body, "asked for identity, Bearer ****") || leaks(body) {
			t.Errorf("%s: %q", coding, body)
		}
		if f := resp.Fields; f.Get("content-encoding")+f.Get("content-length")+f.Get("content-digest") != "" || f.Get("etag") != `W/"strong"` {
			t.Errorf("%s: fields %v", coding, f)
		}
		if resp, _, err := stream().ask(get("/"+coding+"?part"), ""); err != nil || resp.Fields.Get(protocol.FieldReason) != "coded_content" {
			t.Errorf("%s in part: %d %v, %v", coding, resp.Status, resp.Fields, err)
		}
	}
	for _, coding := range []string{"compress", "gzip, br", "x-secret"} {
		resp, body, err := stream().ask(get("/"+url.PathEscape(coding)), "")
		if err != nil || resp.Status != 502 || resp.Fields.Get(protocol.FieldReason) != "coded_content" || leaks(body) {
			t.Errorf("%s: %d %q %v", coding, resp.Status, body, err)
		}
	}
}

// TestAttack28UndecodableEcho lets the upstream repeat the credential in what cannot be decoded: content that is not
// coded as its fields say, bytes behind coded content, and content that is cut. Nothing that was not decoded and
// searched crosses, and no such answer comes to a clean end.
func TestAttack28UndecodableEcho(t *testing.T) {
	var sent atomic.Int32
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		coding, how, _ := strings.Cut(r.URL.Path[1:], "/")
		echo := r.Header.Get("Authorization")
		if strings.HasSuffix(echo, testKey) {
			sent.Add(1)
		}
		var coded bytes.Buffer
		z := coders[coding](&coded)
		fmt.Fprintf(z, "coded %s.", echo)
		_ = z.Close()
		w.Header().Set("Content-Encoding", coding)
		switch how {
		case "plain":
			_, _ = io.WriteString(w, echo)
		case "behind":
			_, _ = w.Write(append(coded.Bytes(), echo...))
		case "flushed behind":
			_, _ = w.Write(coded.Bytes())
			w.(http.Flusher).Flush()
			time.Sleep(10 * time.Millisecond) // so that the decoder has read the coded content to its end
			_, _ = io.WriteString(w, echo)
		case "cut":
			_, _ = w.Write(coded.Bytes()[:coded.Len()-3])
		}
	}), generous)
	for coding := range coders {
		for _, how := range []string{"plain", "behind", "flushed behind", "cut"} {
			p := stream()
			if err := p.w.WriteRequest(get("/" + coding + "/" + url.PathEscape(how))); err != nil {
				t.Fatal(err)
			}
			if err := p.w.Close(nil); err != nil {
				t.Fatal(err)
			}
			var resp protocol.Response
			if err := p.r.ReadResponse(&resp); err != nil {
				continue // cut before anything of it crossed
			}
			body, err := io.ReadAll(p.r)
			if err == nil {
				t.Errorf("%s, %s: a clean end: %d, %q", coding, how, resp.Status, body)
			}
			if leaks(string(body)) {
				t.Errorf("%s, %s: %q", coding, how, body)
			}
		}
	}
	if got, want := int(sent.Load()), 4*len(coders); got != want {
		t.Errorf("%d echoes were sent, want %d", got, want)
	}
}

// TestAttack29ZipBomb ends coded content that grows beyond all proportion, and never as if it were whole.
func TestAttack29ZipBomb(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	zeros := make([]byte, 1<<20)
	for range 64 {
		_, _ = z.Write(zeros)
	}
	_ = z.Close()
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}), generous)
	p := stream()
	if err := p.w.WriteRequest(get("/")); err != nil {
		t.Fatal(err)
	}
	if err := p.w.Close(nil); err != nil {
		t.Fatal(err)
	}
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, p.r)
	if err == nil || n > 32<<20 {
		t.Errorf("%d bytes of 64 MiB, %v", n, err)
	}
}

// TestAttack28RangeOverEcho asks for an echo piece by piece, also by the fields that Apache's and Azure's servers take for
// Range: the whole comes, masked.
func TestAttack28RangeOverEcho(t *testing.T) {
	names := []string{"range", "request-range", "x-ms-range"}
	_, _, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, name := range names[1:] {
			if v := r.Header.Get(name); v != "" {
				r.Header.Set("Range", v)
			}
		}
		http.ServeContent(w, r, "echo.txt", time.Time{}, strings.NewReader(r.Header.Get("Authorization")))
	}), generous)
	for at := 0; at < len(testKey); at += 10 {
		piece := protocol.Field{Name: names[at/10%len(names)], Value: fmt.Sprintf("bytes=%d-%d", at, at+9)}
		resp, body, err := stream().ask(get("/", piece), "")
		if err != nil || resp.Status != 200 || resp.Fields.Get("accept-ranges") != "" || leaks(body) || !strings.Contains(body, "***") {
			t.Fatalf("%d %v %q, %v", resp.Status, resp.Fields, body, err)
		}
	}
}

// TestAttack30Oracle holds the default limits: a session whose host repeats secrets again and again is
// suspended, says so, stays so when the broker starts again, and goes on when a person says so.
func TestAttack30Oracle(t *testing.T) {
	d, s, stream := opened(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := 1
		_, _ = fmt.Sscan(r.URL.Query().Get("n"), &n)
		for range n {
			fmt.Fprintln(w, r.Header.Get("Authorization"))
		}
	}), control.Limits{})
	ask := func(n int) (protocol.Response, error) {
		resp, _, err := stream().ask(get(fmt.Sprintf("/?n=%d", n)), "")
		return resp, err
	}
	if resp, err := ask(8); err != nil || resp.Status != 200 {
		t.Fatalf("8 runs: %d, %v", resp.Status, err)
	}
	if _, err := ask(9); err == nil {
		t.Fatal("9 runs in one response came to a clean end")
	}
	suspended := func(when string) {
		t.Helper()
		if resp, err := ask(0); err != nil || resp.Fields.Get(protocol.FieldReason) != "reflection" {
			t.Fatalf("%s: %d %v, %v", when, resp.Status, resp.Fields, err)
		}
		var i control.SessionInfo
		if d.must(d.call("GET", control.PathSession+s.ID, nil, &i)); i.State != "suspended" {
			t.Errorf("%s: state %q", when, i.State)
		}
	}
	suspended("after 9 runs")
	d.stop()
	d.start()
	suspended("after a restart")
	d.must(d.call("POST", control.PathSession+s.ID+"/resume", nil, nil))
	for i := range 32 {
		if resp, err := ask(1); err != nil || resp.Status != 200 {
			t.Fatalf("run %d: %d %v, %v", i, resp.Status, resp.Fields, err)
		}
	}
	if _, err := ask(1); err == nil {
		t.Fatal("the 33rd run came to a clean end")
	}
	suspended("after 33 runs")
	resp, err := d.client.Get("http://torno" + control.PathAudit + "?last=100")
	d.must(err)
	defer resp.Body.Close()
	trail, err := io.ReadAll(resp.Body)
	d.must(err)
	if n := bytes.Count(trail, []byte(`"event":"reflection"`)); n != 2 {
		t.Errorf("%d reflection events, want 2", n)
	}
	if bytes.Contains(trail, []byte(testKey)) || !bytes.Contains(trail, []byte(`"masked":8`)) {
		t.Errorf("audit: %s", trail)
	}
}

// TestUnguardedPasses leaves alone what no secret is bound to: there is nothing to learn there.
func TestUnguardedPasses(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "x-own")
		w.Header().Set("Set-Cookie", "a=b")
		fmt.Fprintf(w, "%s %s %s", testKey, r.Header.Get("Accept-Encoding"), r.Header.Get("Range"))
	}))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("x"),
		Policy: control.AgentPolicy{Name: "a", Egress: control.Egress{Default: "allow"}}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{Agent: "a", Isolation: protocol.IsolationNamespace,
		Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("x")}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	resp, body, err := p.ask(get("/", protocol.Field{Name: "accept-encoding", Value: "br"}, protocol.Field{Name: "range", Value: "bytes=0-"}), "")
	if err != nil || body != testKey+" br bytes=0-" || resp.Fields.Get("set-cookie") != "a=b" || resp.Fields.Get("content-encoding") != "x-own" {
		t.Errorf("%v %q, %v", resp.Fields, body, err)
	}
}
