package upstream

import (
	"bufio"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A connectProxy is a real proxy on loopback: it answers CONNECT by connecting every authority to one address.
type connectProxy struct {
	authority protocol.Authority
	answer    func(r *http.Request) string // nil: 200 and a tunnel to to
	to        string

	mu    sync.Mutex
	asked []string // "authority proxy-authorization"
}

func newProxy(t *testing.T, to string) *connectProxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().(*net.TCPAddr).AddrPort()
	p := &connectProxy{authority: protocol.Authority{Host: addr.Addr().String(), Port: addr.Port()}, to: to}
	var serving sync.WaitGroup
	t.Cleanup(func() { ln.Close(); serving.Wait() })
	serving.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { p.serve(c) })
		}
	})
	return p
}

func (p *connectProxy) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil {
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Host+" "+req.Header.Get("Proxy-Authorization"))
	answer := p.answer
	p.mu.Unlock()
	if answer != nil {
		_, _ = io.WriteString(c, answer(req))
		_, _ = io.Copy(io.Discard, r)
		return
	}
	up, err := net.Dial("tcp", p.to)
	if err != nil {
		return
	}
	defer up.Close()
	_, _ = io.WriteString(c, "HTTP/1.1 200 Connection established\r\nVia: corp\r\n\r\n")
	go func() { _, _ = io.Copy(up, r); up.Close() }()
	_, _ = io.Copy(c, up)
}

// behind returns the server's client, made anew so that it reaches everything through p.
func (p *connectProxy) behind(t *testing.T, s *upstreamServer, resolver Resolver, direct ...string) *Client {
	t.Helper()
	px := &Proxy{Authority: p.authority, Authorization: secret.New([]byte("Basic dTpw"))}
	for _, d := range direct {
		parsed, err := ParseDirect(d)
		if err != nil {
			t.Fatal(err)
		}
		px.Direct = append(px.Direct, parsed)
	}
	c := New(Config{Proxy: px, Roots: s.roots(), Resolver: resolver})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// nowhere resolves nothing, as in networks whose proxy alone knows the internet.
type nowhere struct{}

func (nowhere) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

// inward resolves every name to one address.
type inward string

func (a inward) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr(string(a))}, nil
}

func TestProxy(t *testing.T) {
	for _, scheme := range []string{"https", "http"} {
		s := newServer(t, scheme, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) }))
		p := newProxy(t, s.addr())
		s.client = p.behind(t, s, nowhere{})
		for range 3 {
			if res := s.mustDo(t, get("/"), ""); res.Content != "example.com" {
				t.Errorf("%s: %q", scheme, res.Content)
			}
		}
		want := fmt.Sprintf("example.com:%d Basic dTpw", protocol.DefaultPort(scheme))
		if len(p.asked) != 1 || p.asked[0] != want {
			t.Errorf("%s: asked %q, want once %q", scheme, p.asked, want)
		}
		if via := s.client.Via(s.key.Authority); via != p.authority.String() {
			t.Errorf("via %q", via)
		}
		other := s.key
		other.Session = "s2" // never another session's connection
		x, err := s.client.Open(t.Context(), other)
		if err != nil {
			t.Fatal(err)
		}
		x.Release(false)
		if len(p.asked) != 2 {
			t.Errorf("%s: asked %q for two sessions", scheme, p.asked)
		}
	}
}

