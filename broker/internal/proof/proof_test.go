package proof

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/broker/internal/redact"
	"torno.internal/protocol/secret"
)

const page = redact.PageSize

var control = []byte("MIIBczCCARmgAwIBAgIUQ2F0Y2hNZUlmWW91Q2FuMTIzNDU2Nzg5MA")

// newMemory returns a memfd of n pages.
func newMemory(t testing.TB, n int) *os.File {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "memory")
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(int64(n) * page); err != nil {
		t.Fatal(err)
	}
	return f
}

func put(t testing.TB, f *os.File, b []byte, at int) {
	t.Helper()
	if _, err := f.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}

// random returns n characters that a key may consist of.
func random(r *rand.Rand, n int) []byte {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return b
}

func matcher(values ...[]byte) *redact.Matcher {
	var secrets []redact.Secret
	for _, v := range values {
		secrets = append(secrets, redact.Secret{Value: secret.New(bytes.Clone(v))})
	}
	return redact.NewMatcher(secrets)
}

func totals(t testing.TB, f *os.File, m *redact.Matcher) Result {
	t.Helper()
	got, err := Search(context.Background(), f, m, control)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// Every run of R bytes in every encoding is found wherever it lies, across chunks too; one byte less is not.
func TestFindsEveryRun(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	value := random(r, 40)
	m := matcher(value)
	run := redact.Run(len(value))
	spell := map[string]func([]byte) []byte{
		"raw":     func(b []byte) []byte { return b },
		"base64":  func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) },
		"hex":     func(b []byte) []byte { return []byte(hex.EncodeToString(b)) },
		"percent": func(b []byte) []byte { return []byte(fmt.Sprintf("%%%02X%s", b[0], b[1:])) },
		"json":    func(b []byte) []byte { return []byte(fmt.Sprintf(`\u%04x%s`, b[0], b[1:])) },
		"utf-16": func(b []byte) []byte {
			var s []byte
			for _, c := range b {
				s = append(s, c, 0)
			}
			return s
		},
	}
	for name, f := range spell {
		for range 40 {
			mem := newMemory(t, 600)
			put(t, mem, control, 5*page+77)
			from := r.IntN(len(value) - run)
			at := r.IntN(500*page) + page
			if r.IntN(2) == 0 {
				at = 256*page - r.IntN(30) // across the border of what is read at a time
			}
			put(t, mem, bytes.Repeat([]byte("noise "), 40), at/page*page)
			put(t, mem, f(value[from:from+run]), at)
			if got := totals(t, mem, m); got.Hits == 0 || got.Control == 0 {
				t.Errorf("%s, %d bytes at %#x: %+v", name, run, at, got)
			}
			put(t, mem, bytes.Repeat([]byte{'x'}, 200), at)
			put(t, mem, value[from:from+run-1], at+page/2)
			if got := totals(t, mem, m); got.Hits != 0 && name == "raw" {
				t.Errorf("%d bytes at %#x are no run: %+v", run-1, at, got)
			}
		}
	}
}

// A run that the border of a page cuts is found for every cut, in whatever order its two pages lie.
func TestFindsStraddlingRuns(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	value := random(r, 40)
	m := matcher(value)
	run := redact.Run(len(value))
	for cut := 1; cut < run; cut++ {
		for _, order := range [][2]int{{3, 90}, {90, 3}, {7, 7 + 256}} {
			mem := newMemory(t, 300)
			put(t, mem, control, 50*page)
			from := r.IntN(len(value) - run)
			piece := value[from : from+run]
			put(t, mem, bytes.Repeat([]byte("end "), 20), order[0]*page+page-100)
			put(t, mem, piece[:cut], order[0]*page+page-cut)
			put(t, mem, append(bytes.Clone(piece[cut:]), "~~~"...), order[1]*page)
			if got := totals(t, mem, m); got.Hits == 0 {
				t.Errorf("cut after %d of %d bytes, pages %v: not found", cut, run, order)
			}
			put(t, mem, []byte("#"), order[1]*page) // the other half is gone
			put(t, mem, []byte("#"), order[0]*page+page-1)
			if got := totals(t, mem, m); got.Hits != 0 {
				t.Errorf("cut after %d of %d bytes, broken: still %d hits", cut, run, got.Hits)
			}
		}
	}
}

