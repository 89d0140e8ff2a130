package http1

import (
	"errors"
	"io"
	"strings"
	"testing"

	"torno.internal/protocol"
)

func TestReadResponse(t *testing.T) {
	tests := []struct {
		name, method, wire string
		status             int
		content, rest      string
		keepAlive          bool
	}{
		{"length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloNEXT", 200, "hello", "NEXT", true},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\nNEXT", 200, "hello", "NEXT", true},
		{"to the end", "GET", "HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", "", false},
		{"HTTP/1.0", "GET", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", "", false},
		{"close", "GET", "HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", "", false},
		{"no phrase", "GET", "HTTP/1.1 404\r\nContent-Length: 0\r\n\r\n", 404, "", "", true},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nNEXT", 200, "", "NEXT", true},
		{"HEAD chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nNEXT", 200, "", "NEXT", true},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\nNEXT", 204, "", "NEXT", true},
		{"204 that announces content", "GET", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", 204, "", "hello", false},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nNEXT", 304, "", "NEXT", true},
	}
	for _, tt := range tests {
		for arrival, arrive := range arrivals {
			t.Run(tt.name+" "+arrival, func(t *testing.T) {
				r := NewReader(arrive(strings.NewReader("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" + tt.wire)))
				var h ResponseHead
				for _, status := range []int{100, 103, tt.status} {
					must(t, r.ReadResponse(&h, tt.method))
					diff(t, h.Status, status)
				}
				diff(t, h.KeepAlive, tt.keepAlive)
				content, err := io.ReadAll(r)
				must(t, err)
				diff(t, string(content), tt.content)
				rest, _ := io.ReadAll(r.src)
				diff(t, string(r.TakeBuffered())+string(rest), tt.rest)
			})
		}
	}
}

func TestReadResponseTunnel(t *testing.T) {
	for _, tt := range []struct{ method, wire string }{
		{"CONNECT", "HTTP/1.1 200 OK\r\n\r\nbytes"},
		{"CONNECT", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nbytes"},
		{"GET", "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nbytes"},
	} {
		r := NewReader(strings.NewReader(tt.wire))
		var h ResponseHead
		must(t, r.ReadResponse(&h, tt.method))
		if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF || h.Interim() || r.Done() {
			t.Errorf("%q is not a tunnel: %v", tt.wire, err)
		}
		diff(t, string(r.TakeBuffered()), "bytes")
	}
}

// TestAttackSmugglingResponse is the way back: what an upstream might send to put its own bytes before
// another response.
func TestAttackSmugglingResponse(t *testing.T) {
	ok := func(fields, content string) string { return "HTTP/1.1 200 OK\r\n" + fields + "\r\n" + content }
	tests := []struct {
		name, wire string
		accepted   bool
	}{
		{"control", ok("Content-Length: 5\r\n", "hello"), true},
		{"length twice", ok("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), false},
		{"length list", ok("Content-Length: 5, 5\r\n", "hello"), false},
		{"length and coding", ok("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), false},
		{"coding twice", ok("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"), false},
		{"unknown coding", ok("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"), false},
		{"coding on HTTP/1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false},
		{"chunk extension", ok("Transfer-Encoding: chunked\r\n", "5;a\r\nhello\r\n0\r\n\r\n"), false},
		{"line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", false},
		{"folded", ok("A: b\r\n c\r\nContent-Length: 5\r\n", "hello"), false},
		{"empty line before", "\r\n" + ok("Content-Length: 5\r\n", "hello"), false},
		{"version", "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", false},
		{"ICY", "ICY 200 OK\r\n\r\nhello", false},
		{"status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"status 99", "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"status 600", "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"sign", "HTTP/1.1 +20 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"two spaces", "HTTP/1.1  200 OK\r\nContent-Length: 0\r\n\r\n", false},
		{"NUL in phrase", "HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n", false},
		{"interim flood", strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", protocol.MaxInterim+1) + ok("Content-Length: 0\r\n", ""), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for arrival, arrive := range arrivals {
				r := NewReader(arrive(strings.NewReader(tt.wire)))
				var h ResponseHead
				err := r.ReadResponse(&h, "GET")
				for err == nil && h.Interim() {
					err = r.ReadResponse(&h, "GET")
				}
				if err == nil {
					_, err = io.Copy(io.Discard, r)
				}
				if tt.accepted {
					must(t, err)
					continue
				}
				var e *Error
				if !errors.As(err, &e) || e.Reason != protocol.ReasonUpstreamProtocol || e.Status != 502 {
					t.Errorf("%s: %v, want %v", arrival, err, protocol.ReasonUpstreamProtocol)
				}
			}
		})
	}
}

// TestErrorsQuoteNothing sends a credential in every wrong place: what is logged must not hold it.
func TestErrorsQuoteNothing(t *testing.T) {
	const key = "sk-live-0123"
	for _, wire := range []string{
		key + " 200 OK\r\n\r\n", "HTTP/1.1 " + key + "\r\n\r\n", "HTTP/1.1 200 OK\r\n" + key + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\n " + key + ": x\r\n\r\n", "HTTP/1.1 200 OK\r\na: " + key + "\x00\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: " + key + "\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + key + "\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + key + "\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + key + "\r\n\r\n",
	} {
		r := NewReader(strings.NewReader(wire))
		err := r.ReadResponse(new(ResponseHead), "GET")
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err == nil || strings.Contains(err.Error(), "sk-") {
			t.Errorf("%q: %v", wire, err)
		}
	}
}

// TestCut cuts messages at every byte: nothing but their whole may end cleanly.
func TestCut(t *testing.T) {
	for _, wire := range []string{
		"\r\n" + post("Content-Length: 5\r\n", "hello"),
		post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
	} {
		for n := 1; n < len(wire); n++ {
			r := NewReader(strings.NewReader(wire[:n]))
			err := r.ReadRequest(new(RequestHead))
			if err == nil {
				_, err = io.Copy(io.Discard, r)
			}
			if err != io.ErrUnexpectedEOF {
				t.Errorf("cut to %q: %v, want io.ErrUnexpectedEOF", wire[:n], err)
			}
		}
	}
	wire := "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	for n := 1; n < len(wire); n++ {
		r := NewReader(strings.NewReader(wire[:n]))
		var h ResponseHead
		err := r.ReadResponse(&h, "GET")
		for err == nil && h.Interim() {
			err = r.ReadResponse(&h, "GET")
		}
		if err == nil {
			_, err = io.Copy(io.Discard, r)
		}
		if err != io.ErrUnexpectedEOF {
			t.Errorf("cut to %q: %v, want io.ErrUnexpectedEOF", wire[:n], err)
		}
	}
}
