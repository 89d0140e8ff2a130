package broker

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

const testKey = "sk-test-4c1d9e8f7a6b5c4d3e2f1a0b9c8d7e6f"

// A desk is a running broker and its control client.
type desk struct {
	t      *testing.T
	dir    string
	cfg    Config
	client *http.Client
	stop   func()
}

// newDesk starts a broker that reaches api.example.org at upstream.
func newDesk(t *testing.T, upstream *httptest.Server) *desk {
	t.Helper()
	dir, err := os.MkdirTemp("", "tb")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d := &desk{t: t, dir: dir}
	d.cfg = Config{StateDir: filepath.Join(dir, "s"), RuntimeDir: filepath.Join(dir, "r"), Log: slog.New(slog.DiscardHandler)}
	if upstream != nil {
		ca := filepath.Join(dir, "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.Certificate().Raw})
		if err := os.WriteFile(ca, block, 0o600); err != nil {
			t.Fatal(err)
		}
		d.cfg.Operator.Upstreams = []control.Upstream{{Host: "example.com", Dial: upstream.Listener.Addr().String(), CA: ca}}
	}
	d.start()
	return d
}

func (d *desk) start() {
	d.t.Helper()
	b, err := Open(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- b.Serve(ctx) }()
	stopped := false
	d.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := errors.Join(<-served, b.Close()); err != nil {
			d.t.Errorf("stopping the broker: %v", err)
		}
	}
	d.t.Cleanup(func() { d.stop() })
	sock := filepath.Join(d.cfg.RuntimeDir, control.SocketName)
	d.client = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var nd net.Dialer
			return nd.DialContext(ctx, "unix", sock)
		},
	}}
	for range 100 {
		if resp, err := d.client.Get("http://torno" + control.PathHealth); err == nil {
			resp.Body.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	d.t.Fatal("the broker does not answer")
}

// call asks the control API and decodes its answer into out; an error answer comes back.
func (d *desk) call(method, path string, in, out any) error {
	d.t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			d.t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, "http://torno"+path, body)
	if err != nil {
		d.t.Fatal(err)
	}
	resp, err := d.client.Do(req)
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var e control.Error
		if err := json.NewDecoder(resp.Body).Decode(&e); err != nil {
			d.t.Fatal(err)
		}
		return &e
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

func (d *desk) must(err error) {
	d.t.Helper()
	if err != nil {
		d.t.Fatal(err)
	}
}

// set sets a bearer secret for https://example.com.
func (d *desk) set(agent, name, value string, version int) error {
	d.t.Helper()
	var pk control.PublicKey
	d.must(d.call("GET", control.PathPublicKey, nil, &pk))
	key, err := seal.ParsePublicKey(pk.Key)
	d.must(err)
	m := control.Meta{Agent: agent, Name: name, Version: version, Audience: []string{"https://example.com"},
		Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Now()}
	sealed, err := key.Seal([]byte(value), control.AssociatedData(m, pk.ID))
	d.must(err)
	return d.call("POST", control.PathSecrets, []control.SealedSecret{{Meta: m, KeyID: pk.ID, Sealed: sealed}}, nil)
}

// session registers a session of agent and returns where its guest connects.
func (d *desk) session(agent string) control.SessionCreated {
	d.t.Helper()
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{
		Agent: agent, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}},
	}, &s))
	return s
}

// A peer is a stream to the broker as a guest opens it.
type peer struct {
	net.Conn
	r *bhttp.Reader
	w *bhttp.Writer
}

// dial opens a stream; its error is that of the preface.
func (d *desk) dial(addr string, kind protocol.Kind, token []byte) (*peer, error) {
	d.t.Helper()
	c, err := net.Dial("unix", strings.TrimPrefix(addr, "unix://"))
	if err != nil {
		return nil, err
	}
	d.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	p := protocol.Preface{Version: protocol.Version, Kind: kind}
	copy(p.Token[:], token)
	if _, err := c.Write(p.AppendTo(nil)); err != nil {
		return nil, err
	}
	if err := protocol.ReadPrefaceReply(c); err != nil {
		return nil, err
	}
	return &peer{c, bhttp.NewReader(c), bhttp.NewWriter(c)}, nil
}

// ask sends one request and reads the whole answer.
func (p *peer) ask(req *protocol.Request, content string) (protocol.Response, string, error) {
	var resp protocol.Response
	if err := p.w.WriteRequest(req); err != nil {
		return resp, "", err
	}
	if _, err := io.WriteString(p.w, content); err != nil {
		return resp, "", err
	}
	if err := p.w.Close(nil); err != nil {
		return resp, "", err
	}
	if err := p.r.ReadResponse(&resp); err != nil {
		return resp, "", err
	}
	body, err := io.ReadAll(p.r)
	if err != nil {
		return resp, "", err
	}
	var trailer protocol.Fields
	return resp, string(body), p.r.ReadTrailer(&trailer)
}

