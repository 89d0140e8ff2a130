package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"crypto/tls"
)

// A network that opens TLS by a root of its own, and has no way out but a proxy.
func TestCorporateNetwork(t *testing.T) {
	cert, ca := issue(t, []string{"api.corp.example.org"})
	var sent atomic.Value
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sent.Store(r.Header.Get("Authorization"))
		fmt.Fprintln(w, "behind the proxy")
	}))
	up.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	up.StartTLS()
	defer up.Close()
	proxy, asked := connectProxy(t, up.Listener.Addr().String())
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca.pem": ca, "auth": []byte("Basic dTpw\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	egress := fmt.Sprintf("[egress]\nproxy = \"http://%s\"\nproxy_authorization_file = %q\n", proxy, filepath.Join(dir, "auth"))
	for _, c := range []struct{ extra, want string }{
		{egress, "upstream_tls"}, // the control: the root is not known
		{egress + fmt.Sprintf("ca = [%q]\n", filepath.Join(dir, "ca.pem")), "behind the proxy"},
	} {
		h := newHouse(t, c.extra)
		h.must("secrets", "set", "my-agent", "CORP_TOKEN=corp-5f0e1d2c3b4a59687f6e5d4c3b2a1908", "--host", "api.corp.example.org")
		r := h.sh(`curl -sS -D - https://api.corp.example.org/ | tr -d '\r'`)
		if !strings.Contains(r.stdout, c.want) {
			t.Errorf("stdout %q, want %q; stderr %q", r.stdout, c.want, r.stderr)
		}
		if c.want == "upstream_tls" {
			continue
		}
		if got := sent.Load(); got != "Bearer corp-5f0e1d2c3b4a59687f6e5d4c3b2a1908" {
			t.Errorf("the upstream got %q", got)
		}
		if out := h.must("audit", "tail", "--json"); !strings.Contains(out, `"via":"`+proxy+`"`) {
			t.Errorf("the audit does not say via: %s", out)
		}
		if r := h.sh(`curl -sS -o /dev/null -D - https://10.0.0.1/ | grep -c 'torno-reason: denied'`); r.stdout != "1\n" {
			t.Errorf("an address inside: %q", r.stdout)
		}
	}
	for _, a := range asked() {
		if a != "api.corp.example.org:443 Basic dTpw" {
			t.Errorf("the proxy was asked for %q", a)
		}
	}
}

// connectProxy serves CONNECT on loopback, every authority at one address, and tells what it was asked for.
func connectProxy(t *testing.T, to string) (addr string, asked func() []string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	requests := make(chan string, 100)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				requests <- req.Host + " " + req.Header.Get("Proxy-Authorization")
				up, err := net.Dial("tcp", to)
				if err != nil {
					return
				}
				defer up.Close()
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { _, _ = io.Copy(up, r); up.Close() }()
				_, _ = io.Copy(c, up)
			}()
		}
	}()
	return ln.Addr().String(), func() []string {
		var all []string
		for len(requests) > 0 {
			all = append(all, <-requests)
		}
		return all
	}
}
