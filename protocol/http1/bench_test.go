package http1

import (
	"io"
	"runtime"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// An endless repeats s for ever.
type endless struct {
	s   string
	pos int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.s[e.pos:])
	e.pos = (e.pos + n) % len(e.s)
	return n, nil
}

// usualRequest is like what an SDK sends.
var usualRequest = "POST /v1/messages HTTP/1.1\r\nHost: api.example.com\r\nAccept: application/json\r\n" +
	"Accept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\nUser-Agent: Example/Python 0.71.0\r\n" +
	"Content-Type: application/json\r\nX-Client-Lang: python\r\nX-Client-OS: Linux\r\n" +
	"X-Client-Runtime-Version: 3.11.2\r\nContent-Length: 200\r\n\r\n" + strings.Repeat("c", 200)

func readAll(t testing.TB, r *Reader, p []byte) {
	for {
		_, err := r.Read(p)
		if err == io.EOF {
			return
		}
		must(t, err)
	}
}

// TestAllocs holds reading a head to one allocation, and content and writing to none.
func TestAllocs(t *testing.T) {
	p := make([]byte, 64<<10)
	r := NewReader(&endless{s: usualRequest})
	var h RequestHead
	if n := testing.AllocsPerRun(100, func() {
		must(t, r.ReadRequest(&h))
		h.Fields = StripConnection(h.Fields)
		readAll(t, r, p[:4<<10])
	}); n > 1 {
		t.Errorf("reading a request takes %v allocations, want 1", n)
	}

	chunk := &endless{s: "4000\r\n" + strings.Repeat("c", 16<<10) + "\r\n"}
	r = NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), chunk))
	must(t, r.ReadResponse(new(ResponseHead), "GET"))
	for _, size := range []int{512, 64 << 10} {
		if n := testing.AllocsPerRun(100, func() { _, _ = r.Read(p[:size]) }); n > 0 {
			t.Errorf("reading %d bytes of chunked content takes %v allocations", size, n)
		}
	}

	w := NewWriter(struct{ io.Writer }{io.Discard})
	key := secret.New([]byte("Bearer k"))
	f := protocol.Fields{{Name: "accept", Value: "*/*"}, {Name: "content-type", Value: "application/json"}}
	if n := testing.AllocsPerRun(100, func() {
		must(t, w.WriteRequest("POST", "/v1/messages", "api.example.com", f, Unknown))
		must(t, w.AppendField("authorization", key))
		_, _ = w.Write(p[:200])
		_, _ = w.Write(p)
		must(t, w.Close(nil))
	}); n > 1 {
		t.Errorf("writing a request takes %v allocations", n)
	}
}

// TestMemoryFollowsArrival announces large things and sends none of them.
func TestMemoryFollowsArrival(t *testing.T) {
	for _, wire := range []string{
		post("Content-Length: 999999999999999999\r\n", "x"),
		post("Transfer-Encoding: chunked\r\n", "fffffffffffffff\r\nx"),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		r := NewReader(strings.NewReader(wire))
		must(t, r.ReadRequest(new(RequestHead)))
		if _, err := io.Copy(io.Discard, r); err != io.ErrUnexpectedEOF {
			t.Errorf("%q: %v", wire, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<10 {
			t.Errorf("%q: %d bytes allocated", wire, n)
		}
	}
}

func BenchmarkReadRequest(b *testing.B) {
	r := NewReader(&endless{s: usualRequest})
	var h RequestHead
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(usualRequest)))
	b.ReportAllocs()
	for b.Loop() {
		must(b, r.ReadRequest(&h))
		readAll(b, r, p)
	}
}

func BenchmarkReadChunks(b *testing.B) {
	chunk := &endless{s: "4000\r\n" + strings.Repeat("c", 16<<10) + "\r\n"}
	r := NewReader(io.MultiReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), chunk))
	must(b, r.ReadResponse(new(ResponseHead), "GET"))
	p := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		n, err := r.Read(p)
		must(b, err)
		b.SetBytes(int64(n))
	}
}

func BenchmarkWriteRequest(b *testing.B) {
	w := NewWriter(io.Discard)
	key := secret.New([]byte("Bearer k"))
	f := protocol.Fields{{Name: "accept", Value: "*/*"}, {Name: "content-type", Value: "application/json"}}
	p := make([]byte, 200)
	b.ReportAllocs()
	for b.Loop() {
		must(b, w.WriteRequest("POST", "/v1/messages", "api.example.com", f, 200))
		must(b, w.AppendField("authorization", key))
		_, _ = w.Write(p)
		must(b, w.Close(nil))
	}
}
