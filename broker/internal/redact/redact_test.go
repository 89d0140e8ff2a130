package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"

	"torno.internal/protocol"
)

const token = "q7Lw/Zk+2VbX9sT4rYpE8uHdC1mNfJ0aGg3K"

// spellings are what servers really write.
func spellings(v string) map[string]string {
	all := map[string]string{
		"raw":             v,
		"hex":             hex.EncodeToString([]byte(v)),
		"hex upper":       strings.ToUpper(hex.EncodeToString([]byte(v))),
		"query":           url.QueryEscape(v),
		"path":            url.PathEscape(v),
		"percent all":     every(v, "%%%02X"),
		"percent lower":   every(v, "%%%02x"),
		"json slash":      strings.ReplaceAll(v, "/", `\/`),
		"json all":        every(v, `\u%04x`),
		"json plus":       strings.ReplaceAll(v, "+", `\u002B`),
		"html":            html.EscapeString(v),
		"html named":      strings.NewReplacer("/", "&sol;", "+", "&plus;").Replace(v),
		"html decimal":    every(v, "&#%d;"),
		"html hex":        every(v, "&#x%X;"),
		"utf-16le":        every(v, "%c\x00"),
		"utf-16be":        every(v, "\x00%c"),
		"truncated":       v[:12],
		"truncated front": v[len(v)-12:],
		"basic":           base64.StdEncoding.EncodeToString([]byte("user:" + v)),
	}
	for before := range 3 {
		padded := "xy"[:before%3] + v + "zz"
		if before == 2 {
			padded = "xy" + v
		}
		all[fmt.Sprintf("base64 +%d", before)] = base64.StdEncoding.EncodeToString([]byte(padded))
		all[fmt.Sprintf("base64url +%d", before)] = base64.RawURLEncoding.EncodeToString([]byte(padded))
	}
	return all
}

func every(v, format string) string {
	var b strings.Builder
	for i := range len(v) {
		fmt.Fprintf(&b, format, v[i])
	}
	return b.String()
}

// TestSpellings splits every spelling at every byte, and in single bytes.
func TestSpellings(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(token)})
	for name, text := range spellings(token) {
		whole := []byte(`{"echo":"` + text + `","more":1}`)
		for split := range len(whole) + 1 {
			out := bytes.Clone(whole)
			s := m.Scanner()
			runs := s.Mask(out[:split]) + s.Mask(out[split:])
			if runs == 0 {
				t.Fatalf("%s: split at %d: nothing masked in %q", name, split, whole)
			}
			for _, in := range covered(windows([]byte(token)), out) {
				if in {
					t.Fatalf("%s: split at %d: %q", name, split, out)
				}
			}
		}
		out := bytes.Clone(whole)
		s, runs := m.Scanner(), 0
		for i := range out {
			runs += s.Mask(out[i : i+1])
		}
		if runs != 1 {
			t.Errorf("%s: %d runs byte by byte, want 1: %q", name, runs, out)
		}
	}
}

// TestWrappedBase64 puts whole values into base64 that is broken into lines, as in mail, in PEM and in the JSON of some
// APIs. A run that a line break cuts is not recognised as one, but the lines are: what is left of the value beside
// masks is no run, even with the lines put together again.
func TestWrappedBase64(t *testing.T) {
	const shortestLine = 16 // characters
	found := 0
	for _, n := range []int{16, 17, 20, 23, 24, 40, 64} {
		v := (token + strings.ToLower(token))[:n]
		m, ws := NewMatcher([]Secret{newSecret(v)}), windows([]byte(v))
		for _, line := range []int{shortestLine, 20, 60, 64, 76} {
			for before := range line {
				text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("?", before) + v + strings.Repeat("!", 20)))
				if !slices.Contains(covered(ws, []byte(text)), true) {
					t.Fatalf("%d bytes behind %d: not in %q", n, before, text)
				}
				for _, end := range []string{"\n", "\r\n", `\n`, `\r\n`} {
					out := wrap(text, line, end)
					found += m.Scanner().Mask(out)
					if left := bytes.ReplaceAll(out, []byte(end), nil); slices.Contains(covered(ws, left), true) {
						t.Fatalf("%d bytes behind %d in lines of %d: %q", n, before, line, out)
					}
				}
			}
		}
	}
	if found == 0 {
		t.Error("nothing was masked")
	}
	v := token[:24] // in lines that are too short, to see that what is left would be noticed
	m, out := NewMatcher([]Secret{newSecret(v)}), wrap(base64.StdEncoding.EncodeToString([]byte(v)), shortestLine/2, "\n")
	m.Scanner().Mask(out)
	if !slices.Contains(covered(windows([]byte(v)), bytes.ReplaceAll(out, []byte("\n"), nil)), true) {
		t.Errorf("no run is left in lines of %d: %q", shortestLine/2, out)
	}
}

