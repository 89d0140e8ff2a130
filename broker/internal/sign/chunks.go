package sign

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Limits on content in signed chunks, in bytes.
const (
	maxChunkLine = 192     // "SIZE;chunk-signature=SIGNATURE"
	maxChunkSize = 16      // digits of SIZE
	maxTrailers  = 4 << 10 // all behind the last chunk
)

// A chunkWriter signs content in chunks anew. Each chunk is held until all of it is there, for its signature goes
// first:
//
//	SIZE;chunk-signature=SIGNATURE CR LF BYTES CR LF … 0;chunk-signature=SIGNATURE CR LF TRAILERS CR LF
//
// Sizes keep their spelling, so that the content keeps its length. A chunk is hashed beside the one that goes out before it and
// the one that comes after it: hashing is most of the work.
type chunkWriter struct {
	w        io.Writer
	key      *awsKey
	previous string // signature
	left     int64  // bytes of content still to come
	trailers bool

	state   chunkState
	part    []byte // of the first line of a chunk, or of what is behind the last one
	next    *chunk // that comes
	pending *chunk // that has come, and is being hashed; nil: none
	spare   *chunk
	out     []byte
}

// A chunk is one that has come, or comes.
type chunk struct {
	length int
	size   []byte // the same as the workload spelled it
	width  int    // of the signature that came
	data   []byte // with the line break behind it
	sum    [sha256.Size]byte
	hashed chan struct{} // closed once sum is there
}

func (k *chunk) hash() { k.sum = sha256.Sum256(k.data[:k.length]) }

// A chunkState says which part comes next.
type chunkState uint8

const (
	chunkLine chunkState = iota
	chunkData            // with the line break behind it
	chunkTail            // behind the last chunk
)

func newChunkWriter(w io.Writer, key *awsKey, seed string, length int64, trailers bool) *chunkWriter {
	return &chunkWriter{w: w, key: key, previous: seed, left: length, trailers: trailers, next: &chunk{}, spare: &chunk{}}
}

