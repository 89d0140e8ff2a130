package http1

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

func TestWriteResponse(t *testing.T) {
	f := protocol.Fields{{Name: "a", Value: "b"}, {Name: "content-length", Value: "5"}}
	tests := []struct {
		name           string
		status         int
		length         int64
		chunked, close bool
		content, want  string
	}{
		{"length", 200, 2, false, false, "hi", "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 2\r\n\r\nhi"},
		{"chunked", 200, Unknown, true, false, "hi", "HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"},
		{"to the end", 200, Unknown, false, false, "hi", "HTTP/1.1 200 OK\r\na: b\r\nconnection: close\r\n\r\nhi"},
		{"HEAD", 200, NoContent, false, true, "", "HTTP/1.1 200 OK\r\na: b\r\ncontent-length: 5\r\nconnection: close\r\n\r\n"},
		{"204", 204, 0, false, false, "", "HTTP/1.1 204 No Content\r\na: b\r\n\r\n"},
		{"unknown code", 299, 0, false, false, "", "HTTP/1.1 299 \r\na: b\r\ncontent-length: 0\r\n\r\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wire bytes.Buffer
			w := NewWriter(&wire)
			must(t, w.WriteResponse(103, f, 0, false, false))
			must(t, w.WriteResponse(tt.status, f, tt.length, tt.chunked, tt.close))
			_, err := io.WriteString(w, tt.content)
			must(t, err)
			must(t, w.Close(nil))
			diff(t, wire.String(), "HTTP/1.1 103 Early Hints\r\na: b\r\n\r\n"+tt.want)
		})
	}
	var wire bytes.Buffer
	w := NewWriter(&wire)
	must(t, w.WriteResponse(101, protocol.Fields{{Name: "upgrade", Value: "websocket"}}, NoContent, false, false))
	must(t, w.Flush())
	diff(t, wire.String(), "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
}

// TestAttackInjection checks that nothing from outside ends a line early: CR, LF and NUL are refused in
// every part of a head, and nothing of it is sent.
func TestAttackInjection(t *testing.T) {
	one := func(name, value string) protocol.Fields { return protocol.Fields{{Name: name, Value: value}} }
	tests := []struct {
		name                 string
		method, target, host string
		fields               protocol.Fields
		accepted             bool
	}{
		{"control", "GET", "/", "h", one("a", "b"), true},
		{"method", "GET / HTTP/1.1\r\nX:", "/", "h", nil, false},
		{"target", "GET", "/ HTTP/1.1\r\nX: y", "h", nil, false},
		{"target with space", "GET", "/a b", "h", nil, false},
		{"relative target", "GET", "a", "h", nil, false},
		{"no target", "GET", "", "h", nil, false},
		{"host", "GET", "/", "h\r\nX: y", nil, false},
		{"no host", "GET", "/", "", nil, false},
		{"name", "GET", "/", "h", one("a: b\r\nc", "d"), false},
		{"upper-case name", "GET", "/", "h", one("A", "b"), false},
		{"empty name", "GET", "/", "h", one("", "b"), false},
		{"value with CR LF", "GET", "/", "h", one("a", "b\r\nc: d"), false},
		{"value with LF", "GET", "/", "h", one("a", "b\nc: d"), false},
		{"value with NUL", "GET", "/", "h", one("a", "b\x00"), false},
		{"second host", "GET", "/", "h", one("host", "i"), false},
		{"connection", "GET", "/", "h", one("connection", "close"), false},
		{"coding", "GET", "/", "h", one("transfer-encoding", "chunked"), false},
		{"upgrade of two", "GET", "/", "h", one("upgrade", "a, b"), false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wire bytes.Buffer
			w := NewWriter(&wire)
			err := w.WriteRequest(tt.method, tt.target, tt.host, tt.fields, 0)
			if (err == nil) != tt.accepted {
				t.Errorf("error %v", err)
			}
			if !tt.accepted && w.Buffered() > 0 {
				t.Errorf("%q is in the buffer", w.buf)
			}
		})
	}
	w := NewWriter(io.Discard)
	must(t, w.WriteRequest("GET", "/", "h", nil, Unknown))
	before := w.Buffered()
	for _, value := range []string{"Bearer k\r\nX: y", "k\n", "k\x00", " k"} {
		if err := w.AppendField("authorization", secret.New([]byte(value))); err == nil || strings.Contains(err.Error(), "k") && !strings.Contains(err.Error(), "value of field") {
			t.Errorf("secret %q: %v", value, err)
		}
	}
	for _, name := range []string{"Authorization", "a b", "host", "content-length", ""} {
		if err := w.AppendField(name, secret.New([]byte("k"))); err == nil {
			t.Errorf("a secret as field %q", name)
		}
	}
	if w.Buffered() != before {
		t.Error("refused fields are in the buffer")
	}
	if err := w.Close(protocol.Fields{{Name: "a", Value: "b\r\n"}}); err == nil {
		t.Error("CR LF in a trailer")
	}
}

// TestSecretIsWiped follows every buffer that the Writer held while a secret was in it.
func TestSecretIsWiped(t *testing.T) {
	key := []byte("sk-0123456789abcdef")
	var buffers [][]byte
	w := NewWriter(io.Discard)
	see := func() { buffers = append(buffers, w.buf[:cap(w.buf)]) }
	must(t, w.WriteRequest("POST", "/", "h", nil, Unknown))
	must(t, w.AppendField("x-api-key", secret.New(bytes.Clone(key))))
	if !bytes.Contains(w.buf, key) {
		t.Fatal("the secret is not in the buffer to begin with")
	}
	for range 40 {
		see()
		_, err := w.Write(make([]byte, 500))
		must(t, err)
	}
	must(t, w.Close(nil))
	must(t, w.WriteRequest("POST", "/", "h", nil, Unknown))
	must(t, w.AppendField("x-api-key", secret.New(bytes.Clone(key))))
	see()
	w.Discard()
	for i, b := range buffers {
		if bytes.Contains(b, key) {
			t.Errorf("buffer %d of %d bytes holds the secret", i, len(b))
		}
	}
	if _, err := w.Write(nil); err == nil {
		t.Error("a discarded message goes on")
	}
}

type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestWriteBroken(t *testing.T) {
	w := NewWriter(brokenWriter{})
	must(t, w.WriteRequest("POST", "/", "h", nil, Unknown))
	if _, err := w.Write(make([]byte, 100<<10)); !errors.Is(err, errBroken) {
		t.Errorf("Write: %v", err)
	}
	if err := w.Close(nil); !errors.Is(err, errBroken) {
		t.Errorf("Close: %v", err)
	}
	if err := w.WriteRequest("GET", "/", "h", nil, 0); !errors.Is(err, errBroken) {
		t.Errorf("WriteRequest: %v", err)
	}
}