// wrap breaks text into lines.
func wrap(text string, line int, end string) (out []byte) {
	for len(text) > 0 {
		n := min(line, len(text))
		out, text = append(append(out, text[:n]...), end...), text[n:]
	}
	return out
}

// TestMask looks at what a person sees.
func TestMask(t *testing.T) {
	m := NewMatcher([]Secret{{newSecret("sk-live-" + token).Value, []string{"sk-live-"}}})
	got := []byte("Bearer sk-live-" + token + ", Bearer " + token[:11] + ".")
	if n := m.Scanner().Mask(got); n != 1 {
		t.Errorf("%d runs, want 1", n)
	}
	want := "Bearer sk-live-" + strings.Repeat("*", len(token)) + ", Bearer " + token[:11] + "."
	if string(got) != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestMaskCharacterIsNoPartOfASecret(t *testing.T) {
	v := "****************abcdefghijkl#####"
	m := NewMatcher([]Secret{newSecret(v)})
	out := []byte(v)
	if m.Scanner().Mask(out); bytes.Contains(out, []byte("************")) {
		t.Errorf("masked with what the secret is made of: %q", out)
	}
}

func TestWeakSecrets(t *testing.T) {
	m := NewMatcher([]Secret{newSecret("abc123")})
	tests := []struct{ in, want string }{
		{`{"key":"abc123"}`, `{"key":"******"}`},
		{`{"key":"abc1234"}`, `{"key":"abc1234"}`},
		{`abc123`, `abc123`},
	}
	for _, tt := range tests {
		got := []byte(tt.in)
		if m.Scanner().Mask(got); string(got) != tt.want {
			t.Errorf("Mask(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	f, n := m.Fields(protocol.Fields{{Name: "x-echo", Value: "abc123"}, {Name: "authorization", Value: "Bearer abc123"}, {Name: "x-other", Value: "abc123, abc123"}})
	if n != 2 || f[0].Value != "******" || f[1].Value != "Bearer ******" || f[2].Value != "abc123, abc123" {
		t.Errorf("Fields: %d runs, %v", n, f)
	}
}

func TestFields(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(strings.ToLower(token))})
	v := strings.ToLower(token)
	f, n := m.Fields(protocol.Fields{
		{Name: "location", Value: "https://host.example/?t=" + url.QueryEscape(v)},
		{Name: "x-" + hex.EncodeToString([]byte(v)), Value: "1"},
		{Name: "content-type", Value: "application/json"},
	})
	if n != 2 || len(f) != 2 || strings.Contains(f[0].Value, v[5:17]) || !strings.HasPrefix(f[0].Value, "https://host.example/?t=") {
		t.Errorf("%d runs, %v", n, f)
	}
	if f[1].Value != "application/json" {
		t.Errorf("touched what holds no secret: %v", f[1])
	}
}

// TestEveryLength holds the table of R, and that a run one byte shorter passes.
func TestEveryLength(t *testing.T) {
	for n := 16; n <= 64; n++ {
		v := (token + strings.ToLower(token) + token)[:n]
		m := NewMatcher([]Secret{newSecret(v)})
		r := Run(n)
		for from := 0; from+r <= n; from++ {
			out := []byte("=" + v[from:from+r] + "=")
			if m.Scanner().Mask(out); !bytes.Equal(out, []byte("="+strings.Repeat(string(m.mask), r)+"=")) {
				t.Fatalf("%d bytes, run at %d: %q", n, from, out)
			}
			out = []byte("=" + v[from:from+r-1] + "=")
			if m.Scanner().Mask(out); bytes.IndexByte(out, m.mask) >= 0 {
				t.Fatalf("%d bytes, short run at %d masked: %q", n, from, out)
			}
		}
	}
}

// TestWidths wants every encoding to keep what a Scanner leans on: no run that counts is longer than what it remembers,
// and R bytes of a value determine at least as much of a stream as it says, wherever they stand.
func TestWidths(t *testing.T) {
	for _, e := range Encodings() {
		for r := minRun; e.Streams != nil && r <= maxRun; r++ {
			if w := e.Width(r); w < minRun || w*longestEntity > history {
				t.Errorf("%s: %d bytes of a run of %d", e.Name, w, r)
			}
			for _, s := range e.Streams([]byte(token[:r])) {
				if len(s) < e.Width(r) {
					t.Errorf("%s: %d bytes for a run of %d, want %d", e.Name, len(s), r, e.Width(r))
				}
			}
		}
	}
}

// TestEscapesInBinary hides runs with escapes, as short and as long as they can be spelled, in content that is no text,
// at every place around the borders of its blocks.
func TestEscapesInBinary(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(token)})
	noise := make([]byte, 3*blockSize)
	rnd := rand.New(rand.NewPCG(7, 8))
	for i := range noise {
		noise[i] = 0x80 + byte(rnd.IntN(0x80))
		if i%5 == 0 {
			noise[i] = `%\&`[rnd.IntN(3)] // marks alone make no text
		}
	}
	if from, to, _ := m.stretch(noise, 0); from != to {
		t.Fatalf("[%d, %d) of the noise is taken for text", from, to)
	}
	runs := []string{strings.Replace(token[:12], "/", `\/`, 1), every(token[:12], "&#x00000%x;"), every(token[:12], "%%%02x")}
	for _, run := range runs {
		for at := range 2*blockSize + 100 {
			if at > 100 && at%blockSize > 100 && at%blockSize < blockSize-200 {
				continue
			}
			out := append(append(append([]byte(nil), noise[:at]...), run...), noise[at:]...)
			if n := m.Scanner().Mask(out); n != 1 || !bytes.Equal(out[at:at+len(run)], bytes.Repeat([]byte{m.mask}, len(run))) {
				t.Fatalf("%q at %d: %d runs, %q", run, at, n, out[at:at+len(run)])
			}
		}
	}
}

