package http1

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// arrivals are ways in which the same bytes may come.
var arrivals = map[string]func(io.Reader) io.Reader{
	"at once":        func(r io.Reader) io.Reader { return r },
	"byte by byte":   iotest.OneByteReader,
	"in halves":      iotest.HalfReader,
	"with their end": iotest.DataErrReader,
}

func TestReadRequest(t *testing.T) {
	tests := []struct {
		name, wire string
		want       RequestHead
		content    string
		trailer    protocol.Fields
	}{{
		name: "origin form",
		wire: "GET /a?b=%2f HTTP/1.1\r\nHost: example.com\r\nX-Mixed:\t two words \t\r\nEmpty:\r\n\r\n",
		want: RequestHead{Method: "GET", Target: "/a?b=%2f", Path: "/a?b=%2f", Host: "example.com", KeepAlive: true,
			Fields: protocol.Fields{{Name: "host", Value: "example.com"}, {Name: "x-mixed", Value: "two words"}, {Name: "empty"}}},
	}, {
		name: "content by length",
		wire: "\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-Continue\r\n\r\nhello",
		want: RequestHead{Method: "POST", Target: "/", Path: "/", Host: "h", KeepAlive: true, ContentLength: 5, ExpectContinue: true,
			Fields: protocol.Fields{{Name: "host", Value: "h"}, {Name: "content-length", Value: "5"}, {Name: "expect", Value: "100-Continue"}}},
		content: "hello",
	}, {
		name: "chunked with trailer",
		wire: "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello \r\n005\r\nworld\r\n0\r\nX-Sum: 1\r\n\r\n",
		want: RequestHead{Method: "POST", Target: "/", Path: "/", Host: "h", KeepAlive: true, ContentLength: -1, Chunked: true,
			Fields: protocol.Fields{{Name: "host", Value: "h"}, {Name: "transfer-encoding", Value: "chunked"}}},
		content: "hello world",
		trailer: protocol.Fields{{Name: "x-sum", Value: "1"}},
	}, {
		name: "absolute form on HTTP/1.0",
		wire: "GET http://example.com?q HTTP/1.0\r\n\r\n",
		want: RequestHead{Method: "GET", Target: "http://example.com?q", Scheme: "http", Authority: "example.com", Path: "/?q"},
	}, {
		name: "asterisk form, upgrade, close",
		wire: "OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: WebSocket\r\n\r\n",
		want: RequestHead{Method: "OPTIONS", Target: "*", Path: "*", Host: "h", Upgrade: "websocket",
			Fields: protocol.Fields{{Name: "host", Value: "h"}, {Name: "connection", Value: "Upgrade, close"}, {Name: "upgrade", Value: "WebSocket"}}},
	}}
	for _, tt := range tests {
		for arrival, arrive := range arrivals {
			t.Run(tt.name+" "+arrival, func(t *testing.T) {
				r := NewReader(arrive(strings.NewReader(tt.wire + tt.wire)))
				for range 2 {
					var got RequestHead
					must(t, r.ReadRequest(&got))
					tt.want.Proto = got.Proto
					diff(t, got, tt.want)
					content, err := io.ReadAll(r)
					must(t, err)
					diff(t, string(content), tt.content)
					diff(t, r.Trailer(), tt.trailer)
				}
				if err := r.ReadRequest(new(RequestHead)); err != io.EOF {
					t.Errorf("after the last request: %v, want io.EOF", err)
				}
			})
		}
	}
}

func TestWriteRequest(t *testing.T) {
	f := protocol.Fields{{Name: "accept", Value: "*/*"}, {Name: "content-length", Value: "99"}}
	tests := []struct {
		name, method string
		length       int64
		content      []string
		want         string
	}{
		{"get", "GET", 0, nil, "GET /p HTTP/1.1\r\nhost: h\r\naccept: */*\r\nauthorization: Bearer k\r\n\r\n"},
		{"empty post", "POST", 0, nil, "POST /p HTTP/1.1\r\nhost: h\r\naccept: */*\r\ncontent-length: 0\r\nauthorization: Bearer k\r\n\r\n"},
		{"length", "POST", 5, []string{"hel", "lo"}, "POST /p HTTP/1.1\r\nhost: h\r\naccept: */*\r\ncontent-length: 5\r\nauthorization: Bearer k\r\n\r\nhello"},
		{"chunked", "POST", Unknown, []string{"hel", "lo"}, "POST /p HTTP/1.1\r\nhost: h\r\naccept: */*\r\ntransfer-encoding: chunked\r\nauthorization: Bearer k\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nt: v\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wire bytes.Buffer
			w := NewWriter(&wire)
			must(t, w.WriteRequest(tt.method, "/p", "h", f, tt.length))
			must(t, w.AppendField("authorization", secret.New([]byte("Bearer k"))))
			for _, c := range tt.content {
				_, err := io.WriteString(w, c)
				must(t, err)
			}
			if wire.Len() > 0 {
				t.Errorf("%d bytes left before Close", wire.Len())
			}
			must(t, w.Close(protocol.Fields{{Name: "t", Value: "v"}}))
			diff(t, wire.String(), tt.want)
			if bytes.Contains(w.buf[:cap(w.buf)], []byte("Bearer")) {
				t.Error("the secret is still in the buffer")
			}
		})
	}
}

func TestWriteLength(t *testing.T) {
	w := NewWriter(io.Discard)
	must(t, w.WriteRequest("POST", "/", "h", nil, 3))
	if _, err := w.Write([]byte("four")); !errors.Is(err, ErrLong) {
		t.Errorf("content too long: %v", err)
	}
	if err := w.Close(nil); !errors.Is(err, ErrShort) {
		t.Errorf("content too short: %v", err)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func diff(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}
