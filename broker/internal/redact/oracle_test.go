package redact

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"torno.internal/protocol/secret"
)

// A window is one run of the shortest length that counts, as text.
type window struct {
	encoding string
	text     string
}

// windows lists what must not cross, straight from the definition.
func windows(random []byte) []window {
	var all []window
	for _, e := range Encodings() {
		if e.Streams == nil {
			continue
		}
		w := e.Width(Run(len(random)))
		for _, s := range e.Streams(random) {
			for i := 0; i+w <= len(s); i++ {
				all = append(all, window{e.Name, string(s[i : i+w])})
			}
		}
	}
	return all
}

// undoneBy returns text with every escape of e undone, from its beginning, and where each byte came from.
func undoneBy(e *Escape, text []byte) (out []byte, pos []int) {
	for i := 0; i < len(text); {
		pos = append(pos, i)
		c, n := text[i], 1
		if c == e.mark {
			if d, m := e.at(text[i:]); m > 0 {
				c, n = d, m
			}
		}
		out, i = append(out, c), i+n
	}
	return out, append(pos, len(text))
}

// covered returns which bytes of text belong to a window that is complete, however slow that is.
func covered(ws []window, text []byte) []bool {
	in := make([]bool, len(text))
	mark := func(t []byte, at func(i int) int) {
		for _, w := range ws {
			for i := 0; ; i++ {
				j := bytes.Index(t[i:], []byte(w.text))
				if j < 0 {
					break
				}
				i += j
				for k := at(i); k < at(i+len(w.text)); k++ {
					in[k] = true
				}
			}
		}
	}
	mark(text, func(i int) int { return i })
	for _, e := range Encodings() {
		if e.Escape != nil {
			t, pos := undoneBy(e.Escape, text)
			mark(t, func(i int) int { return pos[i] })
		}
	}
	return in
}

// wanted returns what Mask makes of text[at:], the last piece of text.
func wanted(m *Matcher, ws []window, text []byte, at int) []byte {
	in := covered(ws, text)
	last := len(text)
	for last > 0 && !in[last-1] {
		last--
	}
	for _, e := range m.escapes {
		if last > 0 && e.open(text[last:]) {
			for k := max(last, at); k < len(text); k++ {
				in[k] = true // an escape that may go on with the masked run before it
			}
		}
	}
	want := bytes.Clone(text[at:])
	for i := range want {
		if in[at+i] {
			want[i] = m.mask
		}
	}
	return want
}

// newSecret returns a secret for tests.
func newSecret(s string) Secret { return Secret{Value: secret.New([]byte(s))} }

// spell writes b in one of the table's encodings, or with escapes strewn over it.
func spell(t *rapid.T, b []byte) []byte {
	encodings := Encodings()
	e := encodings[rapid.IntRange(0, len(encodings)-1).Draw(t, "encoding")]
	if e.Streams != nil {
		streams := e.Streams(b)
		return streams[rapid.IntRange(0, len(streams)-1).Draw(t, "stream")]
	}
	often := rapid.IntRange(1, 4).Draw(t, "often")
	var out []byte
	for _, c := range b {
		switch {
		case rapid.IntRange(0, often).Draw(t, "plain") == 0 && c != e.Escape.mark:
			out = append(out, c)
		case e.Escape.mark == '%':
			out = fmt.Appendf(out, []string{"%%%02x", "%%%02X"}[rapid.IntRange(0, 1).Draw(t, "case")], c)
		case e.Escape.mark == '\\':
			out = fmt.Appendf(out, []string{`\u%04x`, `\u%04X`}[rapid.IntRange(0, 1).Draw(t, "case")], c)
		default:
			out = fmt.Appendf(out, []string{"&#%d;", "&#x%x;", "&#X%04X;"}[rapid.IntRange(0, 2).Draw(t, "form")], c)
		}
	}
	return out
}

// TestMaskAgainstOracle compares Mask with the definition over random texts, cut at random places: exactly
// what belongs to a complete window is masked, nothing else, and what goes out holds no window.
func TestMaskAgainstOracle(t *testing.T) {
	alphabets := []string{
		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_",
		"0123456789abcdef",
		"aB3/+=&<\"%~ ",
	}
	masked, plain := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		alphabet := rapid.SampledFrom(alphabets).Draw(t, "alphabet")
		var secrets []Secret
		var ws []window
		var texts [][]byte
		for range rapid.IntRange(1, 3).Draw(t, "secrets") {
			n := rapid.SampledFrom([]int{16, 17, 20, 24, 40, 100}).Draw(t, "length")
			b := make([]byte, n)
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
			for i := range b {
				b[i] = alphabet[rnd.IntN(len(alphabet))]
			}
			s := Secret{Value: secret.New(b)}
			s.random(func(_ []byte, weak bool) {
				if !weak {
					secrets, texts = append(secrets, s), append(texts, b)
					ws = append(ws, windows(b)...)
				}
			})
		}
		if len(texts) == 0 {
			t.Skip("only weak secrets")
		}
		var text []byte
		for range rapid.IntRange(1, 8).Draw(t, "pieces") {
			switch rapid.IntRange(0, 3).Draw(t, "piece") {
			case 0:
				text = append(text, rapid.StringMatching(`[a-z{}":, \\%&;\n]{0,40}`).Draw(t, "noise")...)
			case 1:
				text = append(text, bytes.Repeat([]byte{rapid.SampledFrom([]byte("x\\%&A")).Draw(t, "pad")}, rapid.IntRange(0, 700).Draw(t, "times"))...)
			default:
				b := rapid.SampledFrom(texts).Draw(t, "of")
				from := rapid.IntRange(0, len(b)-1).Draw(t, "from")
				to := rapid.IntRange(from, len(b)).Draw(t, "to")
				text = append(text, spell(t, b[from:to])...)
			}
		}
		m := NewMatcher(secrets)
		s := m.Scanner()
		out := bytes.Clone(text)
		for at := 0; at < len(out); {
			n := rapid.SampledFrom([]int{1, 2, 3, 7, 11, 12, 13, 50, 287, 288, 289, 600, 5000}).Draw(t, "chunk")
			n = min(n, len(out)-at)
			s.Mask(out[at : at+n])
			want := wanted(m, ws, text[:at+n], at)
			if !bytes.Equal(out[at:at+n], want) {
				t.Fatalf("chunk [%d, %d)\ntext %q\ngot  %q\nwant %q", at, at+n, text, out[at:at+n], want)
			}
			stars := bytes.Count(want, []byte{m.mask})
			masked, plain = masked+stars, plain+n-stars
			at += n
		}
		for _, leak := range covered(ws, out) {
			if leak {
				t.Fatalf("a window crossed: %q", out)
			}
		}
	})
	if masked == 0 || plain == 0 {
		t.Errorf("%d bytes masked, %d not: the test proves nothing", masked, plain)
	}
	t.Logf("%d bytes masked, %d passed", masked, plain)
}
