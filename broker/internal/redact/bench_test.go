package redact

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// secretsOf returns n random tokens of the given length.
func secretsOf(n, length int) ([]Secret, [][]byte) {
	const alphabet = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	rnd := rand.New(rand.NewPCG(1, 2))
	var all []Secret
	var texts [][]byte
	for range n {
		b := make([]byte, length)
		for i := range b {
			b[i] = alphabet[rnd.IntN(len(alphabet))]
		}
		all, texts = append(all, newSecret(string(b))), append(texts, b)
	}
	return all, texts
}

// jsonText is what an API answers, 1 MiB of it.
func jsonText() []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	words := []string{"account", "balance", "currency", "created", "livemode", "metadata", "customer", "description", "https://api.example/v1/items", "text"}
	var b []byte
	for len(b) < 1<<20 {
		id := make([]byte, 12)
		for i := range id {
			id[i] = byte(rnd.Uint32())
		}
		b = fmt.Appendf(b, `{"id":"obj_%s","%s":%d,"%s":"%s \"%s\"\n","ok":true},`, base64.RawURLEncoding.EncodeToString(id),
			words[rnd.IntN(len(words))], rnd.IntN(1e9), words[rnd.IntN(len(words))], words[rnd.IntN(len(words))], words[rnd.IntN(len(words))])
	}
	return b[:1<<20]
}

// BenchmarkScrub masks text in pieces of 64 KiB with all windows of 40 secrets.
func BenchmarkScrub(b *testing.B) {
	random := make([]byte, 1<<20)
	rnd := rand.New(rand.NewPCG(5, 6))
	for i := range random {
		random[i] = byte(rnd.Uint32())
	}
	for _, r := range []struct{ run, length int }{{12, 40}, {8, 16}} {
		secrets, texts := secretsOf(40, r.length)
		m := NewMatcher(secrets)
		var hostile []byte // every gram real, no run long enough
		for i := 0; len(hostile) < 1<<20; i++ {
			t := texts[i%len(texts)]
			from := i % (len(t) - r.run)
			hostile = append(hostile, t[from:from+r.run-1]...)
		}
		escaped := bytes.Repeat([]byte(`\u0041%41&#65;`), 1<<20/14)
		for _, text := range []struct {
			name string
			b    []byte
		}{{"json", jsonText()}, {"random", random}, {"hostile", hostile}, {"escapes", escaped}} {
			b.Run(fmt.Sprintf("R=%d/%s", r.run, text.name), func(b *testing.B) {
				s := m.Scanner()
				onCPU(b, len(text.b), func() {
					for p := text.b; len(p) > 0; {
						n := min(len(p), 64<<10)
						s.Mask(p[:n])
						p = p[n:]
					}
				})
			})
		}
	}
}

// onCPU measures f, which reads size bytes, and reports besides how many it reads in a second of its thread's CPU time:
// that is the same on a machine that others use, too.
func onCPU(b *testing.B, size int, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.SetBytes(int64(size))
	began, n := threadTime(), 0
	for b.Loop() {
		f()
		n++
	}
	b.ReportMetric(float64(n)*float64(size)/float64(threadTime()-began), "GB/cpu-s")
}

// threadTime returns the thread's CPU time in nanoseconds.
func threadTime() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// BenchmarkNewMatcher makes the tables of a session's secrets for one authority.
func BenchmarkNewMatcher(b *testing.B) {
	for _, n := range []int{1, 8, 50} {
		secrets, _ := secretsOf(n, 40)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				NewMatcher(secrets)
			}
		})
	}
}

// BenchmarkCeiling looks for one byte that is not there: as fast as this machine reads text.
func BenchmarkCeiling(b *testing.B) {
	text := make([]byte, 1<<20)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		bytes.IndexByte(text, 1)
	}
}

// BenchmarkEvent masks one server-sent event.
func BenchmarkEvent(b *testing.B) {
	secrets, _ := secretsOf(2, 40)
	s := NewMatcher(secrets).Scanner()
	event := []byte(`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"hello world"}}` + "\n\n")
	b.SetBytes(int64(len(event)))
	for b.Loop() {
		s.Mask(event)
	}
}
