package bhttp

import (
	"bytes"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"torno.internal/protocol"
)

// head encodes strings as the profile does, so that tables below can be read.
func head(indicator byte, parts ...string) string {
	b := []byte{indicator}
	for _, p := range parts {
		b = appendString(b, p)
	}
	return string(b)
}

func TestReadRequestRefused(t *testing.T) {
	get := []string{"GET", "https", "h", "/"}
	field := func(parts ...string) string { return head(2, append(get, parts...)...) + "\x00" }
	tests := []struct {
		name, wire string
		want       error
	}{
		{"known-length", "\x00" + head(2, get...)[1:] + "\x00", ErrMalformed},
		{"response", "\x03\x40\xc8\x00", ErrMalformed},
		{"longer indicator", "\x40\x02" + head(2, get...)[1:] + "\x00", ErrMalformed},
		{"padding before", "\x00" + field(), ErrMalformed},
		{"longer length", "\x02\x40\x03GET\x05https\x01h\x01/\x00", ErrMalformed},
		{"longer terminator", head(2, get...) + "\x40\x00", ErrMalformed},
		{"no method", head(2, "", "https", "h", "/") + "\x00", ErrMalformed},
		{"method with space", head(2, "GET ", "https", "h", "/") + "\x00", ErrMalformed},
		{"long method", head(2, strings.Repeat("M", 33)), ErrTooLarge},
		{"no scheme", head(2, "GET", "", "h", "/") + "\x00", ErrMalformed},
		{"upper-case scheme", head(2, "GET", "HTTPS", "h", "/") + "\x00", ErrMalformed},
		{"unknown scheme", head(2, "GET", "ws", "h", "/") + "\x00", ErrMalformed},
		{"long scheme", head(2, "GET", "httpss"), ErrTooLarge},
		{"no authority", head(2, "GET", "https", "", "/") + "\x00", ErrMalformed},
		{"user information", head(2, "GET", "https", "u@h", "/") + "\x00", ErrMalformed},
		{"path in authority", head(2, "GET", "https", "h/a", "/") + "\x00", ErrMalformed},
		{"long authority", head(2, "GET", "https", strings.Repeat("h", 263)), ErrTooLarge},
		{"no path", head(2, "GET", "https", "h", "") + "\x00", ErrMalformed},
		{"relative path", head(2, "GET", "https", "h", "a") + "\x00", ErrMalformed},
		{"asterisk", head(2, "GET", "https", "h", "*") + "\x00", ErrMalformed},
		{"space in path", head(2, "GET", "https", "h", "/a b") + "\x00", ErrMalformed},
		{"CR LF in path", head(2, "GET", "https", "h", "/\r\nx: y") + "\x00", ErrMalformed},
		{"NUL in path", head(2, "GET", "https", "h", "/\x00") + "\x00", ErrMalformed},
		{"fragment", head(2, "GET", "https", "h", "/#f") + "\x00", ErrMalformed},
		{"long path", head(2, "GET", "https", "h", "/"+strings.Repeat("p", protocol.MaxPath)), ErrTooLarge},
		{"CONNECT with path", head(2, "CONNECT", "", "h:1", "/") + "\x00", ErrMalformed},
		{"CONNECT with scheme", head(2, "CONNECT", "https", "h:1", "") + "\x00", ErrMalformed},
		{"extended CONNECT without path", head(2, "CONNECT", "https", "h", "", ":protocol", "websocket") + "\x00", ErrMalformed},
		{"empty :protocol", head(2, "CONNECT", "https", "h", "/", ":protocol", "") + "\x00", ErrMalformed},
		{":protocol of GET", field(":protocol", "websocket"), ErrMalformed},
		{":protocol twice", head(2, "CONNECT", "https", "h", "/", ":protocol", "a", ":protocol", "a") + "\x00", ErrMalformed},
		{":protocol after a field", head(2, "CONNECT", "https", "h", "/", "a", "b", ":protocol", "a") + "\x00", ErrMalformed},
		{"pseudo-field", field(":path", "/b"), ErrMalformed},
		{"upper-case name", field("Accept", "b"), ErrMalformed},
		{"space in name", field("accept ", "b"), ErrMalformed},
		{"host", field("host", "h"), ErrMalformed},
		{"connection", field("connection", "x"), ErrMalformed},
		{"transfer-encoding", field("transfer-encoding", "chunked"), ErrMalformed},
		{"CR LF in value", field("a", "b\r\nc: d"), ErrMalformed},
		{"NUL in value", field("a", "b\x00"), ErrMalformed},
		{"space around value", field("a", " b"), ErrMalformed},
		{"long name", field(strings.Repeat("n", 257), "b"), ErrTooLarge},
		{"long value", field("a", strings.Repeat("v", protocol.MaxFieldValue+1)), ErrTooLarge},
		{"many fields", field(strings.Split(strings.Repeat("a,b,", 257), ",")[:514]...), ErrTooLarge},
		{"long head", field("a", strings.Repeat("v", 60<<10), "a", strings.Repeat("v", 60<<10), "a", strings.Repeat("v", 9<<10)), ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for name, arrive := range arrivals {
				if name == "through a stall" {
					continue
				}
				r := NewReader(arrive(strings.NewReader(tt.wire)))
				var req protocol.Request
				if err := r.ReadRequest(&req); !errors.Is(err, tt.want) {
					t.Errorf("%s: %v, want %v", name, err, tt.want)
				}
				diff(t, req, protocol.Request{Fields: req.Fields[:0]})
				if err := r.ReadRequest(&req); !errors.Is(err, tt.want) {
					t.Errorf("%s, tried again: %v, want %v", name, err, tt.want)
				}
			}
		})
	}
	accepted := []string{
		field(), field("a", ""), head(2, "OPTIONS", "https", "h", "*") + "\x00", head(2, "CONNECT", "", "h:1", "") + "\x00",
		head(2, "CONNECT", "https", "h", "/", ":protocol", "websocket") + "\x00", head(2, "GET", "torno", "broker", "/v1/leaf") + "\x00",
		field(strings.Split(strings.Repeat("a,b,", 256), ",")[:512]...),
	}
	for _, wire := range accepted {
		if err := NewReader(strings.NewReader(wire)).ReadRequest(new(protocol.Request)); err != nil {
			t.Errorf("%.64q: %v", wire, err)
		}
	}
}

