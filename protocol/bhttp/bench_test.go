package bhttp

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"torno.internal/protocol"
)

// usualRequest is like what an SDK sends.
var usualRequest = protocol.Request{
	Method: "POST", Scheme: "https", Authority: "api.example.com:443", Path: "/v1/messages",
	Fields: protocol.Fields{
		{Name: "accept", Value: "application/json"},
		{Name: "accept-encoding", Value: "gzip, deflate"},
		{Name: "user-agent", Value: "Example/Python 0.71.0"},
		{Name: "content-type", Value: "application/json"},
		{Name: "x-client-lang", Value: "python"},
		{Name: "x-client-os", Value: "Linux"},
		{Name: "x-client-runtime-version", Value: "3.11.2"},
		{Name: "content-length", Value: "200"},
	},
}

var usualContent = bytes.Repeat([]byte("c"), 200)

// An endless repeats b for ever.
type endless struct {
	b   []byte
	pos int
}

func (e *endless) Read(p []byte) (int, error) {
	n := copy(p, e.b[e.pos:])
	e.pos = (e.pos + n) % len(e.b)
	return n, nil
}

func encoded(t testing.TB, chunks ...[]byte) []byte {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	must(t, w.WriteRequest(&usualRequest))
	for _, c := range chunks {
		_, err := w.Write(c)
		must(t, err)
	}
	must(t, w.Close(nil))
	return wire.Bytes()
}

// TestAllocs holds reading a message to one allocation, and content and writing to none.
func TestAllocs(t *testing.T) {
	r := NewReader(&endless{b: encoded(t, usualContent, usualContent)})
	var req protocol.Request
	var f protocol.Fields
	p := make([]byte, 16<<10)
	if n := testing.AllocsPerRun(100, func() {
		must(t, r.ReadRequest(&req))
		for {
			if _, err := r.Read(p); err == io.EOF {
				break
			}
		}
		must(t, r.ReadTrailer(&f))
	}); n > 1 {
		t.Errorf("reading a message takes %v allocations, want 1", n)
	}

	chunk := append(appendVarint(nil, 64<<10), make([]byte, 64<<10)...)
	r = NewReader(io.MultiReader(bytes.NewReader([]byte(head(2, "GET", "https", "h", "/")+"\x00")), &endless{b: chunk}))
	must(t, r.ReadRequest(&req))
	for _, size := range []int{512, 64 << 10} {
		p := make([]byte, size)
		if n := testing.AllocsPerRun(100, func() { _, _ = r.Read(p) }); n > 0 {
			t.Errorf("reading %d bytes of content takes %v allocations", size, n)
		}
	}

	w := NewWriter(struct{ io.Writer }{io.Discard})
	big := make([]byte, 100<<10)
	if n := testing.AllocsPerRun(100, func() {
		must(t, w.WriteRequest(&usualRequest))
		_, _ = w.Write(usualContent)
		must(t, w.Close(nil))
	}); n > 0 {
		t.Errorf("writing a message takes %v allocations", n)
	}
	for _, dst := range []io.Writer{struct{ io.Writer }{io.Discard}, &gatherWriter{}} {
		w := NewWriter(dst)
		must(t, w.WriteRequest(&usualRequest))
		if n := testing.AllocsPerRun(100, func() { _, _ = w.Write(big) }); n > 0 {
			t.Errorf("writing content takes %v allocations", n)
		}
	}
}

func TestOneWrite(t *testing.T) {
	for _, size := range []int{200, 16 << 10, 64 << 10} {
		count := &countWriter{}
		w := NewWriter(count)
		must(t, w.WriteRequest(&usualRequest))
		_, _ = w.Write(make([]byte, size))
		must(t, w.Flush())
		if count.n != 1 {
			t.Errorf("a head and %d bytes left in %d writes", size, count.n)
		}
		must(t, w.Close(nil))
		if size < directSize && count.n != 2 {
			t.Errorf("an end left in %d writes", count.n-1)
		}
	}
	count := &gatherWriter{}
	w := NewWriter(count)
	must(t, w.WriteRequest(&usualRequest))
	_, err := w.Write(make([]byte, 100<<10))
	must(t, err)
	must(t, w.Close(nil))
	if count.n != 3 || count.gathered < 100<<10 {
		t.Errorf("two chunks and their end left in %d writes, %d bytes uncopied", count.n, count.gathered)
	}
}

type gatherWriter struct {
	countWriter
	gathered int64
}

func (g *gatherWriter) WriteBuffers(b *net.Buffers) (int64, error) {
	g.n++
	var n int64
	for _, p := range *b {
		n += int64(len(p))
	}
	*b = nil
	g.gathered += n
	return n, nil
}

type countWriter struct{ n int }

func (c *countWriter) Write(p []byte) (int, error) { c.n++; return len(p), nil }

func BenchmarkReadRequest(b *testing.B) {
	wire := encoded(b, usualContent)
	r := NewReader(&endless{b: wire})
	var req protocol.Request
	var f protocol.Fields
	p := make([]byte, 4<<10)
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		must(b, r.ReadRequest(&req))
		for {
			if _, err := r.Read(p); err == io.EOF {
				break
			}
		}
		must(b, r.ReadTrailer(&f))
	}
}

func BenchmarkWriteRequest(b *testing.B) {
	w := NewWriter(io.Discard)
	b.ReportAllocs()
	for b.Loop() {
		must(b, w.WriteRequest(&usualRequest))
		_, _ = w.Write(usualContent)
		must(b, w.Close(nil))
	}
}

// BenchmarkContent moves content over a Unix socket, in chunks of several sizes.
func BenchmarkContent(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			from, to := socketPair(b)
			done := make(chan error, 1)
			go func() {
				r := NewReader(to)
				err := r.ReadRequest(new(protocol.Request))
				for p := make([]byte, 64<<10); err == nil; {
					_, err = r.Read(p)
				}
				done <- err
			}()
			w := NewWriter(from)
			must(b, w.WriteRequest(&usualRequest))
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				_, err := w.Write(p)
				must(b, err)
			}
			must(b, w.Close(nil))
			if err := <-done; err != io.EOF {
				b.Fatal(err)
			}
		})
	}
}

func socketPair(b *testing.B) (from, to net.Conn) {
	dir, err := os.MkdirTemp("", "")
	must(b, err)
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	must(b, err)
	from, err = net.Dial("unix", l.Addr().String())
	must(b, err)
	to, err = l.Accept()
	must(b, err)
	b.Cleanup(func() {
		_ = from.Close()
		_ = to.Close()
		_ = l.Close()
		_ = os.RemoveAll(dir)
	})
	return from, to
}