func TestProxyTunnel(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err == nil {
			_, _ = io.WriteString(c, "SSH-2.0-x\r\n") // a server that speaks first
			c.Close()
		}
	}()
	p := newProxy(t, ln.Addr().String())
	c := New(Config{Proxy: &Proxy{Authority: p.authority}, Resolver: nowhere{}})
	defer c.Close()
	nc, err := c.Tunnel(t.Context(), PoolKey{Session: "s", Authority: protocol.Authority{Host: "git.example", Port: 22}})
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if b, err := io.ReadAll(nc); err != nil || string(b) != "SSH-2.0-x\r\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestAttack23ThroughProxy refuses what can be seen from here to be inside, before the proxy hears of it.
func TestAttack23ThroughProxy(t *testing.T) {
	p := newProxy(t, "127.0.0.1:1")
	for _, tt := range []struct {
		host     string
		resolver Resolver
	}{
		{"10.0.0.1", nowhere{}}, {"169.254.169.254", nowhere{}}, {"::1", nowhere{}}, {"64:ff9b::a00:1", nowhere{}}, {"2001:db8:64::a00:1", nowhere{}},
		{"metadata.example", inward("169.254.169.254")}, {"inside.example", inward("fd00::1")},
		{"metadata.google.internal", nowhere{}}, {"instance-data.ec2.internal", nowhere{}},
	} {
		c := New(Config{Proxy: &Proxy{Authority: p.authority}, Resolver: tt.resolver, NAT64: []netip.Prefix{netip.MustParsePrefix("2001:db8:64::/96")}})
		_, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: tt.host, Port: 443}})
		wantReason(t, err, protocol.ReasonForbiddenAddress)
		_ = c.Close()
	}
	if len(p.asked) > 0 {
		t.Errorf("the proxy was asked for %q", p.asked)
	}
}

// TestProxyRefuses gives the reason of a proxy that does not do as it is asked, and never its credential.
func TestProxyRefuses(t *testing.T) {
	tests := []struct {
		name, answer string
		want         string
	}{
		{"authentication", "HTTP/1.1 407 P\r\nProxy-Authenticate: Negotiate\r\nContent-Length: 0\r\n\r\n", `wants authentication by "Negotiate"`},
		{"forbidden", "HTTP/1.1 403 F\r\nContent-Length: 0\r\n\r\n", "answers 403"},
		{"garbage", "SSH-2.0-x\r\n\r\n", "its answer"},
		{"endless", "HTTP/1.1 200 OK\r\n" + strings.Repeat("x: y\r\n", 4000), "head of more than"},
		{"bare line feeds", "HTTP/1.1 200 OK\n\n\r\n\r\n", "its answer"},
	}
	for _, tt := range tests {
		p := newProxy(t, "")
		p.answer = func(*http.Request) string { return tt.answer }
		c := New(Config{Proxy: &Proxy{Authority: p.authority, Authorization: secret.New([]byte("Basic c2VjcmV0"))}, Resolver: nowhere{}})
		_, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: "example.com", Port: 443}})
		wantReason(t, err, protocol.ReasonConnect)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		_ = c.Close()
	}
}

// TestProxySilent is cut by the caller.
func TestProxySilent(t *testing.T) {
	p := newProxy(t, "")
	p.answer = func(*http.Request) string { time.Sleep(300 * time.Millisecond); return "" }
	c := New(Config{Proxy: &Proxy{Authority: p.authority}, Resolver: nowhere{}})
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := c.Open(ctx, PoolKey{Session: "s", Scheme: "https", Authority: protocol.Authority{Host: "example.com", Port: 443}})
	if err == nil || time.Since(start) > 250*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(start))
	}
}

func TestProxyDirect(t *testing.T) {
	p := &Proxy{}
	for _, s := range []string{"*.internal.example", "one.example", "192.0.2.0/24", "2001:db8::1"} {
		d, err := ParseDirect(s)
		if err != nil {
			t.Fatal(err)
		}
		p.Direct = append(p.Direct, d)
	}
	for host, want := range map[string]bool{
		"a.internal.example": false, "internal.example": true, "xinternal.example": true, "one.example": false, "a.one.example": true,
		"192.0.2.9": false, "192.0.3.9": true, "2001:db8::1": false, "2001:db8::2": true,
	} {
		if got := p.serves(host); got != want {
			t.Errorf("serves(%q) = %v, want %v", host, got, want)
		}
	}
	if (*Proxy)(nil).serves("example.com") {
		t.Error("no proxy serves")
	}
	for _, s := range []string{"", "*", "a b", "http://x", "10.0.0.0/33"} {
		if d, err := ParseDirect(s); err == nil {
			t.Errorf("ParseDirect(%q) = %+v", s, d)
		}
	}
}