func TestReadResponseRefused(t *testing.T) {
	tests := []struct {
		name, wire string
		want       error
	}{
		{"known-length", "\x01\x40\xc8\x00\x00\x00", ErrMalformed},
		{"request", head(2, "GET", "https", "h", "/") + "\x00", ErrMalformed},
		{"status 99", "\x03\x40\x63\x00", ErrMalformed},
		{"status 600", "\x03\x42\x58\x00", ErrMalformed},
		{"status 101", "\x03\x40\x65\x00", ErrMalformed},
		{"giant status", "\x03\xff\xff\xff\xff\xff\xff\xff\xff\x00", ErrMalformed},
		{"longer status", "\x03\x80\x00\x00\xc8\x00", ErrMalformed},
		{"indicator between heads", "\x03\x40\x67\x00\x03\x40\xc8\x00", ErrMalformed},
		{"interim flood", "\x03" + strings.Repeat("\x40\x67\x00", protocol.MaxInterim+1), ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := NewReader(strings.NewReader(tt.wire))
			var resp protocol.Response
			err := r.ReadResponse(&resp)
			for err == nil && resp.Interim() {
				err = r.ReadResponse(&resp)
			}
			if !errors.Is(err, tt.want) || resp.Status != 0 {
				t.Errorf("%+v, %v; want %v", resp, err, tt.want)
			}
		})
	}
}

func TestReadContentRefused(t *testing.T) {
	start := head(2, "GET", "https", "h", "/") + "\x00"
	tests := []struct {
		name, wire, content string
		want                error
	}{
		{"longer chunk length", "\x02ab\x40\x01c\x00\x00", "ab", ErrMalformed},
		{"longer terminator", "\x02ab\x40\x00\x00", "ab", ErrMalformed},
		{"chunk cut", "\x02ab\x05c", "abc", io.ErrUnexpectedEOF},
		{"giant chunk cut", "\x02ab\xff\xff\xff\xff\xff\xff\xff\xffc", "abc", io.ErrUnexpectedEOF},
		{"no terminator", "\x02ab", "ab", io.ErrUnexpectedEOF},
		{"no trailer section", "\x02ab\x00", "ab", io.ErrUnexpectedEOF},
		{"connection field in trailer", "\x00" + head(0, "connection", "a")[1:] + "\x00", "", ErrMalformed},
	}
	for _, tt := range tests {
		for _, size := range []int{1, 7, bufferSize} {
			r := NewReader(iotest.DataErrReader(strings.NewReader(start + tt.wire)))
			must(t, r.ReadRequest(new(protocol.Request)))
			var got []byte
			var err error
			for p, n := make([]byte, size), 0; err == nil; got = append(got, p[:n]...) {
				n, err = r.Read(p)
			}
			if tt.name == "connection field in trailer" || tt.name == "no trailer section" {
				if err != io.EOF {
					t.Errorf("%s: content ends with %v", tt.name, err)
				}
				err = r.ReadTrailer(new(protocol.Fields))
			}
			if string(got) != tt.content || !errors.Is(err, tt.want) {
				t.Errorf("%s, %d bytes at a time: %q, %v; want %q, %v", tt.name, size, got, err, tt.content, tt.want)
			}
		}
	}
}

