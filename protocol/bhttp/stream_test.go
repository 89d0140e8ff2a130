package bhttp

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

var someRequest = protocol.Request{
	Method: "POST", Scheme: "https", Authority: "api.example.com:443", Path: "/v1/messages?beta=true",
	Fields: protocol.Fields{{Name: "accept", Value: "*/*"}, {Name: "x-empty", Value: ""}, {Name: "accept", Value: "b"}},
}

var someTrailer = protocol.Fields{{Name: "grpc-status", Value: "0"}}

// arrivals are ways in which the same bytes may come.
var arrivals = map[string]func(io.Reader) io.Reader{
	"at once":         func(r io.Reader) io.Reader { return r },
	"byte by byte":    iotest.OneByteReader,
	"in halves":       iotest.HalfReader,
	"with their end":  iotest.DataErrReader,
	"through a stall": iotest.TimeoutReader,
}

func TestExchange(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 20<<10)
	responses := []protocol.Response{
		{Status: 103, Fields: protocol.Fields{{Name: "link", Value: "</a>"}}},
		{Status: 100},
		{Status: 200, Fields: protocol.Fields{{Name: "content-type", Value: "text/plain"}}},
	}
	var wire bytes.Buffer
	w := NewWriter(&wire)
	for range 2 {
		must(t, w.WriteRequest(&someRequest))
		mustWrite(t, w, "hello ", "", "world")
		must(t, w.Close(someTrailer))
	}
	for i := range responses {
		must(t, w.WriteResponse(&responses[i]))
	}
	mustWrite(t, w, big, "x")
	must(t, w.Close(nil))
	for name, arrive := range arrivals {
		t.Run(name, func(t *testing.T) {
			r := NewReader(&retry{arrive(bytes.NewReader(wire.Bytes()))})
			for range 2 {
				var req protocol.Request
				must(t, r.ReadRequest(&req))
				diff(t, req, someRequest)
				readContent(t, r, "hello world", someTrailer)
			}
			for _, want := range responses {
				var resp protocol.Response
				must(t, r.ReadResponse(&resp))
				if len(resp.Fields) == 0 {
					resp.Fields = nil
				}
				diff(t, resp, want)
			}
			readContent(t, r, big+"x", nil)
			if err := r.ReadRequest(new(protocol.Request)); err != io.EOF {
				t.Errorf("after the last message: %v, want io.EOF", err)
			}
		})
	}
}

// TestCut cuts a message at every byte: nothing but its whole may end cleanly.
func TestCut(t *testing.T) {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	must(t, w.WriteRequest(&someRequest))
	mustWrite(t, w, "hello ", "world")
	must(t, w.Close(someTrailer))
	for n := 1; n < wire.Len(); n++ {
		r := NewReader(bytes.NewReader(wire.Bytes()[:n]))
		if err := readMessage(r); err != io.ErrUnexpectedEOF {
			t.Errorf("cut after %d of %d bytes: %v, want io.ErrUnexpectedEOF", n, wire.Len(), err)
		}
	}
}

func readMessage(r *Reader) error {
	var req protocol.Request
	if err := r.ReadRequest(&req); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, r); err != nil {
		return err
	}
	return r.ReadTrailer(&req.Fields)
}

func readContent(t *testing.T, r *Reader, want string, wantTrailer protocol.Fields) {
	t.Helper()
	got, err := io.ReadAll(r)
	must(t, err)
	if string(got) != want {
		t.Errorf("content of %d bytes differs from the %d expected", len(got), len(want))
	}
	var f protocol.Fields
	must(t, r.ReadTrailer(&f))
	if len(f) > 0 || len(wantTrailer) > 0 {
		diff(t, f, wantTrailer)
	}
}

// A retry swallows the timeouts of its reader, as a caller does that extends a deadline.
type retry struct{ r io.Reader }

func (r *retry) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if errors.Is(err, iotest.ErrTimeout) {
		err = nil
	}
	return n, err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustWrite(t testing.TB, w io.Writer, chunks ...string) {
	t.Helper()
	for _, c := range chunks {
		_, err := io.WriteString(w, c)
		must(t, err)
	}
}

func diff(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got:\n%s", d)
	}
}

// A stream that rests keeps no buffer, and goes on where it was.
func TestRest(t *testing.T) {
	var wire bytes.Buffer
	w, r := NewWriter(&wire), NewReader(&wire)
	want := protocol.Response{Status: 200}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(w.WriteResponse(&want))
	if w.Rest(); len(w.buf) == 0 {
		t.Fatal("what waits to be written was thrown away")
	}
	var got []byte
	for i := range 3 {
		_, err := w.Write([]byte{byte('a' + i)})
		must(err)
		must(w.Flush())
		if w.Rest(); w.buf != nil {
			t.Error("the writer keeps a buffer")
		}
		if i == 0 {
			var resp protocol.Response
			must(r.ReadResponse(&resp))
		}
		b := make([]byte, 1)
		if r.Rest(); r.Buffered() == 0 && r.buf != nil {
			t.Error("the reader keeps a buffer")
		}
		_, err = io.ReadFull(r, b)
		must(err)
		got = append(got, b...)
	}
	must(w.Close(nil))
	rest, err := io.ReadAll(r)
	must(err)
	if string(got)+string(rest) != "abc" {
		t.Errorf("%q arrived, then %q", got, rest)
	}
}
