package upstream

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/broker/internal/credential"
	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

func cred(name, value string) credential.Field {
	return credential.Field{Name: name, Value: secret.New([]byte(value))}
}

// TestRequestHead looks at what stands on the wire: the request as the workload sent it, our Host, the
// credential, and nothing else.
func TestRequestHead(t *testing.T) {
	for _, tt := range []struct {
		name    string
		req     *protocol.Request
		cred    []credential.Field
		length  int64
		content string
		want    []string
	}{
		{"get", get("/v1/models?a=b%2F"), nil, 0, "",
			[]string{"GET /v1/models?a=b%2F HTTP/1.1", "host: example.com"}},
		{"fields pass", get("/", field("accept", "a"), field("accept", "b"), field("accept-encoding", "br"), field("expect", "100-continue")), nil, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "accept: a", "accept: b", "accept-encoding: br", "expect: 100-continue"}},
		{"connection fields end", get("/", field("keep-alive", "timeout=5"), field("connection", "x"), field("upgrade", "h2c"),
			field("http2-settings", "AAMAAABk"), field("transfer-encoding", "chunked"), field("proxy-authorization", "Basic eA=="),
			field("host", "evil.example"), field("te", "gzip"), field("x-kept", "1")), nil, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "x-kept: 1"}},
		{"nor with underscores", get("/", field("transfer_encoding", "chunked"), field("content_length", "5"), field("proxy_authorization", "Basic eA=="),
			field("proxy_connection", "keep-alive"), field("x_kept", "1")), nil, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "x_kept: 1"}},
		{"te trailers stays", get("/", field("te", "trailers")), nil, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "te: trailers"}},
		{"credential", get("/", field("accept", "a")), []credential.Field{cred("authorization", "Bearer sk-1")}, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "accept: a", "authorization: Bearer sk-1"}},
		{"the workload's own is replaced", get("/", field("authorization", "Bearer mine"), field("x_api_key", "mine"), field("x-api-key", "mine"), field("authorization", "Basic eA==")),
			[]credential.Field{cred("Authorization", "Bearer sk-1"), cred("x-api-key", "sk-2")}, 0, "",
			[]string{"GET / HTTP/1.1", "host: example.com", "authorization: Bearer sk-1", "x-api-key: sk-2"}},
		{"declared length", &protocol.Request{Method: "POST", Path: "/", Fields: protocol.Fields{field("content-length", "999")}}, nil, 5, "hello",
			[]string{"POST / HTTP/1.1", "host: example.com", "content-length: 5"}},
		{"post of nothing", &protocol.Request{Method: "POST", Path: "/"}, nil, 0, "",
			[]string{"POST / HTTP/1.1", "host: example.com", "content-length: 0"}},
		{"unknown length", &protocol.Request{Method: "POST", Path: "/"}, nil, -1, "hello",
			[]string{"POST / HTTP/1.1", "host: example.com", "transfer-encoding: chunked"}},
		{"asterisk", &protocol.Request{Method: "OPTIONS", Path: "*"}, nil, 0, "",
			[]string{"OPTIONS * HTTP/1.1", "host: example.com"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heads := make(chan []string, 1)
			s := newScript(t, "http", func(c net.Conn, r *bufio.Reader) {
				heads <- readHead(r)
				_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
				_, _ = io.Copy(io.Discard, r)
			})
			x, err := s.client.Open(t.Context(), s.key)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Release(false)
			if err := x.WriteHead(tt.req, tt.cred, tt.length); err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(x, tt.content); err != nil {
				t.Fatal(err)
			}
			if err := x.CloseWrite(nil); err != nil {
				t.Fatal(err)
			}
			head := <-heads
			for i, l := range head[1:] {
				name, value, _ := strings.Cut(l, ":")
				head[i+1] = strings.ToLower(name) + ":" + value
			}
			if diff := cmp.Diff(byName(tt.want), byName(head)); diff != "" {
				t.Errorf("head (-want +got):\n%s", diff)
			}
		})
	}
}

// byName groups a head's lines: only lines of one name have an order that means something.
func byName(lines []string) map[string][]string {
	m := map[string][]string{"line": {lines[0]}}
	for _, l := range lines[1:] {
		name, _, _ := strings.Cut(l, ":")
		m[name] = append(m[name], l)
	}
	return m
}

func TestHostField(t *testing.T) {
	for _, tt := range []struct {
		scheme string
		host   string
		port   uint16
		want   string
	}{
		{"https", "example.com", 443, "example.com"},
		{"https", "example.com", 8443, "example.com:8443"},
		{"https", "example.com", 80, "example.com:80"},
		{"http", "example.com", 80, "example.com"},
		{"http", "example.com", 443, "example.com:443"},
		{"https", "2606:4700::1111", 443, "[2606:4700::1111]"},
		{"https", "2606:4700::1111", 8443, "[2606:4700::1111]:8443"},
		{"http", "8.8.8.8", 80, "8.8.8.8"},
	} {
		if got := HostField(tt.scheme, protocol.Authority{Host: tt.host, Port: tt.port}); got != tt.want {
			t.Errorf("HostField(%s, %s %d) = %q, want %q", tt.scheme, tt.host, tt.port, got, tt.want)
		}
	}
}

