package upstream

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torno.internal/protocol"
)

func TestResponse(t *testing.T) {
	for _, tt := range []struct {
		name   string
		method string
		bytes  string
		want   result
		reused bool // a second exchange takes the same connection
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhi",
			result{Response: response(200, "content-length", "2", "x-a", "b"), Content: "hi"}, true},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
			result{Response: response(200), Content: "hi"}, true},
		{"trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: grpc-status\r\n\r\n2\r\nhi\r\n0\r\n" +
			"grpc-status: 0\r\nSet-Cookie: a=b\r\nContent-Type: x/y\r\nAuthorization: x\r\nAlt-Svc: h3\r\nTorno-Reason: x\r\nWWW-Authenticate: Basic\r\nLocation: /\r\n\r\n",
			result{Response: response(200, "trailer", "grpc-status"), Content: "hi", Trailer: protocol.Fields{field("grpc-status", "0")}}, true},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n",
			result{Response: response(200, "content-length", "200")}, true},
		{"no content", "GET", "HTTP/1.1 204 No Content\r\n\r\n", result{Response: response(204)}, true},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nEtag: \"a\"\r\n\r\n",
			result{Response: response(304, "content-length", "5", "etag", `"a"`)}, true},
		{"empty", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", result{Response: response(200, "content-length", "0")}, true},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
			result{Response: response(200, "content-length", "2"), Content: "hi"}, false},
		{"1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",
			result{Response: response(200, "content-length", "2"), Content: "hi"}, false},
		{"coded content stays coded", "GET", "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
			result{Response: response(200, "content-encoding", "gzip", "content-length", "3"), Content: "\x1f\x8b\x08"}, true},
		{"fields that end here", "GET", "HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nKeep-Alive: timeout=60\r\nX-Hop: 1\r\nUpgrade: h2c\r\n" +
			"Alt-Svc: h3=\":443\"\r\nTorno-Reason: denied\r\ntorno-x: 1\r\nProxy-Authenticate: Basic\r\nStrict-Transport-Security: max-age=1\r\n" +
			"Location: /a\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n",
			result{Response: response(200, "strict-transport-security", "max-age=1", "location", "/a", "set-cookie", "a=b", "content-length", "0")}, true},
		{"interim", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\nAlt-Svc: h3\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
			result{Interim: []protocol.Response{response(100), response(103, "link", "</a>")}, Response: response(200, "content-length", "0")}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScript(t, "https", answer(tt.bytes))
			for range 2 {
				req := get("/")
				req.Method = tt.method
				got := s.mustDo(t, req, "")
				if diff := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("response (-want +got):\n%s", diff)
				}
			}
			if tt.reused {
				s.wantConns(t, 1)
			} else {
				s.wantConns(t, 2)
			}
		})
	}
}

func response(status int, fields ...string) protocol.Response {
	r := protocol.Response{Status: status}
	for i := 0; i < len(fields); i += 2 {
		r.Fields = append(r.Fields, field(fields[i], fields[i+1]))
	}
	return r
}

// TestCloseDelimited reads content that ends with the connection. Over TLS only close_notify is an
// end: anybody on the path can close a TCP connection.
func TestCloseDelimited(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
	t.Run("tcp", func(t *testing.T) {
		s := newScript(t, "http", func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, head+"all of it")
		})
		if got := s.mustDo(t, get("/"), "").Content; got != "all of it" {
			t.Errorf("content %q", got)
		}
	})
	t.Run("close_notify", func(t *testing.T) {
		s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, head+"all of it")
		})
		if got := s.mustDo(t, get("/"), "").Content; got != "all of it" {
			t.Errorf("content %q", got)
		}
	})
	t.Run("cut", func(t *testing.T) {
		s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
			readHead(r)
			_, _ = io.WriteString(c, head+"part of it")
			c.(*tls.Conn).NetConn().Close()
		})
		if _, err := s.do(t.Context(), get("/"), ""); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
		}
	})
}

// TestContentCutShort ends connections in the middle of content: never a clean end.
func TestContentCutShort(t *testing.T) {
	for _, scheme := range []string{"http", "https"} {
		for name, bytes := range map[string]string{
			"length":        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhi",
			"chunk":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nhi",
			"between":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n",
			"in trailer":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx: y\r\n",
			"chunk size":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2",
			"bad chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhi\r\n0\r\n\r\n",
			"chunk too far": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhixx\r\n0\r\n\r\n",
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				s := newScript(t, scheme, func(c net.Conn, r *bufio.Reader) {
					readHead(r)
					_, _ = io.WriteString(c, bytes)
				})
				_, err := s.do(t.Context(), get("/"), "")
				if !errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
					t.Errorf("error %v, want io.ErrUnexpectedEOF", err)
				}
			})
		}
	}
}

