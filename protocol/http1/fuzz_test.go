package http1

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torno.internal/protocol"
)

// A whole is all that one message said.
type whole struct {
	Request  RequestHead
	Response ResponseHead
	Content  []byte
	Trailer  protocol.Fields
}

// FuzzReadRequest checks that a request means the same however its bytes arrive, that net/http, where
// it accepts the request too, reads it the same way, and that it can be written and read again.
func FuzzReadRequest(f *testing.F) {
	for _, wire := range []string{
		post("Content-Length: 5\r\n", "hello"),
		post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
		"GET http://example.com?q HTTP/1.0\r\n\r\n",
		"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n",
	} {
		f.Add([]byte(wire))
	}
	read := func(r *Reader) (*whole, error) {
		m := &whole{}
		err := r.ReadRequest(&m.Request)
		if err == nil && m.Request.Method != "CONNECT" {
			m.Content, err = io.ReadAll(r)
			m.Trailer = r.Trailer()
		}
		return m, err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readTwice(t, b, read)
		if err != nil {
			return
		}
		compareRequest(t, m, b)
		h := &m.Request
		length := h.ContentLength
		var wire bytes.Buffer
		w := NewWriter(&wire)
		host := h.Host
		if host == "" {
			host = h.Authority
		}
		must(t, w.WriteRequest(h.Method, h.Target, host, StripConnection(h.Fields.Clone()), length))
		_, err = w.Write(m.Content)
		must(t, err)
		must(t, w.Close(m.Trailer))
		again, err := read(NewReader(&wire))
		must(t, err)
		again.Request.Fields, m.Request.Fields = StripConnection(again.Request.Fields).Del("content-length"), StripConnection(h.Fields).Del("content-length")
		if d := cmp.Diff(m, again, cmpopts.EquateEmpty(), cmpopts.IgnoreFields(RequestHead{}, "Proto", "Host", "KeepAlive", "Upgrade", "ExpectContinue")); d != "" {
			t.Fatal(d)
		}
	})
}

// compareRequest asks net/http.
func compareRequest(t *testing.T, m *whole, b []byte) {
	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(b, []byte("\r\n")))))
	if err != nil {
		return // it refuses more targets and hosts than we do
	}
	content, err := io.ReadAll(r.Body)
	if m.Request.Method == "CONNECT" {
		return
	}
	if err != nil {
		t.Fatalf("net/http: %v", err)
	}
	if m.Request.Method != r.Method || m.Request.Target != r.RequestURI || !bytes.Equal(m.Content, content) {
		t.Fatalf("net/http reads %s %q with content %q", r.Method, r.RequestURI, content)
	}
	if host := m.Request.Host; host != "" && m.Request.Scheme == "" && host != r.Host {
		t.Fatalf("net/http reads host %q, not %q", r.Host, host)
	}
}

// FuzzReadResponse does the same for responses to GET.
func FuzzReadResponse(f *testing.F) {
	for _, wire := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
		"HTTP/1.0 200 OK\r\n\r\nhello",
		"HTTP/1.1 204\r\n\r\n",
	} {
		f.Add([]byte(wire))
	}
	read := func(r *Reader) (*whole, error) {
		m := &whole{}
		err := r.ReadResponse(&m.Response, "GET")
		if err == nil && !m.Response.Interim() && m.Response.Status != 101 {
			m.Content, err = io.ReadAll(r)
			m.Trailer = r.Trailer()
		}
		return m, err
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readTwice(t, b, read)
		if err != nil {
			return
		}
		h := &m.Response
		if h.Status != 101 {
			compareResponse(t, m, b)
		}
		f := StripConnection(h.Fields.Clone())
		var wire bytes.Buffer
		w := NewWriter(&wire)
		length := h.ContentLength
		if h.Status == 304 {
			length = NoContent
		}
		must(t, w.WriteResponse(h.Status, f, length, h.Chunked, !h.KeepAlive))
		if h.Interim() || h.Status == 101 {
			must(t, w.Flush())
		} else {
			_, err = w.Write(m.Content)
			must(t, err)
			must(t, w.Close(m.Trailer))
		}
		again, err := read(NewReader(&wire))
		must(t, err)
		if d := cmp.Diff(f.Del("content-length"), StripConnection(again.Response.Fields).Del("content-length"), cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		if again.Response.Status != h.Status || !bytes.Equal(again.Content, m.Content) {
			t.Fatalf("status %d and %q became %d and %q", h.Status, m.Content, again.Response.Status, again.Content)
		}
	})
}

func compareResponse(t *testing.T, m *whole, b []byte) {
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: "GET"})
	if err != nil {
		return
	}
	content, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != m.Response.Status || !bytes.Equal(content, m.Content) {
		t.Fatalf("net/http reads status %d with content %q, %v", r.StatusCode, content, err)
	}
}

// readTwice reads b at once and byte by byte, which must come to the same.
func readTwice(t *testing.T, b []byte, read func(*Reader) (*whole, error)) (*whole, error) {
	m, err := read(NewReader(bytes.NewReader(b)))
	slow, slowErr := read(NewReader(iotest.OneByteReader(bytes.NewReader(b))))
	if d := cmp.Diff(m, slow, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("at once and byte by byte differ:\n%s", d)
	}
	if (err == nil) != (slowErr == nil) {
		t.Fatalf("at once %v, byte by byte %v", err, slowErr)
	}
	var e *Error
	if err != nil && !errors.As(err, &e) && err != io.ErrUnexpectedEOF && (err != io.EOF || len(b) > 0) {
		t.Fatalf("error %v after %d bytes", err, len(b))
	}
	return m, err
}
