package broker

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// An authority signs certificates, servers' and clients'.
type authority struct {
	t    testing.TB
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t}
	a.key, a.cert = a.sign("test authority", nil, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
	})
	return a
}

func (a *authority) sign(name string, by *authority, change func(*x509.Certificate)) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	change(template)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return key, cert
}

// client returns the key and certificate of a client in PEM.
func (a *authority) client(name string) string {
	key, cert := a.sign(name, a, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} })
	return inPEM(a.t, key, cert)
}

func inPEM(t testing.TB, key *ecdsa.PrivateKey, cert *x509.Certificate) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})) + certPEM(cert)
}

func certPEM(cert *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
}

// demanding returns a server that wants a client's certificate of a, and says whose it got on which connection.
func demanding(t testing.TB, a *authority, most uint16) *httptest.Server {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %s %v %s %q", r.Proto, r.TLS.PeerCertificates[0].Subject.CommonName, r.TLS.DidResume, r.RemoteAddr, r.Header.Values("X-Ssl-Client-Cert"))
	}))
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	srv.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MaxVersion: most}
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv
}

// openedCert opens sessions of agent a, whose secret KEY is a client certificate, with the host at srv.
func openedCert(t testing.TB, srv *httptest.Server, value string) (d *desk, stream func(s control.SessionCreated) *peer) {
	t.Helper()
	d = newDesk(t, srv)
	d.must(d.setAs("a", "KEY", value, "client-cert", 1, "https://example.com"))
	tokens := map[string][]byte{}
	var mu sync.Mutex
	return d, func(s control.SessionCreated) *peer {
		mu.Lock()
		defer mu.Unlock()
		if tokens[s.ID] == nil {
			h, err := d.hello(s.Broker, 1)
			d.must(err)
			tokens[s.ID] = h.Token
		}
		p, err := d.dial(s.Broker, protocol.KindForward, tokens[s.ID])
		d.must(err)
		return p
	}
}

func TestClientCertificate(t *testing.T) {
	ca := newAuthority(t)
	for _, most := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		d, stream := openedCert(t, demanding(t, ca, most), ca.client("first"))
		s := d.session("a")
		for _, version := range []string{"1", "2"} {
			resp, body, err := stream(s).ask(get("/", protocol.Field{Name: "torno-http", Value: version}, protocol.Field{Name: "x-ssl-client-cert", Value: "own"}), "")
			if err != nil || resp.Status != 200 || !strings.HasPrefix(body, "HTTP/"+version) || !strings.Contains(body, " first false ") || !strings.HasSuffix(body, " []") {
				t.Errorf("TLS %x, HTTP/%s: %v, %q, %v", most, version, resp, body, err)
			}
		}
		// Another authority's certificate, which the server refuses: in TLS 1.3 once the handshake has ended for us.
		other, ostream := openedCert(t, demanding(t, ca, most), newAuthority(t).client("stranger"))
		resp, _, err := ostream(other.session("a")).ask(get("/"), "")
		if err != nil || resp.Fields.Get("torno-reason") != "upstream_tls" {
			t.Errorf("TLS %x, another's certificate: %v, %v", most, resp, err)
		}
	}
}

// TestAttack45Identities makes connections and tickets of one identity and looks whether another gets any: of another session,
// another version, or nobody's.
func TestAttack45Identities(t *testing.T) {
	ca := newAuthority(t)
	d, stream := openedCert(t, demanding(t, ca, tls.VersionTLS13), ca.client("first"))
	ask := func(p *peer) (who, resumed, conn string) {
		t.Helper()
		resp, body, err := p.ask(get("/"), "")
		if err != nil || resp.Status != 200 {
			t.Fatalf("%v, %q, %v", resp, body, err)
		}
		parts := strings.Fields(body)
		return parts[1], parts[2], parts[3]
	}
	one, two := d.session("a"), d.session("a")
	p := stream(one)
	who, _, conn := ask(p)
	if again, _, same := ask(p); again != who || same != conn {
		t.Fatalf("the control: %s on %s, then %s on %s", who, conn, again, same)
	}
	if who, resumed, other := ask(stream(two)); who != "first" || resumed != "false" || other == conn {
		t.Errorf("another session: %s, resumed %s, on %s", who, resumed, other)
	}
	d.must(d.setAs("a", "KEY", ca.client("second"), "client-cert", 2, "https://example.com"))
	if who, _, _ := ask(stream(one)); who != "first" {
		t.Errorf("a session that began with version 1 is %s", who)
	}
	if who, resumed, other := ask(stream(d.session("a"))); who != "second" || resumed != "false" || other == conn {
		t.Errorf("the next version: %s, resumed %s, on %s", who, resumed, other)
	}
	d.must(d.call("POST", control.PathRevoke+"?agent=a&name=KEY&version=1", nil, nil))
	for _, s := range []control.SessionCreated{one, two} {
		if resp, _, err := stream(s).ask(get("/"), ""); err != nil || resp.Fields.Get("torno-reason") != "revoked" {
			t.Errorf("revoked: %v, %v", resp, err)
		}
	}
}

