package upstream

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"

	"torno.internal/protocol"
)

// TestTLSRefused offers connections that must not be trusted with anything.
func TestTLSRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		scheme string // of the server
		server *tls.Config
		host   string // that the client means
		trust  bool   // the client knows the certificate
	}{
		{"unknown CA", "https", &tls.Config{}, "example.com", false},
		{"another name", "https", &tls.Config{}, "example.org", true},
		{"deeper name", "https", &tls.Config{}, "a.b.example.com", true},
		{"another address", "https", &tls.Config{}, "127.0.0.2", true},
		{"TLS 1.1", "https", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, "example.com", true},
		{"another protocol", "https", &tls.Config{NextProtos: []string{"imap"}}, "example.com", true},
		{"no TLS", "http", nil, "example.com", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			received := make(chan int64, 1)
			s := newScriptTLS(t, tt.scheme, tt.server, func(c net.Conn, r *bufio.Reader) {
				if tt.scheme == "http" {
					_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
					received <- 0
					return
				}
				n, _ := io.Copy(io.Discard, r)
				received <- n
			})
			o := s.client.overrides[s.key.Authority]
			o.Authority.Host = tt.host
			if !tt.trust {
				o.Roots = nil
			}
			c := newClient(t, Config{Overrides: []Override{o}})
			_, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: o.Authority})
			wantReason(t, err, protocol.ReasonUpstreamTLS)
			if n := <-received; n != 0 {
				t.Errorf("%d bytes of a request arrived", n)
			}
		})
	}
}

// TestTLSServerName sends the authority's host as the server name, and none for an address.
func TestTLSServerName(t *testing.T) {
	for _, tt := range []struct{ host, sni string }{{"example.com", "example.com"}, {"127.0.0.1", ""}} {
		names := make(chan string, 1)
		srv := httptest.NewUnstartedServer(http.NotFoundHandler())
		srv.Config.ErrorLog = quiet
		srv.TLS = &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- h.ServerName
			return nil, nil
		}}
		srv.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(srv.Certificate())
		a := protocol.Authority{Host: tt.host, Port: 443}
		c := New(Config{Overrides: []Override{{Authority: a, Dial: srv.Listener.Addr().String()}}, Roots: roots})
		x, err := c.Open(t.Context(), PoolKey{Session: "s", Scheme: "https", Authority: a})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-names; got != tt.sni {
			t.Errorf("server name %q, want %q", got, tt.sni)
		}
		if want := srv.Listener.Addr().(*net.TCPAddr).AddrPort().String(); x.Remote() != want {
			t.Errorf("remote %v, want %v", x.Remote(), want)
		}
		x.Release(false)
		_ = c.Close()
		srv.Close()
	}
}
