package broker

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// Marks are counted wherever they stand, also where one's end begins the next, and however the text is cut.
func TestCountMarks(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const mark = control.PlaceholderMark
	total := 0
	for range 20000 {
		var b []byte
		for range random.IntN(12) {
			switch random.IntN(3) {
			case 0:
				b = append(b, mark...)
			case 1:
				b = append(b, mark[:random.IntN(len(mark))]...)
			default:
				b = append(b, strings.Repeat("x", random.IntN(9))...)
			}
		}
		want := 0
		for i := range b {
			if bytes.HasPrefix(b[i:], []byte(mark)) {
				want++
			}
		}
		total += want
		if got := countMarks(b); got != want {
			t.Fatalf("%q: %d, want %d", b, got, want)
		}
		n := 0
		m := &markCounter{count: &n}
		for rest := b; len(rest) > 0; {
			k := 1 + random.IntN(len(rest))
			m.take(rest[:k])
			rest = rest[k:]
		}
		if n != want {
			t.Fatalf("%q in pieces: %d, want %d", b, n, want)
		}
	}
	if total < 10000 {
		t.Errorf("only %d marks", total)
	}
}

// BenchmarkMarks is what an upload pays for being looked through.
func BenchmarkMarks(b *testing.B) {
	for name, text := range map[string]string{"text": "some text of a file that goes up. ", "hostile": "tornoIner", "zeros": "\x00\x00\x00\x00"} {
		b.Run(name, func(b *testing.B) {
			all := []byte(strings.Repeat(text, 64<<10/len(text)))
			b.SetBytes(int64(len(all)))
			for b.Loop() {
				countMarks(all)
			}
		})
	}
}