// A run with escapes is found as well where the border of a page cuts it, but for one that cuts the escape itself.
func TestFindsStraddlingEscapes(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	value := random(r, 40)
	m := matcher(value)
	run := redact.Run(len(value))
	for name, spell := range map[string]func(c byte) string{
		"percent":         func(c byte) string { return fmt.Sprintf("%%%02X", c) },
		"json":            func(c byte) string { return fmt.Sprintf(`\u%04x`, c) },
		"html":            func(c byte) string { return fmt.Sprintf("&#%d;", c) },
		"html, hex, long": func(c byte) string { return fmt.Sprintf("&#x%06x;", c) },
		"percent, at times": func(c byte) string {
			if c%2 == 0 {
				return fmt.Sprintf("%%%02x", c)
			}
			return string(c)
		},
	} {
		for cut := 1; cut < run; cut++ {
			mem := newMemory(t, 300)
			put(t, mem, control, 50*page)
			from := r.IntN(len(value) - run)
			var first, second string
			for i, c := range value[from : from+run] {
				if i < cut {
					first += spell(c)
				} else {
					second += spell(c)
				}
			}
			put(t, mem, bytes.Repeat([]byte("end "), 100), 90*page+page-400)
			put(t, mem, []byte(first), 90*page+page-len(first))
			put(t, mem, []byte(second+"~~~"), 3*page)
			if got := totals(t, mem, m); got.Hits == 0 {
				t.Errorf("%s, cut after %d of %d bytes: not found", name, cut, run)
			}
			put(t, mem, []byte("####"), 3*page)
			put(t, mem, []byte("####"), 90*page+page-4)
			if got := totals(t, mem, m); got.Hits != 0 {
				t.Errorf("%s, cut after %d of %d bytes, broken: still %d hits", name, cut, run, got.Hits)
			}
		}
	}
}

// Memory without the secret gives nothing, however much of it there is.
func TestFindsNothing(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	var values [][]byte
	for range 50 {
		values = append(values, random(r, 40))
	}
	mem := newMemory(t, 16<<10)
	fill(t, mem, 0, 4<<10, "random")
	fill(t, mem, 4<<10, 4<<10, "text")
	got := totals(t, mem, matcher(values...))
	want := Result{Size: 64 << 20, Present: 32 << 20}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCheck(t *testing.T) {
	regular, err := os.CreateTemp(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer regular.Close()
	put(t, regular, []byte("memory"), 0)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	null, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for name, f := range map[string]*os.File{"regular": regular, "pipe": r, "device": null, "directory": dir, "empty": newMemory(t, 0)} {
		if _, err := Check(f); err == nil {
			t.Errorf("%s: taken for memory", name)
		}
	}
	if _, err := Check(newMemory(t, 1)); err != nil {
		t.Error(err)
	}
	huge := newMemory(t, 1<<28) // all of it a hole: searched at once
	if got := totals(t, huge, matcher(control)); got.Present != 0 {
		t.Errorf("a hole has %d bytes", got.Present)
	}
}

// fill fills pages with what memory may hold.
func fill(t testing.TB, f *os.File, first, n int, kind string) {
	r := rand.New(rand.NewPCG(uint64(n), 8))
	b := make([]byte, page)
	for i := range n {
		for j := 0; j < page; {
			switch kind {
			case "random":
				b[j] = byte(r.Uint32())
				j++
			case "text":
				j += copy(b[j:], fmt.Sprintf(`{"id":"%08x","role":"user","n":%d}`+"\n", r.Uint32(), j))
			case "pointers": // as a heap of Go's
				j += copy(b[j:], []byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 0, 0xc0, 0, 0, 0})
			}
		}
		put(t, f, b, (first+i)*page)
	}
}

// cpu returns the processor time of this process in seconds: what others do on the machine is not in it.
func cpu(b *testing.B) float64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// BenchmarkSearch searches memory, all of it present, for all runs of 50 secrets.
func BenchmarkSearch(b *testing.B) {
	r := rand.New(rand.NewPCG(5, 6))
	var values [][]byte
	for range 50 {
		values = append(values, random(r, 40))
	}
	m := matcher(values...)
	const pages = 64 << 10
	for _, kind := range []string{"zero", "pointers", "text", "random"} {
		b.Run(kind, func(b *testing.B) {
			mem := newMemory(b, pages)
			if kind == "zero" {
				if err := unix.Fallocate(int(mem.Fd()), 0, 0, pages*page); err != nil {
					b.Fatal(err)
				}
			} else {
				fill(b, mem, 0, pages, kind)
			}
			b.SetBytes(pages * page)
			began := cpu(b)
			for b.Loop() {
				totals(b, mem, m)
			}
			b.ReportMetric((cpu(b)-began)/float64(b.N)*float64(1<<30)/(pages*page), "cpu-s/GiB")
		})
	}
}
