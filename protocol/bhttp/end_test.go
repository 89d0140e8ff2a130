package bhttp

import (
	"io"
	"net"
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
