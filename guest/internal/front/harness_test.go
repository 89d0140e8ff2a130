package front

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"torno.internal/guest/internal/relay"
	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A house is a front with a broker behind it that does as a test says.
type house struct {
	t      testing.TB
	ca     *x509.Certificate
	caKey  *ecdsa.PrivateKey
	front  *Front
	addr   string // of the captured listener
	proxy  string // of the explicit proxy
	broker func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, c net.Conn) error
	asked  atomic.Int64 // exchanges that reached the broker
	leaves atomic.Int64 // leaves that were asked for
	fail   atomic.Int64 // leaves still to be refused
	limit  atomic.Int64 // leaves still to be refused for coming too fast

	refusal  atomic.Int64 // the protocol.Status of streams still to be refused
	refusals atomic.Int64 // how many those are
}

// dialled is where captured connections of the tests believe to go.
var dialled = netip.MustParseAddrPort("100.64.0.1:443")

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, broker: echo}
	h.ca, h.caKey = h.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	path := filepath.Join(t.TempDir(), "b")
	ctx, cancel := context.WithCancel(context.Background())
	var served sync.WaitGroup
	t.Cleanup(func() { cancel(); served.Wait() })
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served.Go(func() { h.serveBroker(ctx, ln) })
	pool := relay.New(func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}, protocol.Token{})
	t.Cleanup(pool.Close)
	h.front = New(Config{Pool: pool, Leaf: h, Log: slog.New(slog.DiscardHandler), NameOf: func(a netip.Addr) (string, bool) {
		return "named.example", a == dialled.Addr()
	}})
	for _, l := range []struct {
		addr  *string
		serve func(context.Context, net.Listener) error
	}{{&h.addr, h.front.Serve}, {&h.proxy, h.front.ServeProxy}} {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*l.addr = tcp.Addr().String()
		served.Go(func() { _ = l.serve(ctx, captured{tcp}) })
	}
	return h
}

// A captured listener's connections believe to go to dialled.
type captured struct{ net.Listener }

func (l captured) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return capturedConn{c.(*net.TCPConn)}, nil
}

type capturedConn struct{ *net.TCPConn }

func (capturedConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(dialled) }

func (h *house) serveBroker(ctx context.Context, ln net.Listener) {
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		conns.Go(func() {
			defer c.Close()
			defer context.AfterFunc(ctx, func() { c.Close() })()
			if _, err := protocol.ReadPreface(c); err != nil {
				return
			}
			reply := protocol.PrefaceReply{Version: protocol.Version}
			if h.refusals.Add(-1) >= 0 {
				reply.Status = protocol.Status(h.refusal.Load())
			}
			if _, err := c.Write(reply.AppendTo(nil)); err != nil || reply.Status != protocol.StatusOK {
				return
			}
			r, w := bhttp.NewReader(c), bhttp.NewWriter(c)
			var req protocol.Request
			for r.ReadRequest(&req) == nil {
				h.asked.Add(1)
				if h.broker(&req, r, w, c) != nil {
					return
				}
			}
		})
	}
}

// echo answers with what it was asked.
func echo(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
	body, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	var trailer protocol.Fields
	if err := r.ReadTrailer(&trailer); err != nil {
		return err
	}
	text := fmt.Sprintf("%s %s://%s%s %d %v", req.Method, req.Scheme, req.Authority, req.Path, len(body), trailer)
	if req.Method == "HEAD" {
		text = ""
	}
	return reply(w, 200, protocol.Fields{{Name: "x-fields", Value: fmt.Sprint(len(req.Fields))}}, text, nil)
}

func reply(w *bhttp.Writer, status int, f protocol.Fields, content string, trailer protocol.Fields) error {
	if err := w.WriteResponse(&protocol.Response{Status: status, Fields: f}); err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return err
	}
	return w.Close(trailer)
}

// Leaf signs as the broker does.
func (h *house) Leaf(_ context.Context, name string, key []byte) (*protocol.LeafResponse, error) {
	h.leaves.Add(1)
	if h.fail.Add(-1) >= 0 {
		return nil, errors.New("refused")
	}
	if h.limit.Add(-1) >= 0 {
		return nil, protocol.Refuse(protocol.ReasonRateLimited, nil)
	}
	pub, err := x509.ParsePKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour)}
	if ip, err := netip.ParseAddr(name); err == nil {
		template.IPAddresses = []net.IP{ip.AsSlice()}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, h.ca, pub, h.caKey)
	return &protocol.LeafResponse{Certificate: der, NotAfter: template.NotAfter}, err
}

func (h *house) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	h.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		h.t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		h.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		h.t.Fatal(err)
	}
	return cert, key
}

func (h *house) tlsConfig(name string) *tls.Config {
	roots := x509.NewCertPool()
	roots.AddCert(h.ca)
	return &tls.Config{RootCAs: roots, ServerName: name}
}

// client returns an HTTP client whose every connection is captured.
func (h *house) client() *http.Client {
	tr := &http.Transport{
		TLSClientConfig: h.tlsConfig(""),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "tcp", h.addr)
		},
	}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// raw opens a captured connection, over TLS for name unless that is "".
func (h *house) raw(addr, name string) net.Conn {
	h.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	h.t.Cleanup(func() { c.Close() })
	if name == "" {
		return c
	}
	return h.overTLS(c, name)
}

func (h *house) overTLS(c net.Conn, name string) net.Conn {
	h.t.Helper()
	t := tls.Client(c, h.tlsConfig(name))
	if err := t.Handshake(); err != nil {
		h.t.Fatal(err)
	}
	return t
}

// status sends text as it is and returns the status and reason of the answer.
func status(c net.Conn, text string) string {
	_, _ = io.WriteString(c, text)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "closed"
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", resp.Header.Get(protocol.FieldReason)))
}

func tlsDial(addr string, config *tls.Config) (net.Conn, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, config)
	return t, t.Handshake()
}