// TestAttack18Responses answers with heads that parsers disagree about.
func TestAttack18Responses(t *testing.T) {
	for name, bytes := range map[string]string{
		"two lengths":          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!",
		"length list":          "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nhi!",
		"negative length":      "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nhi",
		"plus length":          "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
		"hex length":           "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nhi",
		"overflowing length":   "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nhi",
		"length and chunked":   "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"coding before":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"xchunked":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"two codings":          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
		"chunked in 1.0":       "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"bare LF":              "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"bare CR":              "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\n",
		"fold":                 "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
		"NUL":                  "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 0\r\n\r\n",
		"space before colon":   "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
		"no colon":             "HTTP/1.1 200 OK\r\nX\r\n\r\n",
		"no version":           "<html>hi</html>",
		"version":              "HTTP/2.0 200 OK\r\n\r\n",
		"status":               "HTTP/1.1 2000 OK\r\n\r\n",
		"status 0":             "HTTP/1.1 000 OK\r\n\r\n",
		"status 99":            "HTTP/1.1 099 OK\r\n\r\n",
		"switching":            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
		"interim with content": "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello",
		"nothing":              "",
		"cut head":             "HTTP/1.1 200 OK\r\nContent-",
		"h2 preface":           "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
				readHead(r)
				_, _ = io.WriteString(c, bytes)
			})
			_, err := s.do(t.Context(), get("/"), "")
			wantReason(t, err, protocol.ReasonUpstreamProtocol)
		})
	}
}

// TestAttack24Redirect answers with redirects. They come back as they are, nobody goes where they
// point, and the content is sent once.
func TestAttack24Redirect(t *testing.T) {
	other, reached := listen(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		for _, location := range []string{
			"http://" + other.String() + "/", "https://" + other.String() + "/", "//evil.example/", "/same-host", "http://169.254.169.254/latest/",
		} {
			t.Run(fmt.Sprint(status, " ", location), func(t *testing.T) {
				requests := 0
				s := newServer(t, "https", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests++
					_, _ = io.Copy(io.Discard, r.Body)
					w.Header()["Date"] = nil
					w.Header().Set("Location", location)
					w.WriteHeader(status)
					_, _ = io.WriteString(w, "moved")
				}))
				req := get("/")
				req.Method = "POST"
				got := s.mustDo(t, req, "the content", cred("authorization", "Bearer sk-1"))
				want := result{Response: response(status, "location", location, "content-length", "5"), Content: "moved"}
				got.Fields = got.Fields.Del("content-type")
				if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
					t.Errorf("response (-want +got):\n%s", diff)
				}
				if requests != 1 {
					t.Errorf("%d requests, want 1", requests)
				}
				s.wantConns(t, 1)
			})
		}
	}
	select {
	case from := <-reached:
		t.Errorf("redirect was followed: %v reached the other host", from)
	default:
	}
}

// TestAttack29InterimFlood sends interim responses for ever.
func TestAttack29InterimFlood(t *testing.T) {
	s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
		readHead(r)
		for {
			if _, err := io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
				return
			}
		}
	})
	x, err := s.client.Open(t.Context(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	defer x.Release(true)
	if err := errors.Join(x.WriteHead(get("/"), nil, 0), x.CloseWrite(nil)); err != nil {
		t.Fatal(err)
	}
	var resp protocol.Response
	for range protocol.MaxInterim {
		if err := x.ReadResponse(&resp); err != nil {
			t.Fatal(err)
		}
	}
	wantReason(t, x.ReadResponse(&resp), protocol.ReasonUpstreamProtocol)
}

// TestAttack29HugeHead sends heads without end: memory and time are bounded.
func TestAttack29HugeHead(t *testing.T) {
	for name, line := range map[string]string{
		"fields":    "x-a: b\r\n",
		"one value": strings.Repeat("a", 1024),
	} {
		t.Run(name, func(t *testing.T) {
			s := newScript(t, "https", func(c net.Conn, r *bufio.Reader) {
				readHead(r)
				_, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nx: ")
				for err == nil {
					_, err = io.WriteString(c, line)
				}
			})
			_, err := s.do(t.Context(), get("/"), "")
			wantReason(t, err, protocol.ReasonUpstreamProtocol)
		})
	}
}

// TestAttack29SecondResponse sends two responses to one request: in one record, in two, and late. The
// second must never answer the next request.
func TestAttack29SecondResponse(t *testing.T) {
	const first, second = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
	for _, scheme := range []string{"http", "https"} {
		for name, send := range map[string]func(c net.Conn){
			"at once": func(c net.Conn) { _, _ = io.WriteString(c, first+second) },
			"two records, one segment": func(c net.Conn) {
				tc, ok := c.(*tls.Conn)
				if !ok {
					_, _ = io.WriteString(c, first+second)
					return
				}
				corked := tc.NetConn().(*net.TCPConn)
				_ = corked.SetNoDelay(false)
				_, _ = io.WriteString(c, first)
				_, _ = io.WriteString(c, second)
				_ = corked.SetNoDelay(true)
			},
			"late": func(c net.Conn) {
				_, _ = io.WriteString(c, first)
				time.Sleep(20 * time.Millisecond)
				_, _ = io.WriteString(c, second)
			},
		} {
			t.Run(scheme+" "+name, func(t *testing.T) {
				s := newScript(t, scheme, func(c net.Conn, r *bufio.Reader) {
					for readHead(r) != nil {
						send(c)
					}
				})
				for range 3 {
					if got := s.mustDo(t, get("/"), "").Content; got != "good" {
						t.Errorf("content %q", got)
					}
					time.Sleep(50 * time.Millisecond)
				}
				s.wantConns(t, 3)
			})
		}
	}
}
