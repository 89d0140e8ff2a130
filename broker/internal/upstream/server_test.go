package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
)

// quiet keeps net/http from telling about connections that tests break.
var quiet = log.New(io.Discard, "", 0)

// An upstreamServer is a server on loopback that a client reaches as example.com.
type upstreamServer struct {
	client *Client
	key    PoolKey
	conns  atomic.Int64 // accepted so far
}

// newServer starts net/http's server, with TLS or without, and a client for it.
func newServer(t testing.TB, scheme string, h http.Handler) *upstreamServer {
	t.Helper()
	s := &upstreamServer{}
	srv := httptest.NewUnstartedServer(h)
	srv.Config.ErrorLog = quiet
	srv.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	if scheme == "https" {
		srv.EnableHTTP2 = true // for keys that ask for it
		srv.StartTLS()
	} else {
		srv.Start()
	}
	s.connect(t, scheme, srv.Listener.Addr().String(), srv.Certificate())
	t.Cleanup(func() {
		_ = s.client.Close()
		srv.Close()
	})
	return s
}

func (s *upstreamServer) connect(t testing.TB, scheme, addr string, cert *x509.Certificate) {
	t.Helper()
	s.key = PoolKey{Session: "s1", Scheme: scheme, Authority: protocol.Authority{Host: "example.com", Port: protocol.DefaultPort(scheme)}}
	o := Override{Authority: s.key.Authority, Dial: addr}
	if cert != nil {
		o.Roots = x509.NewCertPool()
		o.Roots.AddCert(cert)
	}
	s.client = New(Config{Overrides: []Override{o}, Resolver: &fakeResolver{err: errors.New("nothing is to be resolved")}})
}

// newScript starts a server that plays script on each connection, after reading nothing.
func newScript(t testing.TB, scheme string, script func(c net.Conn, r *bufio.Reader)) *upstreamServer {
	t.Helper()
	return newScriptTLS(t, scheme, &tls.Config{}, script)
}

// newScriptTLS is newScript with TLS as cfg says, but for the certificate.
func newScriptTLS(t testing.TB, scheme string, cfg *tls.Config, script func(c net.Conn, r *bufio.Reader)) *upstreamServer {
	t.Helper()
	// httptest's certificate is as good as any for the name example.com.
	donor := httptest.NewTLSServer(nil)
	donor.Close()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	if scheme == "https" {
		cfg.Certificates = donor.TLS.Certificates
		ln = tls.NewListener(ln, cfg)
	}
	s := &upstreamServer{}
	s.connect(t, scheme, addr, donor.Certificate())
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			running.Go(func() {
				defer c.Close()
				script(c, bufio.NewReader(c))
			})
		}
	})
	t.Cleanup(func() {
		_ = s.client.Close()
		_ = ln.Close()
		running.Wait()
	})
	return s
}

// newClient returns a Client that is closed when the test ends.
func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c := New(cfg)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// readHead reads a request's head as it came and returns its lines.
func readHead(r *bufio.Reader) []string {
	var lines []string
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return nil
		}
		if line = strings.TrimSuffix(line, "\r\n"); line == "" {
			return lines
		}
		lines = append(lines, line)
	}
}

// answer is a script that sends the same bytes to every request and keeps the connection.
func answer(bytes string) func(net.Conn, *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		for readHead(r) != nil {
			if _, err := io.WriteString(c, bytes); err != nil {
				return
			}
		}
	}
}

// A result is a whole response.
type result struct {
	Interim []protocol.Response
	protocol.Response
	Content string
	Trailer protocol.Fields
}

// get is a request without content.
func get(path string, fields ...protocol.Field) *protocol.Request {
	return &protocol.Request{Method: "GET", Scheme: "https", Authority: "example.com", Path: path, Fields: fields}
}

// do runs one exchange with content of known length.
func (s *upstreamServer) do(ctx context.Context, req *protocol.Request, content string, creds ...credential.Field) (result, error) {
	x, err := s.client.Open(ctx, s.key)
	if err != nil {
		return result{}, err
	}
	defer x.Release(true)
	if err := x.WriteHead(req, creds, int64(len(content))); err != nil {
		return result{}, err
	}
	if _, err := io.WriteString(x, content); err != nil {
		return result{}, err
	}
	if err := x.CloseWrite(nil); err != nil {
		return result{}, err
	}
	return receive(x)
}

// receive reads a whole response.
func receive(x *Exchange) (result, error) {
	var res result
	for {
		if err := x.ReadResponse(&res.Response); err != nil {
			return result{}, err
		}
		if !res.Response.Interim() {
			break
		}
		res.Interim = append(res.Interim, protocol.Response{Status: res.Status, Fields: res.Fields.Clone()})
	}
	content, err := io.ReadAll(x)
	res.Content, res.Trailer = string(content), slices.Clone(x.Trailer())
	return res, err
}

// mustDo is do that must succeed.
func (s *upstreamServer) mustDo(t testing.TB, req *protocol.Request, content string, creds ...credential.Field) result {
	t.Helper()
	res, err := s.do(context.Background(), req, content, creds...)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// wantConns fails the test unless the server accepted exactly n connections.
func (s *upstreamServer) wantConns(t testing.TB, n int64) {
	t.Helper()
	if got := s.conns.Load(); got != n {
		t.Errorf("server saw %d connections, want %d", got, n)
	}
}

func field(name, value string) protocol.Field { return protocol.Field{Name: name, Value: value} }