// hello says hello with nonce.
func (d *desk) hello(addr string, nonce byte) (protocol.HelloResponse, error) {
	d.t.Helper()
	var h protocol.HelloResponse
	p, err := d.dial(addr, protocol.KindHello, nil)
	if err != nil {
		return h, err
	}
	defer p.Close()
	body, _ := json.Marshal(protocol.HelloRequest{Nonce: bytes.Repeat([]byte{nonce}, protocol.NonceSize), Guest: "test"})
	resp, answer, err := p.ask(&protocol.Request{Method: "POST", Scheme: "torno", Authority: "broker", Path: protocol.PathHello}, string(body))
	if err != nil {
		return h, err
	}
	if resp.Status != 200 {
		return h, fmt.Errorf("hello: %d %s", resp.Status, answer)
	}
	return h, json.Unmarshal([]byte(answer), &h)
}

func get(path string, fields ...protocol.Field) *protocol.Request {
	return &protocol.Request{Method: "GET", Scheme: "https", Authority: "example.com", Path: path, Fields: fields}
}

// checkKey answers whether the right bearer token, and no other credential, arrived.
func checkKey(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	ok := len(r.Header.Values("Authorization")) == 1 && r.Header.Get("Authorization") == "Bearer "+testKey
	fmt.Fprintf(w, "%v %d %s", ok, len(body), r.Header.Get("Torno-Dialled"))
}

func TestExchange(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(checkKey))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	if h.Agent != "a" || h.Session != s.ID || len(h.Token) != protocol.TokenSize || h.CA == "" {
		t.Errorf("hello: %+v", h)
	}
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	for i, c := range []struct {
		req     *protocol.Request
		content string
		status  int
		want    string
	}{
		{get("/"), "", 200, "true 0 "},
		{get("/", protocol.Field{Name: "authorization", Value: "Bearer mine"}, protocol.Field{Name: "torno-dialled", Value: "x"}), "", 200, "true 0 "},
		{&protocol.Request{Method: "POST", Scheme: "https", Authority: "EXAMPLE.com:443", Path: "/"}, "hello", 200, "true 5 "},
		{&protocol.Request{Method: "GET", Scheme: "https", Authority: "other.example", Path: "/"}, "", 403, "denied"},
		{&protocol.Request{Method: "GET", Scheme: "http", Authority: "example.com", Path: "/"}, "", 403, ""},
		{&protocol.Request{Method: "GET", Scheme: "torno", Authority: "broker", Path: protocol.PathLeaf}, "", 400, "bad_request"},
		{&protocol.Request{Method: "GET", Scheme: "https", Authority: protocol.SelfTestAuthority, Path: "/"}, "", 403, "self_test"},
		{get("/again"), "", 200, "true 0 "},
	} {
		resp, body, err := p.ask(c.req, c.content)
		if err != nil {
			t.Fatalf("case %d: %v", i, err)
		}
		if resp.Status != c.status || !strings.HasPrefix(body, c.want) {
			t.Errorf("case %d: %d %q, want %d %q", i, resp.Status, body, c.status, c.want)
		}
		if reason := resp.Fields.Get(protocol.FieldReason); (reason == "") != (c.status == 200) {
			t.Errorf("case %d: reason %q", i, reason)
		}
	}
	var v control.AuditVerdict
	d.must(d.call("POST", control.PathAuditVerify, nil, &v))
	if !v.OK || v.Records < 10 {
		t.Errorf("audit: %+v", v)
	}
}

// A leaf for a name, with the guest's own key, that the session's CA signed.
func TestLeaf(t *testing.T) {
	d := newDesk(t, nil)
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	d.must(err)
	pub, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindChannel, h.Token)
	d.must(err)
	body, _ := json.Marshal(protocol.LeafRequest{Name: "api.example.org", Key: pub})
	resp, answer, err := p.ask(&protocol.Request{Method: "POST", Scheme: "torno", Authority: "broker", Path: protocol.PathLeaf}, string(body))
	d.must(err)
	var l protocol.LeafResponse
	if resp.Status != 200 || json.Unmarshal([]byte(answer), &l) != nil {
		t.Fatalf("leaf: %d %s", resp.Status, answer)
	}
	cert, err := x509.ParseCertificate(l.Certificate)
	d.must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(h.CA))
	if _, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "api.example.org"}); err != nil {
		t.Error(err)
	}
}

