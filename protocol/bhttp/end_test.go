package bhttp

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"

	"torno.internal/protocol"
)

// The content's end that arrives by itself, read into a large buffer, leaves the trailer where it is.
func TestEndArrivesAlone(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	go func() {
		defer far.Close()
		w := NewWriter(far)
		_ = w.WriteResponse(&protocol.Response{Status: 200})
		_ = w.Flush()
		_, _ = w.Write([]byte("content"))
		_ = w.Flush()
		_ = w.Close(someTrailer)
	}()
	r := NewReader(near)
	var head protocol.Response
	if err := r.ReadResponse(&head); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 4*bufferSize)
	got := 0
	for {
		n, err := r.Read(p)
		if got += n; err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var trailer protocol.Fields
	if err := r.ReadTrailer(&trailer); err != nil || got != len("content") || trailer.Get("grpc-status") != "0" {
		t.Errorf("%d bytes of content, trailer %v, %v", got, trailer, err)
	}
}

// TestLargeHeadGivenBack reads heads as large as they may be, whose content is still to come. What they took to be read
// is given back, as the exchange may take long and many may take as long.
func TestLargeHeadGivenBack(t *testing.T) {
	fields := protocol.Fields{{Name: "x", Value: strings.Repeat("v", protocol.MaxFieldValue)}}
	var wire bytes.Buffer
	w := NewWriter(&wire)
	if err := w.WriteRequest(&protocol.Request{Method: "POST", Scheme: "https", Authority: "x", Path: "/", Fields: fields}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("beginning")); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	r := NewReader(&wire)
	var req protocol.Request
	if err := r.ReadRequest(&req); err != nil {
		t.Fatal(err)
	}
	if len(r.buf) > bufferSize {
		t.Errorf("a buffer of %d bytes stays", len(r.buf))
	}
	b := make([]byte, 16)
	if n, err := r.Read(b); err != nil || string(b[:n]) != "beginning" || len(req.Fields.Get("x")) != protocol.MaxFieldValue {
		t.Errorf("%q, %v", b[:n], err)
	}
}