// A key and certificates that don't belong together are refused when they are set, and not quoted.
func TestClientCertificateRefused(t *testing.T) {
	ca := newAuthority(t)
	d := newDesk(t, nil)
	good := ca.client("good")
	at := strings.Index(good, "-----BEGIN CERT")
	for name, value := range map[string]string{
		"a key alone": good[:at], "a certificate alone": good[at:], "another's key": ca.client("x")[:at] + good[at:], "two keys": good[:at] + good,
		"nonsense": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "text": testKey,
	} {
		if err := d.setAs("a", "KEY", value, "client-cert", 1, "https://example.com"); err == nil || strings.Contains(err.Error(), "BEGIN") && name != "a certificate alone" {
			t.Errorf("%s: %v", name, err)
		}
	}
	d.must(d.setAs("a", "KEY", good, "client-cert", 1, "https://example.com"))
	d.must(d.setAs("a", "KEY", good[at:]+good[:at], "client-cert", 2, "https://example.com"))
}

// TestClientCertificateNginx has nginx verify it, for one place alone, over HTTP/1.1 and HTTP/2.
func TestClientCertificateNginx(t *testing.T) {
	if _, err := exec.LookPath("nginx"); err != nil {
		t.Skip("try: apt install nginx-light")
	}
	ca := newAuthority(t)
	dir, at := startNginx(t, ca)
	for value, want := range map[string]int{ca.client("first"): 200, newAuthority(t).client("stranger"): 400} {
		d := newDesk(t, nil)
		d.stop()
		d.cfg.Operator.Upstreams = []control.Upstream{{Host: "example.com", Dial: at, CA: filepath.Join(dir, "ca.pem")}}
		d.start()
		d.must(d.setAs("a", "KEY", value, "client-cert", 1, "https://example.com"))
		s := d.session("a")
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		for _, version := range []string{"1", "2"} {
			p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
			d.must(err)
			resp, body, err := p.ask(get("/", protocol.Field{Name: "torno-http", Value: version}), "")
			if err != nil || resp.Status != want || want == 200 && body != "CN=first HTTP/"+map[string]string{"1": "1.1", "2": "2.0"}[version] {
				t.Errorf("HTTP/%s: %d %q, %v; want %d", version, resp.Status, body, err, want)
			}
		}
	}
}

// startNginx starts nginx on a port of its own, which wants a client's certificate of ca.
func startNginx(t *testing.T, ca *authority) (dir, at string) {
	t.Helper()
	dir = t.TempDir()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at = ln.Addr().String()
	ln.Close()
	key, cert := ca.sign("example.com", ca, func(c *x509.Certificate) { c.DNSNames = []string{"example.com"} })
	conf := fmt.Sprintf(`daemon off; master_process off; pid %[1]s/pid; error_log %[1]s/error.log;
events {}
http {
  access_log off; client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
  server {
    listen %[2]s ssl http2;
    ssl_certificate %[1]s/server.pem; ssl_certificate_key %[1]s/server.pem;
    ssl_client_certificate %[1]s/ca.pem; ssl_verify_client on;
    location / { return 200 "$ssl_client_s_dn $server_protocol"; }
  }
}
`, dir, at)
	for name, content := range map[string]string{"nginx.conf": conf, "ca.pem": certPEM(ca.cert), "server.pem": inPEM(t, key, cert)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	cmd := exec.Command("nginx", "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"))
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 200 {
		if c, err := net.Dial("tcp", at); err == nil {
			c.Close()
			return dir, at
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("nginx does not answer: %s", said.Bytes())
	return "", ""
}
