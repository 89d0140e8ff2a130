package broker

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// TestAttack34ChallengeEchoes has a registry repeat the token that it was given where it says who gives out tokens, which is what
// the broker says in its own log when it refuses.
func TestAttack34ChallengeEchoes(t *testing.T) {
	for name, challenge := range map[string]string{
		"realm":   `Bearer realm="https://evil.example.org/%s",service="registry.example.org"`,
		"service": `Bearer realm="` + idServer + `/token",service="%s"`,
	} {
		id, log := &issuer{}, &syncBuffer{}
		refused := 0
		d, _ := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			refused++
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(challenge, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")))
			w.WriteHeader(401)
		}), id, "registry:realm="+idServer+"/token,service=registry.example.org,user=me", testKey)
		d.stop()
		d.cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		d.start()
		s := d.session("a")
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		resp, _, err := p.ask(get("/v2/org/image/manifests/1"), "")
		_, _, token := id.last()
		if err != nil || resp.Fields.Get("torno-reason") != "credential_unavailable" || refused != 1 || token == "" {
			t.Errorf("%s: %v, %v; refused %d times, token %q", name, resp, err, refused, token)
		}
		if text := log.String(); tokenLeaks(token, text) || !strings.Contains(text, "the registry names") {
			t.Errorf("%s: log: %s", name, text)
		}
		d.stop()
	}
}

// TestAttack34ErrorCodes has a token endpoint repeat the secret as the code of an error, which the broker says in its own log.
func TestAttack34ErrorCodes(t *testing.T) {
	const value = "correcthorsebatterystaplezebra" // as a code is written
	log := &syncBuffer{}
	d, _ := openedMinting(t, http.NotFoundHandler(), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(400)
		fmt.Fprintf(w, `{"error":%q}`, r.FormValue("client_secret"))
	}), "oauth2:token="+idServer+"/token,id=me,auth=post", value)
	d.stop()
	d.cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d.start()
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
	d.must(err)
	if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Fields.Get("torno-reason") != "credential_unavailable" {
		t.Errorf("%v, %v", resp, err)
	}
	if text := log.String(); tokenLeaks(value, text) || !strings.Contains(text, "the token endpoint answers 400") {
		t.Errorf("log: %s", text)
	}
}

// TestAttack23MetadataByProxy asks for a metadata service by the name that it has, in ways that the broker does not answer itself,
// where names are resolved by a proxy that knows it. The proxy is never asked for it.
func TestAttack23MetadataByProxy(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.Host)
		w.WriteHeader(502)
	}))
	defer proxy.Close()
	_, port, err := net.SplitHostPort(proxy.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Operator.Limits = generous
	d.cfg.Operator.Egress = control.ConfigEgress{Proxy: "http://127.0.0.1:" + port}
	d.start()
	_, pem := rsaKey(t)
	key := fmt.Sprintf(`{"type":"service_account","client_email":"me@p.example","project_id":"p","private_key":%q,"token_uri":"https://oauth2.googleapis.com/token"}`, pem)
	d.must(d.setAs("a", "KEY", key, "google", 1, "https://example.com"))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	const path, flavored = "/computeMetadata/v1/instance/service-accounts/default/token", "metadata-flavor: Google"
	for name, req := range map[string]*protocol.Request{
		"a WebSocket": {Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "metadata.google.internal", Path: path, Fields: protocol.Fields{{Name: "metadata-flavor", Value: "Google"}}},
		"encoded":     local("GET metadata.google.internal/%63omputeMetadata/v1/instance/service-accounts/default/token", flavored),
		"encoded end": local("GET metadata.google.internal/computeMetadata%2Fv1/instance/service-accounts/default/token", flavored),
	} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		resp, _, err := p.ask(req, "")
		mu.Lock()
		if err != nil || resp.Fields.Get("torno-reason") == "" || len(asked) > 0 {
			t.Errorf("%s: %v, %v; the proxy was asked for %q", name, resp, err, asked)
		}
		asked = nil
		mu.Unlock()
	}
}

// answering answers with text as it is, in which %s stands for the credential that arrived.
func answering(text string, credential func(*http.Request) string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		value := credential(r)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		_, _ = fmt.Fprintf(conn, text, value)
	}
}

// TestAttack34MalformedEchoes has a host, and a token endpoint, repeat the credential where their answer is malformed, which is what
// the broker says in its own log.
func TestAttack34MalformedEchoes(t *testing.T) {
	const value = "tk-0a1b2c3d4e5f60718293a4b5c6d7" // as a field's name is written
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: %s\r\n\r\n"
	socket := get("/socket")
	socket.Method, socket.Protocol = "CONNECT", "websocket"
	bearer := func(r *http.Request) string { return strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ") }
	form := func(r *http.Request) string { return r.FormValue("client_secret") }
	for name, tt := range map[string]struct {
		as     string
		up, id http.Handler
		req    *protocol.Request
	}{
		"a field's name":        {"bearer", answering("HTTP/1.1 200 OK\r\n%s: \x01\r\n\r\n", bearer), nil, get("/")},
		"a trailer's name":      {"bearer", answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%s: \x01\r\n\r\n", bearer), nil, get("/")},
		"a protocol":            {"bearer", answering(upgrade, bearer), nil, socket},
		"an endpoint's field":   {"oauth2:token=" + idServer + "/token,id=me,auth=post", nil, answering("HTTP/1.1 200 OK\r\n%s: \x01\r\n\r\n", form), get("/")},
		"an endpoint's trailer": {"oauth2:token=" + idServer + "/token,id=me,auth=post", nil, answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n%s: \x01\r\n\r\n", form), get("/")},
	} {
		log := &syncBuffer{}
		for _, h := range []*http.Handler{&tt.up, &tt.id} {
			if *h == nil {
				*h = http.NotFoundHandler()
			}
		}
		d, _ := openedMinting(t, tt.up, tt.id, tt.as, value)
		d.stop()
		d.cfg.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		d.start()
		s := d.session("a")
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		_, _, _ = p.ask(tt.req, "")
		d.stop()
		if text := log.String(); tokenLeaks(value, text) {
			t.Errorf("%s: log: %s", name, text)
		}
	}
}
