package front

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// h2client returns a client that speaks HTTP/2 alone; without TLS for plain.
func (h *house) h2client(plain bool) *http.Client {
	tr := &http2.Transport{
		AllowHTTP:       plain,
		TLSClientConfig: h.tlsConfig(""),
		DialTLSContext: func(ctx context.Context, _, _ string, config *tls.Config) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", h.addr)
			if err != nil || plain {
				return c, err
			}
			t := tls.Client(c, config)
			return t, t.HandshakeContext(ctx)
		},
	}
	h.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func TestH2Get(t *testing.T) {
	h := newHouse(t)
	for _, plain := range []bool{false, true} {
		scheme := map[bool]string{true: "http", false: "https"}[plain]
		client := h.h2client(plain)
		for range 3 {
			resp, err := client.Get(scheme + "://a.example:443/x?y=%2f")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			want := "GET " + scheme + "://a.example:443/x?y=%2f 0 []"
			if err != nil || resp.StatusCode != 200 || string(body) != want || resp.Proto != "HTTP/2.0" {
				t.Errorf("%s %d %q, %v; want %q", resp.Proto, resp.StatusCode, body, err, want)
			}
		}
		resp, err := client.Post(scheme+"://a.example:443/", "text/plain", io.MultiReader(strings.NewReader(strings.Repeat("x", 1<<20))))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if want := "POST " + scheme + "://a.example:443/ 1048576 []"; string(body) != want || err != nil {
			t.Errorf("%q, %v; want %q", body, err, want)
		}
	}
}
