package front

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/bhttp"
)

// leadsTo opens tunnels to address, for the authorities in open, and answers all else with where it was to go.
func leadsTo(address string, open ...string) func(*protocol.Request, *bhttp.Reader, *bhttp.Writer, net.Conn) error {
	return func(req *protocol.Request, r *bhttp.Reader, w *bhttp.Writer, _ net.Conn) error {
		if req.Method != "CONNECT" {
			return reply(w, 200, nil, "ended here for "+req.Authority, nil)
		}
		if !strings.Contains(strings.Join(open, " "), req.Authority) {
			resp, content := protocol.Refusal(protocol.ReasonDenied)
			return reply(w, resp.Status, resp.Fields, string(content), nil)
		}
		up, err := net.Dial("tcp", address)
		if err != nil {
			return err
		}
		defer up.Close()
		if err := errors.Join(w.WriteResponse(&protocol.Response{Status: 200}), w.Flush()); err != nil {
			return err
		}
		var back sync.WaitGroup
		back.Go(func() { _, _ = bhttp.Copy(w, up, func(int64) error { return w.Flush() }) })
		_, _ = io.Copy(up, r)
		_ = up.(*net.TCPConn).CloseWrite()
		back.Wait()
		return errors.Join(w.Close(nil), io.EOF)
	}
}

// A slow client's bytes go out one by one.
type slowly struct{ net.Conn }

func (s slowly) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := s.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TLS to hosts that a tunnel rule names is between the client and the server, from its first byte on; all other ends here, and so does
// that for which the broker opens no tunnel, so that the client learns why.
func TestTLSPasses(t *testing.T) {
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "the server itself") }))
	defer up.Close()
	for _, tt := range []struct {
		name    string
		port    uint16
		tunnels []string
		passes  bool
		answer  string
	}{
		{"pinned.example", 443, []string{"pinned.example:443"}, true, "the server itself"},
		{"a.b.pinned.example", 443, []string{"*.pinned.example:443"}, true, "the server itself"},
		{"", 443, []string{"named.example:443"}, true, "the server itself"},
		{"pinned.example", 8443, []string{"other.example:443", "pinned.example:8443"}, true, "the server itself"},
		{"pinned.example", 443, nil, false, "ended here for pinned.example:443"},
		{"pinned.example", 443, []string{"*.pinned.example:443"}, false, "ended here for pinned.example:443"},
		{"evilpinned.example", 443, []string{"*.pinned.example:443", "pinned.example:443"}, false, "ended here for evilpinned.example:443"},
		{"pinned.example", 443, []string{"pinned.example:8443"}, false, "ended here for pinned.example:443"},
		{"denied.example", 443, []string{"denied.example:443"}, false, "ended here for denied.example:443"},
		{"pinned.example", 443, []string{"pinned.example", "*:443", ":", "", "*.", "pinned.example:99999"}, false, "ended here for pinned.example:443"},
	} {
		h := newHouse(t)
		h.front.passing = newPassing(tt.tunnels)
		h.broker = leadsTo(up.Listener.Addr().String(), "pinned.example:443", "a.b.pinned.example:443", "named.example:443", "pinned.example:8443")
		tcp, err := h.dial(tt.port)
		if err != nil {
			t.Fatal(err)
		}
		c := tls.Client(slowly{tcp}, &tls.Config{ServerName: tt.name, InsecureSkipVerify: true}) // who it is is compared below
		if err := c.Handshake(); err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		if passes := c.ConnectionState().PeerCertificates[0].Equal(up.Certificate()); passes != tt.passes {
			t.Errorf("%+v: the certificate of the server: %v", tt, passes)
		}
		host := tt.name
		if tt.port != 443 {
			host += ":8443"
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%+v: %v", tt, err)
			continue
		}
		if b, err := io.ReadAll(resp.Body); err != nil || string(b) != tt.answer {
			t.Errorf("%+v: %q, %v", tt, b, err)
		}
		c.Close()
	}
}
