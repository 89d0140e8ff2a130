package decode

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"torno.internal/protocol"
)

// coders write what NewReader reads.
var coders = map[string]struct {
	coding string
	new    func(w io.Writer) io.WriteCloser
}{
	"gzip":         {"gzip", func(w io.Writer) io.WriteCloser { return gzip.NewWriter(w) }},
	"deflate":      {"deflate", func(w io.Writer) io.WriteCloser { return zlib.NewWriter(w) }},
	"bare deflate": {"deflate", func(w io.Writer) io.WriteCloser { f, _ := flate.NewWriter(w, 5); return f }},
	"br":           {"br", func(w io.Writer) io.WriteCloser { return brotli.NewWriter(w) }},
	"zstd":         {"zstd", func(w io.Writer) io.WriteCloser { z, _ := zstd.NewWriter(w); return z }},
}

func coded(name string, content []byte) []byte {
	var b bytes.Buffer
	w := coders[name].new(&b)
	_, _ = w.Write(content)
	_ = w.Close()
	return b.Bytes()
}

func TestReader(t *testing.T) {
	content := []byte(strings.Repeat("what a server says, again and again; ", 5000))
	for name, c := range coders {
		whole := coded(name, content)
		for _, r := range []io.Reader{bytes.NewReader(whole), iotest.OneByteReader(bytes.NewReader(whole))} {
			got, err := io.ReadAll(NewReader(r, c.coding))
			if err != nil || !bytes.Equal(got, content) {
				t.Errorf("%s: %d bytes, %v", name, len(got), err)
			}
		}
		if got, err := io.ReadAll(NewReader(bytes.NewReader(whole[:len(whole)-1]), c.coding)); err == nil {
			t.Errorf("%s, cut: %d bytes and a clean end", name, len(got))
		}
		if _, err := io.ReadAll(NewReader(strings.NewReader("no such coding at all, not in the least"), c.coding)); err == nil {
			t.Errorf("%s: nonsense came to a clean end", name)
		}
		if got, err := io.ReadAll(NewReader(strings.NewReader(""), c.coding)); err != nil || len(got) > 0 {
			t.Errorf("%s, no content: %q, %v", name, got, err)
		}
		wantErr := errors.New("cut")
		if _, err := io.ReadAll(NewReader(io.MultiReader(bytes.NewReader(whole[:len(whole)/2]), iotest.ErrReader(wantErr)), c.coding)); err == nil {
			t.Errorf("%s: an error of the content's reader got lost", name)
		}
	}
}

// TestFlush wants what the sender flushed before it sends more.
func TestFlush(t *testing.T) {
	for name, c := range coders {
		pr, pw := io.Pipe()
		w := c.new(pw)
		go func() {
			for range 3 {
				_, _ = io.WriteString(w, "event")
				_ = w.(interface{ Flush() error }).Flush()
			}
			_ = w.Close()
			_ = pw.Close()
		}()
		d := NewReader(pr, c.coding)
		got := make([]byte, 5)
		for i := range 3 {
			if _, err := io.ReadFull(d, got); err != nil || string(got) != "event" {
				t.Fatalf("%s: event %d: %q, %v", name, i, got, err)
			}
		}
		if rest, err := io.ReadAll(d); err != nil || len(rest) > 0 {
			t.Errorf("%s: %q, %v at the end", name, rest, err)
		}
	}
}

// TestAttack29BytesBehindCoding wants an error for what follows coded content, and none of it as content: whether
// it comes with the end of that or later.
func TestAttack29BytesBehindCoding(t *testing.T) {
	for name, c := range coders {
		b := append(coded(name, []byte("content")), "smuggled"...)
		for _, r := range []io.Reader{bytes.NewReader(b), iotest.OneByteReader(bytes.NewReader(b))} {
			if got, err := io.ReadAll(NewReader(r, c.coding)); err == nil || string(got) != "content" && len(got) > 0 {
				t.Errorf("%s: %q, %v with bytes behind the content", name, got, err)
			}
		}
	}
}

func TestAttack29ZipBomb(t *testing.T) {
	zeros := make([]byte, 64<<20)
	for name, c := range coders {
		b := coded(name, zeros)
		n, err := io.Copy(io.Discard, NewReader(bytes.NewReader(b), c.coding))
		if !errors.Is(err, ErrTooLarge) || n > slack+MaxRatio*int64(len(b))+1<<20 {
			t.Errorf("%s: %d bytes of %d, %v", name, n, len(b), err)
		}
	}
}

func TestCoding(t *testing.T) {
	tests := []struct {
		values []string
		want   string
		ok     bool
	}{
		{nil, "", true}, {[]string{"identity"}, "", true}, {[]string{"GZip"}, "gzip", true}, {[]string{" br ,"}, "br", true},
		{[]string{"gzip, gzip"}, "", false}, {[]string{"gzip", "br"}, "", false}, {[]string{"compress"}, "", false}, {[]string{"aws-chunked"}, "", true},
		{[]string{"aws-chunked,gzip"}, "gzip", true},
	}
	for _, tt := range tests {
		var f protocol.Fields
		for _, v := range tt.values {
			f = append(f, protocol.Field{Name: "content-encoding", Value: v})
		}
		got, err := Coding(f)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("Coding(%q) = %q, %v", tt.values, got, err)
		}
	}
}

// FuzzReader looks for coded content that panics or outgrows the limits.
func FuzzReader(f *testing.F) {
	for name := range coders {
		f.Add(coders[name].coding, coded(name, []byte("content")))
	}
	f.Fuzz(func(t *testing.T, coding string, b []byte) {
		d := NewReader(bytes.NewReader(b), coding)
		defer d.Close()
		if n, _ := io.Copy(io.Discard, d); n > slack+MaxRatio*int64(len(b)) {
			t.Errorf("%d bytes of %d", n, len(b))
		}
	})
}