// TestWriteRefused checks that a Writer refuses what a Reader would, and writes nothing of it.
func TestWriteRefused(t *testing.T) {
	tests := []struct {
		name  string
		spoil func(*protocol.Request)
	}{
		{"method", func(r *protocol.Request) { r.Method = "GE T" }},
		{"scheme", func(r *protocol.Request) { r.Scheme = "ftp" }},
		{"authority", func(r *protocol.Request) { r.Authority = "" }},
		{"path", func(r *protocol.Request) { r.Path = "/\n" }},
		{"protocol", func(r *protocol.Request) { r.Protocol = "websocket" }},
		{"name", func(r *protocol.Request) { r.Fields[1].Name = "Accept" }},
		{"host", func(r *protocol.Request) { r.Fields[1].Name = "host" }},
		{"value", func(r *protocol.Request) { r.Fields[1].Value = "a\r\nb" }},
		{"many fields", func(r *protocol.Request) {
			for range protocol.MaxFields {
				r.Fields = append(r.Fields, protocol.Field{Name: "a"})
			}
		}},
		{"long head", func(r *protocol.Request) {
			for range 3 {
				r.Fields = append(r.Fields, protocol.Field{Name: "a", Value: strings.Repeat("v", 50<<10)})
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var wire, want bytes.Buffer
			w := NewWriter(&wire)
			spoiled := someRequest
			spoiled.Fields = someRequest.Fields.Clone()
			tt.spoil(&spoiled)
			if err := w.WriteRequest(&spoiled); !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("error %v", err)
			}
			must(t, w.WriteRequest(&someRequest))
			if err := w.Close(protocol.Fields{{Name: "host", Value: "h"}}); !errors.Is(err, ErrMalformed) {
				t.Errorf("trailer: %v", err)
			}
			must(t, w.Close(nil))
			w = NewWriter(&want)
			must(t, w.WriteRequest(&someRequest))
			must(t, w.Close(nil))
			diff(t, wire.String(), want.String())
		})
	}
}

func TestOrder(t *testing.T) {
	w := NewWriter(io.Discard)
	if _, err := w.Write([]byte("a")); err == nil {
		t.Error("content before a head was written")
	}
	if err := w.Close(nil); err == nil {
		t.Error("a message ended before it began")
	}
	r := NewReader(strings.NewReader(head(2, "GET", "https", "h", "/") + "\x00\x01a\x00\x00"))
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("content before a head: %v", err)
	}
	must(t, r.ReadRequest(new(protocol.Request)))
	if err := r.ReadTrailer(new(protocol.Fields)); err == nil {
		t.Error("a trailer was read before the content")
	}
	if err := r.ReadRequest(new(protocol.Request)); err == nil {
		t.Error("a head was read before the content")
	}
	readContent(t, r, "a", nil)
}

// TestMemoryFollowsArrival announces large things and sends none of them.
func TestMemoryFollowsArrival(t *testing.T) {
	start := head(2, "GET", "https", "h", "/")
	for _, wire := range []string{
		start + "\x01a" + string(appendVarint(nil, protocol.MaxFieldValue)),
		start + "\x00" + string(appendVarint(nil, maxVarint)),
		"\x02" + string(appendVarint(nil, maxVarint)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := readMessage(NewReader(strings.NewReader(wire))); err == nil {
			t.Errorf("%q was read", wire)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%q: %d bytes allocated", wire, n)
		}
	}
}
