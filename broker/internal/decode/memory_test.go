package decode

import (
	"bytes"
	"io"
	"runtime"
	"testing"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"
)

// heap returns how many bytes are in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestMemory decodes content whose windows are as large as they may be. What a Reader needs stays below MaxMemory.
func TestMemory(t *testing.T) {
	const readers = 4
	text := make([]byte, 2*MaxMemory)
	var z, b bytes.Buffer
	zw, err := zstd.NewWriter(&z, zstd.WithWindowSize(maxWindow))
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []io.WriteCloser{zw, brotli.NewWriterOptions(&b, brotli.WriterOptions{Quality: 2, LGWin: 24})} {
		if _, err := w.Write(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for coding, coded := range map[string][]byte{"zstd": z.Bytes(), "br": b.Bytes()} {
		before := heap()
		var all [readers]*Reader
		for i := range all {
			all[i] = NewReader(bytes.NewReader(coded), coding)
			if n, err := io.ReadFull(all[i], text[:slack]); err != nil {
				t.Fatalf("%s: %d bytes, %v", coding, n, err)
			}
		}
		each := (heap() - before) / readers
		t.Logf("%s: %d KiB each", coding, each>>10)
		if each > MaxMemory || each < maxWindow { // less would mean that windows were small
			t.Errorf("%s: %d bytes each, at most %d", coding, each, MaxMemory)
		}
		for i := range all {
			_ = all[i].Close()
		}
	}
}
