package sign

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// The example of chunked uploads in AWS's documentation of Signature Version 4.
var (
	exampleTime = time.Date(2013, 5, 24, 0, 0, 0, 0, time.UTC)
	exampleKey  = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
	exampleIn   = scope{"us-east-1", "s3"}
	exampleSize = 66560
)

// An example is one of the two uploads: in chunks, and with a trailer behind them.
type example struct {
	seed    string
	chunks  []string
	trailer string
}

var examples = map[string]example{
	"chunks": {
		seed: "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9",
		chunks: []string{
			"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
			"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
			"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
		},
	},
	"trailer": {
		seed: "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e",
		chunks: []string{
			"b474d8862b1487a5145d686f57f013e54db672cee1c953b3010fb58501ef5aa2",
			"1c1344b170168f8e65b41376b44b20fe354e373826ccbbe2c1d40a8cae51e5c7",
			"2ca2aba2005185cf7159c6277faf83795951dd77a3a99e6e65d5c9f85863f992",
		},
		trailer: "d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435",
	},
}

// content frames the example's content with the signatures that f makes of the right ones.
func (e example) content(f func(signature string) string) string {
	var b strings.Builder
	for i, size := range []int{65536, 1024, 0} {
		fmt.Fprintf(&b, "%x;chunk-signature=%s\r\n%s", size, f(e.chunks[i]), strings.Repeat("a", size))
		if size > 0 {
			b.WriteString("\r\n")
		}
	}
	if e.trailer != "" {
		fmt.Fprintf(&b, "x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:%s\r\n", f(e.trailer))
	}
	b.WriteString("\r\n")
	return b.String()
}

func (e example) writer(w io.Writer) *chunkWriter {
	key := deriveKey([]byte(exampleKey), exampleIn, exampleTime)
	return newChunkWriter(w, key, e.seed, int64(exampleSize), e.trailer != "")
}

func placeholderSignature(string) string { return strings.Repeat("0", 64) }