// TestMaskAllocates nothing for what servers send all day.
func TestMaskAllocates(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(token)})
	s := m.Scanner()
	event := []byte(`data: {"delta":{"text":"a \"quoted\" word \u002B one/two %20"}}` + "\n\n")
	if n := testing.AllocsPerRun(100, func() { s.Mask(event) }); n != 0 {
		t.Errorf("%v allocations for each event", n)
	}
	if n := testing.AllocsPerRun(100, func() { m.Text("text/event-stream; charset=utf-8") }); n != 0 {
		t.Errorf("%v allocations for each field", n)
	}
}

// TestEscapesAmongOthers hides a run behind escapes of no interest, far apart and close, at every place where the
// way of looking for them may change.
func TestEscapesAmongOthers(t *testing.T) {
	m := NewMatcher([]Secret{newSecret(token)})
	plain := token[12:22] // with what is escaped a run, without too short
	noises := map[string][]string{
		fmt.Sprintf(`\u%04x\u%04x`, token[10], token[11]): {`\"`, `\"ab\n`, `\\`, `\u4e2d`, `\t            \r                 `, `no escape`},
		fmt.Sprintf("%%%02X%%%02x", token[10], token[11]): {"%20", "%", "%E4%BA%BA", "a%20b", "50%;                        "},
		fmt.Sprintf("&#%d;&#x%X;", token[10], token[11]):  {"&amp;", "&", "&quot;a&quot;", "&&nbsp;            "},
	}
	for run, noise := range noises {
		for _, n := range noise {
			for at := crowd - 150; at < crowd+150; at++ {
				text := []byte(strings.Repeat(n, 2*crowd/len(n)))
				text = append(append(text[:at:at], ' '), run+plain+` `...)
				text = append(text, strings.Repeat(n, 10)...)
				want := bytes.Clone(text)
				for i := range len(run + plain) {
					want[at+1+i] = m.mask
				}
				if m.Scanner().Mask(text); !bytes.Equal(text, want) {
					t.Fatalf("%q at %d among %q: %q", run+plain, at, n, text[at-10:at+60])
				}
			}
		}
	}
}

// FuzzMask looks for text that makes Mask panic, or change more or less than the definition says.
func FuzzMask(f *testing.F) {
	values := []string{token, `\u0041%&#;"/+<n16`} // the second is full of what escapes are made of, and its R is 8
	var ms []*Matcher
	var ws [][]window
	for _, v := range values {
		for _, text := range spellings(v) {
			f.Add([]byte(text), uint16(7))
		}
		ms, ws = append(ms, NewMatcher([]Secret{newSecret(v)})), append(ws, windows([]byte(v)))
	}
	f.Fuzz(func(t *testing.T, text []byte, cut uint16) {
		if len(text) > 2000 {
			return
		}
		at := int(cut) % (len(text) + 1)
		for i, m := range ms {
			out := bytes.Clone(text)
			s := m.Scanner()
			s.Mask(out[:at])
			s.Mask(out[at:])
			want := append(wanted(m, ws[i], text[:at], 0), wanted(m, ws[i], text, at)...)
			if !bytes.Equal(out, want) {
				t.Fatalf("%q cut at %d\ntext %q\ngot  %q\nwant %q", values[i], at, text, out, want)
			}
		}
	})
}