// TestGuardNAT64 judges by the IPv4 address inside, for each length of RFC 6052 §2.2 (its table's example, 192.0.2.33,
// is documentation and thus refused; 8.8.8.8 passes).
func TestGuardNAT64(t *testing.T) {
	for _, tt := range []struct{ prefix, bad, good string }{
		{"2001:db8::/32", "2001:db8:c000:221::", "2001:db8:808:808::"},
		{"2001:db8:100::/40", "2001:db8:1c0:2:21::", "2001:db8:108:808:8::"},
		{"2001:db8:122::/48", "2001:db8:122:c000:2:2100::", "2001:db8:122:808:8:800::"},
		{"2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::", "2001:db8:122:308:8:808::"},
		{"2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::", "2001:db8:122:344:8:808:800::"},
		{"2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33", "2001:db8:122:344::8.8.8.8"},
	} {
		prefixes, err := ParseNAT64([]string{tt.prefix})
		if err != nil {
			t.Fatal(err)
		}
		g := guard{nat64: prefixes}
		if err := g.check(netip.MustParseAddr(tt.bad)); err == nil {
			t.Errorf("%s: %s passes", tt.prefix, tt.bad)
		}
		if err := g.check(netip.MustParseAddr(tt.good)); err != nil {
			t.Errorf("%s: %s: %v", tt.prefix, tt.good, err)
		}
		if (guard{}).check(netip.MustParseAddr(tt.good)) == nil {
			t.Errorf("%s passes without the prefix", tt.good)
		}
	}
	for _, s := range []string{"2001:db8::/33", "192.0.2.0/24", "x"} {
		if _, err := ParseNAT64([]string{s}); err == nil {
			t.Errorf("ParseNAT64(%q) passes", s)
		}
	}
}

func TestReadProxy(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good", "Basic dTpw\n", 0o600)
	cfg, err := ReadConfig(control.Config{Egress: control.ConfigEgress{Proxy: "http://proxy.example:3128", ProxyAuthorizationFile: good, NoProxy: []string{"*.x.example"}}})
	if err != nil || cfg.Proxy.Authority.String() != "proxy.example:3128" || cfg.Proxy.Authorization.Len() != len("Basic dTpw") {
		t.Fatalf("%+v, %v", cfg.Proxy, err)
	}
	for name, e := range map[string]control.ConfigEgress{
		"open file":  {Proxy: "http://p.example:1", ProxyAuthorizationFile: write("open", "Basic x", 0o644)},
		"two lines":  {Proxy: "http://p.example:1", ProxyAuthorizationFile: write("two", "a\nb", 0o600)},
		"empty file": {Proxy: "http://p.example:1", ProxyAuthorizationFile: write("none", "\n", 0o600)},
		"no file":    {Proxy: "http://p.example:1", ProxyAuthorizationFile: filepath.Join(dir, "absent")},
		"no proxy":   {NoProxy: []string{"a.example"}},
		"https":      {Proxy: "https://p.example:1"},
		"userinfo":   {Proxy: "http://u:p@p.example:1"},
		"no port":    {Proxy: "http://p.example"},
		"path":       {Proxy: "http://p.example:1/x"},
	} {
		if _, err := ReadConfig(control.Config{Egress: e}); err == nil {
			t.Errorf("%s: passes", name)
		}
	}
}

// addr returns where the server listens.
func (s *upstreamServer) addr() string { return s.client.overrides[s.key.Authority].Dial }

// roots returns what its certificate is signed by; nil for plain http.
func (s *upstreamServer) roots() *x509.CertPool { return s.client.overrides[s.key.Authority].Roots }