// TestChunksExample signs the examples anew, cut at every kind of place, and gets AWS's own signatures.
func TestChunksExample(t *testing.T) {
	for name, e := range examples {
		in, want := e.content(placeholderSignature), e.content(func(s string) string { return s })
		for _, piece := range []int{1, 7, 1000, 70000} {
			var out bytes.Buffer
			w := e.writer(&out)
			for b := []byte(in); len(b) > 0; b = b[min(piece, len(b)):] {
				if n, err := w.Write(b[:min(piece, len(b))]); err != nil || n != min(piece, len(b)) {
					t.Fatal(n, err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if out.String() != want {
				t.Errorf("%s in pieces of %d: not what AWS signs", name, piece)
			}
			if w.key.key != [sha256.Size]byte{} {
				t.Errorf("%s: the key is still there", name)
			}
		}
	}
}

// TestChunksRefused damages the content in every way that a reader could take for something else: none is passed on
// as whole.
func TestChunksRefused(t *testing.T) {
	for kind, e := range examples {
		good := e.content(placeholderSignature)
		for name, bad := range map[string]string{
			"shorter than declared": strings.Replace(good, "400;", "3ff;", 1),
			"cut":                   good[:len(good)-40000],
			"without an end":        good[:strings.LastIndex(good, "0;chunk")],
			"size in another sign":  "+" + good,
			"no size":               good[strings.IndexByte(good, ';'):],
			"size of 4 GiB":         "1" + strings.Repeat("0", 8) + good[5:],
			"more than fits":        strings.Replace(good, "10000;", "100001;", 1),
			"bare line feed":        strings.Replace(good, "\r\n", "\n", 1),
			"other parameter":       strings.Replace(good, "chunk-signature", "chunk-extension", 1),
			"signature in capitals": strings.Replace(good, strings.Repeat("0", 64), strings.Repeat("A", 64), 1),
			"long line":             strings.Repeat("0", 100) + good,
			"byte too many":         strings.Replace(good, "aa\r\n400", "aaa\r\n400", 1),
			"behind the end":        good + strings.Repeat("GET / HTTP/1.1\r\n", 3),
			"far behind the end":    good + strings.Repeat("x", maxTrailers),
			"nothing":               "",
		} {
			w := e.writer(io.Discard)
			_, err := io.WriteString(w, bad)
			if err == nil {
				err = w.Close()
			}
			if !errors.Is(err, ErrContent) {
				t.Errorf("%s %s: %v, want ErrContent", kind, name, err)
			}
		}
	}
	w := examples["chunks"].writer(io.Discard) // the control: undamaged it passes
	if _, err := io.WriteString(w, examples["chunks"].content(placeholderSignature)); err != nil || w.Close() != nil {
		t.Error("the undamaged content is refused")
	}
}

// TestDigestHoldsBack sends right and wrong content against a digest: of wrong content the last byte never leaves.
func TestDigestHoldsBack(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789"), 1000)
	sum := sha256.Sum256(content)
	for _, piece := range []int{1, 3, 4096, len(content)} {
		for name, c := range map[string]struct {
			send []byte
			want error
		}{
			"right":    {content, nil},
			"one bit":  {append(bytes.Clone(content[:len(content)-1]), content[len(content)-1]^1), ErrContent},
			"cut":      {content[:len(content)-1], ErrContent},
			"appended": {append(bytes.Clone(content), 'x'), ErrContent},
		} {
			var out bytes.Buffer
			w := newDigestWriter(&out, digest{crypto.SHA256, string(sum[:])})
			for b := c.send; len(b) > 0; b = b[min(piece, len(b)):] {
				if n, err := w.Write(b[:min(piece, len(b))]); err != nil || n != min(piece, len(b)) {
					t.Fatal(n, err)
				}
			}
			err := w.Close()
			want := len(c.send)
			if c.want != nil {
				want--
			}
			if !errors.Is(err, c.want) || out.Len() != want {
				t.Errorf("%s in pieces of %d: %v and %d bytes, want %v and %d", name, piece, err, out.Len(), c.want, want)
			}
		}
	}
	w := newDigestWriter(io.Discard, newDigest(crypto.SHA256, nil))
	if err := w.Close(); err != nil {
		t.Errorf("no content: %v", err)
	}
}

// FuzzChunks gives the writer anything, in pieces of any size: it never passes on more than it was given, and what it
// ends well has the length of what came in and signs to itself.
func FuzzChunks(f *testing.F) {
	signature := ";chunk-signature=" + strings.Repeat("a", 64) + "\r\n"
	f.Add([]byte("3"+signature+"abc\r\n0"+signature+"\r\n"), uint64(1), false)
	f.Add([]byte("0"+signature+"\r\n"), uint64(2), false)
	f.Add([]byte("1"+signature+"a\r\n0"+signature+"x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:"+emptyHash+"\r\n\r\n"), uint64(3), true)
	f.Fuzz(func(t *testing.T, in []byte, seed uint64, trailers bool) {
		run := func(in []byte) ([]byte, error) {
			var out bytes.Buffer
			random := rand.New(rand.NewPCG(seed, 0))
			w := newChunkWriter(&out, deriveKey([]byte(exampleKey), exampleIn, exampleTime), emptyHash, int64(len(in)), trailers)
			w.left = declared(in)
			for len(in) > 0 {
				n := 1 + random.IntN(len(in))
				if _, err := w.Write(in[:n]); err != nil {
					return nil, err
				}
				in = in[n:]
			}
			err := w.Close()
			return out.Bytes(), err
		}
		once, err := run(in)
		if err != nil {
			return
		}
		if len(once) != len(in) {
			t.Fatalf("%d bytes became %d", len(in), len(once))
		}
		twice, err := run(once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("signed again: %v", err)
		}
	})
}

// declared guesses how much content stands in chunks, as an honest client declares it.
func declared(in []byte) (total int64) {
	for {
		var size int64
		line, rest, ok := bytes.Cut(in, []byte("\r\n"))
		if _, err := fmt.Sscanf(string(line), "%x;", &size); !ok || err != nil || size <= 0 || size > int64(len(rest)) {
			return total
		}
		total += size
		in = bytes.TrimPrefix(rest[size:], []byte("\r\n"))
	}
}

// BenchmarkContent is the cost of content on its way: against its digest, and in signed chunks of 64 KiB.
func BenchmarkContent(b *testing.B) {
	content := bytes.Repeat([]byte("content "), 32<<10/8*2)
	signature := ";chunk-signature=" + strings.Repeat("0", 64) + "\r\n"
	chunk := []byte(fmt.Sprintf("%x", len(content)) + signature + string(content) + "\r\n")
	for name, c := range map[string]struct {
		writer io.Writer
		piece  []byte
	}{
		"digest": {newDigestWriter(io.Discard, newDigest(crypto.SHA256, nil)), content},
		"chunks": {newChunkWriter(io.Discard, deriveKey([]byte(exampleKey), exampleIn, exampleTime), emptyHash, 1<<62, false), chunk},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.writer.Write(c.piece); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestChunksOverlap signs chunks of every size, cut anywhere: whether a chunk is hashed beside others or not, the signatures follow one
// another, and no more is held than may be.
func TestChunksOverlap(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		key := deriveKey([]byte(exampleKey), exampleIn, exampleTime)
		var in, want bytes.Buffer
		previous, total := emptyHash, 0
		add := func(size int) {
			data := bytes.Repeat([]byte{byte(size)}, size)
			total += size
			signature, err := key.sign("-PAYLOAD", []string{previous, emptyHash}, sha256.Sum256(data))
			if err != nil {
				t.Fatal(err)
			}
			previous = signature
			for _, b := range []*bytes.Buffer{&in, &want} {
				fmt.Fprintf(b, "%x;chunk-signature=", size)
			}
			in.WriteString(placeholderSignature(""))
			want.WriteString(signature)
			for _, b := range []*bytes.Buffer{&in, &want} {
				b.WriteString("\r\n")
				if b.Write(data); size > 0 {
					b.WriteString("\r\n")
				}
			}
		}
		for range 1 + random.IntN(12) {
			add([]int{1, 1000, 64 << 10, MaxChunk / 2, MaxChunk/2 + 1, MaxChunk}[random.IntN(6)])
		}
		add(0)
		in.WriteString("\r\n")
		want.WriteString("\r\n")
		var out bytes.Buffer
		w := newChunkWriter(&out, deriveKey([]byte(exampleKey), exampleIn, exampleTime), emptyHash, int64(total), false)
		for b := in.Bytes(); len(b) > 0; {
			n := 1 + random.IntN(min(len(b), 200<<10))
			if _, err := w.Write(b[:n]); err != nil {
				t.Fatal(err)
			}
			held := cap(w.next.data) + cap(w.spare.data)
			if w.pending != nil { // and the spare one comes
				held = cap(w.next.data) + cap(w.pending.data)
			}
			if held > MaxHeld+MaxHeld/8 { // as allocations are rounded
				t.Fatalf("%d bytes are held", held)
			}
			b = b[n:]
		}
		if err := w.Close(); err != nil || !bytes.Equal(out.Bytes(), want.Bytes()) {
			t.Fatalf("%v; %d bytes, want %d", err, out.Len(), want.Len())
		}
	}
}
