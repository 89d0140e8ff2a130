package upstream

import (
	"io"
	"net/http"
	"testing"
)

// TestH2Get sends requests to net/http's server, over one connection.
func TestH2Get(t *testing.T) {
	s := newH2Server(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Seen", r.Proto+" "+r.Method+" "+r.Host+r.URL.RequestURI()+" "+r.Header.Get("Authorization"))
		_, _ = io.Copy(w, r.Body)
	}))
	for range 3 {
		res := s.mustDo(t, get("/a?b=c"), "", cred("authorization", "Bearer sk-1"))
		if got, want := res.Fields.Get("x-seen"), "HTTP/2.0 GET example.com/a?b=c Bearer sk-1"; got != want {
			t.Errorf("server saw %q, want %q", got, want)
		}
	}
	s.wantConns(t, 1)
}

// newH2Server is newServer for HTTP/2.
func newH2Server(t testing.TB, h http.Handler) *upstreamServer {
	t.Helper()
	s := newServer(t, "https", h)
	s.key.HTTP2 = true
	return s
}
