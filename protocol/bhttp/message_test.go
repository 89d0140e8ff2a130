package bhttp

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torno.internal/protocol"
)

// vectors are the examples of RFC 9292 §5 as messages; their bytes are in testdata.
var vectors = map[string]*Message{
	"rfc9292-5.1-known-length-request":         {Request: vectorRequest, Known: true},
	"rfc9292-5.1-indeterminate-length-request": {Request: vectorRequest, Padding: 10},
	"rfc9292-5.2-indeterminate-length-response": {
		Interim: []protocol.Response{
			{Status: 102, Fields: protocol.Fields{{Name: "running", Value: `"sleep 15"`}}},
			{Status: 103, Fields: protocol.Fields{
				{Name: "link", Value: "</style.css>; rel=preload; as=style"},
				{Name: "link", Value: "</script.js>; rel=preload; as=script"},
			}},
		},
		Response: &protocol.Response{Status: 200, Fields: protocol.Fields{
			{Name: "date", Value: "Mon, 27 Jul 2009 12:28:53 GMT"},
			{Name: "server", Value: "Apache"},
			{Name: "last-modified", Value: "Wed, 22 Jul 2009 19:15:56 GMT"},
			{Name: "etag", Value: `"34aa387-d-1568eb00"`},
			{Name: "accept-ranges", Value: "bytes"},
			{Name: "content-length", Value: "51"},
			{Name: "vary", Value: "Accept-Encoding"},
			{Name: "content-type", Value: "text/plain"},
		}},
		Content: []byte("Hello World! My content includes a trailing CRLF.\r\n"),
	},
	"rfc9292-5.2-known-length-response": {
		Response: &protocol.Response{Status: 200},
		Content:  []byte("This content contains CRLF.\r\n"),
		Trailer:  protocol.Fields{{Name: "trailer", Value: "text"}},
		Known:    true,
	},
}

var vectorRequest = &protocol.Request{
	Method: "GET", Scheme: "https", Path: "/hello.txt",
	Fields: protocol.Fields{
		{Name: "user-agent", Value: "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3"},
		{Name: "host", Value: "www.example.com"},
		{Name: "accept-language", Value: "en, mi"},
	},
}

func TestMessageVectors(t *testing.T) {
	for name, want := range vectors {
		t.Run(name, func(t *testing.T) {
			wire := readVector(t, name)
			got, err := DecodeMessage(wire)
			must(t, err)
			diff(t, got, want)
			b, err := want.AppendTo(nil)
			must(t, err)
			diff(t, b, wire)
		})
	}
}

// TestMessageTruncated leaves out, as RFC 9292 §3.8 allows, every empty section at the end.
func TestMessageTruncated(t *testing.T) {
	wire := readVector(t, "rfc9292-5.1-known-length-request")
	for _, cut := range []int{1, 2} {
		m, err := DecodeMessage(wire[:len(wire)-cut])
		must(t, err)
		diff(t, m, vectors["rfc9292-5.1-known-length-request"])
	}
	control := len("\x00\x03GET\x05https\x00\x0a/hello.txt")
	for n := range len(wire) - 2 {
		if n == control { // the header section may be empty, too
			continue
		}
		if m, err := DecodeMessage(wire[:n]); !errors.Is(err, ErrMalformed) || m != nil {
			t.Errorf("cut to %d bytes: %v, %v", n, m, err)
		}
	}
}

func TestMessageMalformed(t *testing.T) {
	get := "\x03GET\x05https\x01h\x01/"
	tests := []struct {
		name, wire string
		want       error
	}{
		{"empty", "", ErrMalformed},
		{"indicator", "\x04", ErrMalformed},
		{"length beyond the end", "\x00\x04GET", ErrMalformed},
		{"giant length", "\x00\xff\xff\xff\xff\xff\xff\xff\xff", ErrMalformed},
		{"empty name", "\x00" + get + "\x02\x00\x00", ErrMalformed},
		{"upper-case name", "\x00" + get + "\x03\x01A\x00", ErrMalformed},
		{"pseudo-field", "\x00" + get + "\x07\x05:path\x00", ErrMalformed},
		{"protocol after a field", "\x02" + get + "\x01a\x00\x09:protocol\x01p\x00", ErrMalformed},
		{"protocol of GET", "\x02" + get + "\x09:protocol\x01p\x00", ErrMalformed},
		{"protocol in a trailer", "\x02" + get + "\x00\x00\x09:protocol\x01p\x00", ErrMalformed},
		{"CR in a value", "\x02" + get + "\x01a\x01\r\x00", ErrMalformed},
		{"section without end", "\x02" + get + "\x01a\x01b", ErrMalformed},
		{"content without end", "\x02" + get + "\x00\x01a", ErrMalformed},
		{"padding", "\x02" + get + "\x00\x00\x00\x01", ErrMalformed},
		{"no final response", "\x03\x40\x67\x00", ErrMalformed},
		{"status 600", "\x03\x42\x58\x00", ErrMalformed},
		{"long method", "\x02\x21" + strings.Repeat("M", 33), ErrTooLarge},
		{"interim flood", "\x03" + strings.Repeat("\x40\x67\x00", protocol.MaxInterim+1), ErrTooLarge},
		{"field flood", "\x02" + get + strings.Repeat("\x01a\x00", protocol.MaxFields+1) + "\x00", ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if m, err := DecodeMessage([]byte(tt.wire)); !errors.Is(err, tt.want) || m != nil {
				t.Errorf("%v, %v; want %v", m, err, tt.want)
			}
		})
	}
	if _, err := DecodeMessage([]byte("\x00" + get)); err != nil {
		t.Errorf("the message that the others break: %v", err)
	}
}

func FuzzMessage(f *testing.F) {
	for name := range vectors {
		f.Add(readVector(f, name))
	}
	f.Add([]byte("\x02\x07CONNECT\x05https\x01h\x01/\x09:protocol\x09websocket\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMessage(b)
		if err != nil {
			if m != nil || !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%v with error %v", m, err)
			}
			return
		}
		once, err := m.AppendTo(nil)
		if err != nil {
			t.Fatalf("encoding what was decoded: %v", err)
		}
		again, err := DecodeMessage(once)
		if err != nil {
			t.Fatalf("decoding what was encoded: %v", err)
		}
		if d := cmp.Diff(m, again, cmpopts.EquateEmpty()); d != "" {
			t.Fatal(d)
		}
		if twice, err := again.AppendTo(nil); err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("encoded %x, then %x, %v", once, twice, err)
		}
	})
}

func readVector(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name+".hex"))
	must(t, err)
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	must(t, err)
	return b
}