// TestAttack20SplitRequest tries to end a line early from every place that outsiders fill. Nothing
// may be sent.
func TestAttack20SplitRequest(t *testing.T) {
	received := make(chan string, 64)
	s := newScript(t, "http", func(_ net.Conn, r *bufio.Reader) {
		b, _ := io.ReadAll(r)
		received <- string(b)
	})
	for _, evil := range []string{"\r", "\n", "\x00", "\r\nx-evil: 1", "\x7f"} {
		for _, tt := range []struct {
			name string
			req  *protocol.Request
			cred []credential.Field
			want protocol.Reason
		}{
			{"method", &protocol.Request{Method: "GET" + evil, Path: "/"}, nil, protocol.ReasonBadRequest},
			{"path", get("/a" + evil), nil, protocol.ReasonBadRequest},
			{"name", get("/", field("a"+evil, "b")), nil, protocol.ReasonBadRequest},
			{"value", get("/", field("a", "b"+evil)), nil, protocol.ReasonBadRequest},
			{"credential name", get("/"), []credential.Field{cred("a"+evil, "b")}, protocol.ReasonInternal},
			{"credential value", get("/"), []credential.Field{cred("authorization", "Bearer k"+evil+"x")}, protocol.ReasonInternal},
		} {
			t.Run(fmt.Sprintf("%s %q", tt.name, evil), func(t *testing.T) {
				_, err := s.do(t.Context(), tt.req, "", tt.cred...)
				wantReason(t, err, tt.want)
				if got := <-received; got != "" {
					t.Errorf("sent %q", got)
				}
				if strings.Contains(err.Error(), "Bearer") {
					t.Errorf("error %q shows the credential", err)
				}
			})
		}
	}
}

// TestAttack21PathAsSent sends paths that normalising would change: byte for byte, or not at all.
func TestAttack21PathAsSent(t *testing.T) {
	lines := make(chan string, 1)
	s := newScript(t, "http", func(c net.Conn, r *bufio.Reader) {
		for head := readHead(r); head != nil; head = readHead(r) {
			lines <- head[0]
			_, _ = io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
	})
	for _, path := range []string{
		"//", "//evil.example/", "/./", "/../", "/a/../b", "/%2e%2e/", "/%2F", "/a;x=y", "/%00", "/%252e", "/@scope%2fname",
		"/a?b=c?d=e&f=%0d%0a", "/?", "/a\\b", "/{a}|^`\"<>[]", "/http://evil.example/",
	} {
		if _, err := s.do(t.Context(), get(path), ""); err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if got, want := <-lines, "GET "+path+" HTTP/1.1"; got != want {
			t.Errorf("sent %q, want %q", got, want)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	s := newScript(t, "http", answer("HTTP/1.1 204 No Content\r\n\r\n"))
	for _, tt := range []struct {
		name string
		req  *protocol.Request
		want protocol.Reason
	}{
		{"connect", &protocol.Request{Method: "CONNECT"}, protocol.ReasonUnsupported},
		{"websocket", &protocol.Request{Method: "CONNECT", Protocol: "websocket", Path: "/"}, protocol.ReasonUnsupported},
		{"no path", get(""), protocol.ReasonBadRequest},
		{"absolute form", get("http://evil.example/"), protocol.ReasonBadRequest},
		{"asterisk", get("*"), protocol.ReasonBadRequest},
		{"space", get("/a b"), protocol.ReasonBadRequest},
		{"raw UTF-8", get("/ü"), protocol.ReasonBadRequest},
		{"upper-case name", get("/", field("Authorization", "x")), protocol.ReasonBadRequest},
		{"empty name", get("/", field("", "x")), protocol.ReasonBadRequest},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := s.do(t.Context(), tt.req, "")
			wantReason(t, err, tt.want)
		})
	}
	_, err := s.client.Open(t.Context(), PoolKey{Session: "s1", Scheme: "ftp", Authority: s.key.Authority})
	wantReason(t, err, protocol.ReasonUnsupported)
}

// TestDeclaredLength holds the content to the length that went out before it.
func TestDeclaredLength(t *testing.T) {
	s := newScript(t, "http", func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	open := func(length int64) *Exchange {
		x, err := s.client.Open(t.Context(), s.key)
		if err != nil {
			t.Fatal(err)
		}
		if err := x.WriteHead(&protocol.Request{Method: "PUT", Path: "/"}, nil, length); err != nil {
			t.Fatal(err)
		}
		return x
	}
	long := open(3)
	defer long.Release(true)
	_, err := long.Write([]byte("four"))
	wantReason(t, err, protocol.ReasonBadRequest)

	short := open(5)
	defer short.Release(true)
	if _, err := short.Write([]byte("four")); err != nil {
		t.Fatal(err)
	}
	wantReason(t, short.CloseWrite(nil), protocol.ReasonBadRequest)
}
