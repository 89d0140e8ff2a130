package broker

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

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
	d.must(d.call("POST", control.PathAuditVerify, control.AuditCheck{}, &v))
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