// A second hello, a wrong token, a token of another session, a dead session.
func TestAttack3Tokens(t *testing.T) {
	d := newDesk(t, nil)
	a, b := d.session("a"), d.session("b")
	ha, err := d.hello(a.Broker, 1)
	d.must(err)
	again, err := d.hello(a.Broker, 1)
	d.must(err)
	if !bytes.Equal(ha.Token, again.Token) {
		t.Error("the same nonce got another token")
	}
	if _, err := d.hello(a.Broker, 2); err == nil {
		t.Error("another nonce was answered")
	}
	hb, err := d.hello(b.Broker, 1)
	d.must(err)
	_, err = d.dial(a.Broker, protocol.KindForward, ha.Token)
	d.must(err)
	for name, want := range map[string]struct {
		kind   protocol.Kind
		token  []byte
		status protocol.Status
	}{
		"hello after use":  {protocol.KindHello, nil, protocol.StatusHelloUsed},
		"no token":         {protocol.KindForward, nil, protocol.StatusToken},
		"another's token":  {protocol.KindForward, hb.Token, protocol.StatusToken},
		"run kind":         {protocol.KindRun, ha.Token, protocol.StatusKind},
		"unknown kind":     {99, ha.Token, protocol.StatusKind},
		"channel no token": {protocol.KindChannel, nil, protocol.StatusToken},
	} {
		_, err := d.dial(a.Broker, want.kind, want.token)
		var se *protocol.StatusError
		if !errors.As(err, &se) || se.Status != want.status {
			t.Errorf("%s: %v, want status %v", name, err, want.status)
		}
	}
	d.must(d.call("DELETE", control.PathSession+a.ID, nil, nil))
	if _, err := d.dial(a.Broker, protocol.KindForward, ha.Token); err == nil {
		t.Error("a revoked session still answers")
	}
}

// A session outlives its broker: token, CA and versions are on record.
func TestSessionSurvivesRestart(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(checkKey))
	defer up.Close()
	d := newDesk(t, up)
	d.must(d.set("a", "KEY", testKey, 1))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	d.must(d.set("a", "KEY", "sk-another-value-0123456789abcdef", 2)) // pinned: not for this session
	d.stop()
	d.start()
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if resp, body, err := p.ask(get("/"), ""); err != nil || resp.Status != 200 || !strings.HasPrefix(body, "true") {
		t.Errorf("after a restart: %d %q %v", resp.Status, body, err)
	}
}

// Revoking cuts what is open within a second.
func TestAttack26RevokeCuts(t *testing.T) {
	started := make(chan struct{}, 1)
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	}))
	defer up.Close()
	for _, how := range []string{"session", "secret"} {
		d := newDesk(t, up)
		d.must(d.set("a", "KEY", testKey, 1))
		s := d.session("a")
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		d.must(p.w.WriteRequest(get("/")))
		d.must(p.w.Close(nil))
		var resp protocol.Response
		d.must(p.r.ReadResponse(&resp))
		<-started
		begun := time.Now()
		path := control.PathSession + s.ID
		if how == "secret" {
			path = control.PathSecrets + "?" + url.Values{"agent": {"a"}, "name": {"KEY"}}.Encode()
		}
		d.must(d.call("DELETE", path, nil, nil))
		if _, err := io.ReadAll(p.r); err == nil {
			t.Errorf("%s: the cut answer ended as if it were whole", how)
		}
		if took := time.Since(begun); took > protocol.RevokeDeadline {
			t.Errorf("%s: cut after %v, want at most %v", how, took, protocol.RevokeDeadline)
		}
		d.stop()
	}
}

// A guest that is gone without a word, as after kill -9 of torno run, ends its session; one that waits for
// its guest, or has one, goes on.
func TestAbandonedSessionEnds(t *testing.T) {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Abandoned = 300 * time.Millisecond
	d.start()
	gone, alive, waiting := d.session("a"), d.session("a"), d.session("a")
	for _, s := range []control.SessionCreated{gone, alive} {
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		if s.ID == gone.ID {
			p.Close()
		}
	}
	time.Sleep(time.Second)
	for s, want := range map[string]string{gone.ID: "ended", alive.ID: "live", waiting.ID: "waiting"} {
		var i control.SessionInfo
		d.must(d.call("GET", control.PathSession+s, nil, &i))
		if i.State != want {
			t.Errorf("state %q, want %q", i.State, want)
		}
	}
}

// Garbage, and heads beyond every limit, cost the broker one stream each and nothing else.
func TestMalformedStreams(t *testing.T) {
	d := newDesk(t, nil)
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for name, junk := range map[string][]byte{
		"garbage":     []byte("GET / HTTP/1.1\r\n\r\n"),
		"giant field": append([]byte{2, 3, 'G', 'E', 'T', 5, 'h', 't', 't', 'p', 's', 1, 'a', 1, '/'}, 0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"zeros":       make([]byte, 4096),
	} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		_, _ = p.Write(junk)
		if n, err := p.Read(make([]byte, 1)); err == nil && n > 0 {
			t.Errorf("%s: answered", name)
		}
	}
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Status != 403 {
		t.Errorf("the next stream: %d %v", resp.Status, err)
	}
}

// Every stream beyond MaxStreams is told so, and none is left waiting.
func TestStreamLimit(t *testing.T) {
	d := newDesk(t, nil)
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for i := range protocol.MaxStreams {
		if _, err := d.dial(s.Broker, protocol.KindForward, h.Token); err != nil {
			t.Fatalf("stream %d: %v", i, err)
		}
	}
	var se *protocol.StatusError
	if _, err := d.dial(s.Broker, protocol.KindForward, h.Token); !errors.As(err, &se) || se.Status != protocol.StatusBusy {
		t.Errorf("one more: %v, want %v", err, protocol.StatusBusy)
	}
	if _, err := d.dial(s.Broker, protocol.KindChannel, h.Token); err != nil {
		t.Errorf("a channel stream: %v", err)
	}
}