func (c *chunkWriter) Write(p []byte) (int, error) {
	if c.pending != nil {
		select {
		case <-c.pending.hashed:
			if err := c.settle(); err != nil {
				return 0, err
			}
		default:
		}
	}
	for rest := p; len(rest) > 0; {
		var n int
		var err error
		switch c.state {
		case chunkLine:
			n, err = c.line(rest)
		case chunkData:
			n, err = c.data(rest)
		case chunkTail:
			n, err = len(rest), c.tail(rest)
		}
		if err != nil {
			return len(p) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// line reads a chunk's first line.
func (c *chunkWriter) line(p []byte) (int, error) {
	n := bytes.IndexByte(p, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(p)
	}
	if len(c.part)+n > maxChunkLine {
		return 0, malformed("a chunk's first line of more than %d bytes", maxChunkLine)
	}
	c.part = append(c.part, p[:n]...)
	if !whole {
		return n, nil
	}
	size, signature, ok := bytes.Cut(bytes.TrimSuffix(c.part, []byte("\r\n")), []byte(";chunk-signature="))
	count, err := strconv.ParseUint(string(size), 16, 31)
	if !ok || err != nil || len(size) > maxChunkSize || size[0] == '+' || !c.fits(signature) || !bytes.HasSuffix(c.part, []byte("\r\n")) {
		return 0, malformed("a chunk that does not begin with its size and signature")
	}
	if count > MaxChunk || int64(count) > c.left {
		return 0, malformed("a chunk of %d bytes, where %d are to come and at most %d are signed at once", count, c.left, MaxChunk)
	}
	if count == 0 {
		if err := c.settle(); err != nil {
			return 0, err
		}
	}
	c.left -= int64(count)
	c.next.length, c.next.width = int(count), len(signature)
	c.next.size, c.next.data = append(c.next.size[:0], size...), slices.Grow(c.next.data[:0], int(count)+2)
	c.part = c.part[:0]
	c.state = chunkData
	if count > 0 {
		return n, nil
	}
	c.state = chunkTail
	if c.left > 0 {
		return 0, malformed("%d bytes fewer than declared", c.left)
	}
	c.next.hash()
	return n, c.emit(c.next)
}

// data reads a chunk's bytes and the line break behind them.
func (c *chunkWriter) data(p []byte) (int, error) {
	k := c.next
	n := min(len(p), k.length+2-len(k.data))
	k.data = append(k.data, p[:n]...)
	if len(k.data) < k.length+2 {
		return n, nil
	}
	if !bytes.HasSuffix(k.data, []byte("\r\n")) {
		return 0, malformed("a chunk longer than its size")
	}
	c.state = chunkLine
	if err := c.settle(); err != nil {
		return 0, err
	}
	if n == len(p) { // nothing follows yet
		k.hash()
		return n, c.emit(k)
	}
	k.hashed = make(chan struct{})
	go func() {
		defer close(k.hashed)
		k.hash()
	}()
	c.pending, c.next = k, c.spare
	return n, nil
}

// settle passes on the chunk that is being hashed, if there is one.
func (c *chunkWriter) settle() error {
	k := c.pending
	if k == nil {
		return nil
	}
	<-k.hashed
	c.pending, c.spare = nil, k
	return c.emit(k)
}

// emit signs a chunk and passes it on.
func (c *chunkWriter) emit(k *chunk) error {
	var err error
	if c.previous, err = c.key.sign("-PAYLOAD", []string{c.previous, emptyHash}, k.sum); err != nil {
		return err
	}
	c.out = append(append(c.out[:0], k.size...), ";chunk-signature="...)
	if c.out, err = pad(c.out, c.previous, k.width); err != nil {
		return err
	}
	c.out = append(c.out, "\r\n"...)
	if _, err := c.w.Write(c.out); err != nil || k.length == 0 {
		return err
	}
	_, err = c.w.Write(k.data)
	return err
}

// padding fills signatures of Signature Version 4A up to one width, so that the content's length is known beforehand.
const padding = "*"

// fits reports whether the workload's own signature has the shape of one, padded where that is needed.
func (c *chunkWriter) fits(signature []byte) bool {
	if c.key.private == nil {
		return isDigest(string(signature))
	}
	return len(signature) <= maxAsymmetricSignature && isAsymmetricSignature(strings.TrimRight(string(signature), padding))
}

// pad appends a signature of ours in the width of the workload's own.
func pad(b []byte, signature string, width int) ([]byte, error) {
	if len(signature) > width {
		return nil, malformed("a signature without padding to %d digits", maxAsymmetricSignature)
	}
	b = append(b, signature...)
	return append(b, strings.Repeat(padding, width-len(signature))...), nil
}

// tail keeps what is behind the last chunk.
func (c *chunkWriter) tail(p []byte) error {
	if len(c.part)+len(p) > maxTrailers {
		return malformed("more than %d bytes behind the last chunk", maxTrailers)
	}
	c.part = append(c.part, p...)
	return nil
}

// Close signs the trailers and ends the content.
func (c *chunkWriter) Close() error {
	defer c.key.wipe()
	if c.state != chunkTail {
		return malformed("no last chunk")
	}
	if !c.trailers {
		if !bytes.Equal(c.part, []byte("\r\n")) {
			return malformed("bytes behind the last chunk")
		}
		_, err := c.w.Write(c.part)
		return err
	}
	tail, err := c.signTrailers()
	if err != nil {
		return err
	}
	_, err = c.w.Write(tail)
	return err
}

// signTrailers returns the trailers with a signature of ours. Line breaks in them stay as they are: SDKs differ.
func (c *chunkWriter) signTrailers() ([]byte, error) {
	const name = "x-amz-trailer-signature:"
	lines, rest, ok := bytes.Cut(c.part, []byte(name))
	end := max(bytes.IndexAny(rest, "\r\n"), 0)
	if !ok || !c.fits(rest[:end]) || len(bytes.Trim(rest[end:], "\r\n")) > 0 || len(rest) == end {
		return nil, malformed("trailers without a signature at their end")
	}
	var signed []byte
	for line := range bytes.SplitSeq(lines, []byte("\n")) {
		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) > 0 {
			signed = append(append(signed, line...), '\n')
		}
	}
	signature, err := c.key.sign("-TRAILER", []string{c.previous}, sha256.Sum256(signed))
	if err != nil {
		return nil, err
	}
	tail, err := pad(append(append([]byte(nil), lines...), name...), signature, end)
	if err != nil {
		return nil, err
	}
	return append(tail, rest[end:]...), nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("chunks: "+format+": %w", append(args, ErrContent)...)
}
