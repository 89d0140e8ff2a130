package sign

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// A digestWriter passes content on and compares it with its digest. It holds the last byte back until the whole is
// known to be right, so that nobody ever takes wrong content for whole.
type digestWriter struct {
	w    io.Writer
	hash hash.Hash
	want digest
	last [1]byte
	held bool
}

func newDigestWriter(w io.Writer, want digest) *digestWriter {
	return &digestWriter{w: w, hash: want.hash.New(), want: want}
}

func (d *digestWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	d.hash.Write(p)
	if d.held {
		if _, err := d.w.Write(d.last[:]); err != nil {
			return 0, err
		}
	}
	end := len(p) - 1
	d.last[0], d.held = p[end], true
	if end > 0 {
		if n, err := d.w.Write(p[:end]); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// Close compares the digest and lets the last byte go.
func (d *digestWriter) Close() error {
	if got := d.hash.Sum(nil); string(got) != d.want.sum {
		return fmt.Errorf("digest %x: %w", got, ErrContent)
	}
	if !d.held {
		return nil
	}
	d.held = false
	_, err := d.w.Write(d.last[:])
	return err
}

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
// Sizes keep their spelling, so that the content keeps its length.
type chunkWriter struct {
	w        io.Writer
	key      *awsKey
	previous string // signature
	left     int64  // bytes of content still to come
	trailers bool

	state chunkState
	size  int
	width int    // of the signature that came
	held  []byte // of the part that state says
	out   []byte
}

// A chunkState says which part comes next.
type chunkState uint8

const (
	chunkLine chunkState = iota
	chunkData            // with the line break behind it
	chunkTail            // behind the last chunk
)

func newChunkWriter(w io.Writer, key *awsKey, seed string, length int64, trailers bool) *chunkWriter {
	return &chunkWriter{w: w, key: key, previous: seed, left: length, trailers: trailers}
}

func (c *chunkWriter) Write(p []byte) (int, error) {
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
	if len(c.held)+n > maxChunkLine {
		return 0, malformed("a chunk's first line of more than %d bytes", maxChunkLine)
	}
	c.held = append(c.held, p[:n]...)
	if !whole {
		return n, nil
	}
	size, signature, ok := bytes.Cut(bytes.TrimSuffix(c.held, []byte("\r\n")), []byte(";chunk-signature="))
	count, err := strconv.ParseUint(string(size), 16, 31)
	if !ok || err != nil || len(size) > maxChunkSize || size[0] == '+' || !c.fits(signature) || !bytes.HasSuffix(c.held, []byte("\r\n")) {
		return 0, malformed("a chunk that does not begin with its size and signature")
	}
	if count > MaxChunk || int64(count) > c.left {
		return 0, malformed("a chunk of %d bytes, where %d are to come and at most %d are signed at once", count, c.left, MaxChunk)
	}
	c.size, c.left = int(count), c.left-int64(count)
	c.width = len(signature)
	c.out = append(c.out[:0], size...)
	c.held = c.held[:0]
	c.state = chunkData
	if count > 0 {
		return n, nil
	}
	c.state = chunkTail
	if c.left > 0 {
		return 0, malformed("%d bytes fewer than declared", c.left)
	}
	return n, c.emit(nil)
}

// data reads a chunk's bytes and the line break behind them.
func (c *chunkWriter) data(p []byte) (int, error) {
	n := min(len(p), c.size+2-len(c.held))
	c.held = append(c.held, p[:n]...)
	if len(c.held) < c.size+2 {
		return n, nil
	}
	if !bytes.HasSuffix(c.held, []byte("\r\n")) {
		return 0, malformed("a chunk longer than its size")
	}
	err := c.emit(c.held[:c.size])
	c.held, c.state = c.held[:0], chunkLine
	return n, err
}

// emit signs a chunk and passes it on. Its size stands in out.
func (c *chunkWriter) emit(data []byte) error {
	var err error
	if c.previous, err = c.key.sign("-PAYLOAD", []string{c.previous, emptyHash}, sha256.Sum256(data)); err != nil {
		return err
	}
	c.out = append(c.out, ";chunk-signature="...)
	if c.out, err = c.pad(c.out, c.previous); err != nil {
		return err
	}
	c.out = append(c.out, "\r\n"...)
	if _, err := c.w.Write(c.out); err != nil || len(data) == 0 {
		return err
	}
	_, err = c.w.Write(c.held)
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
func (c *chunkWriter) pad(b []byte, signature string) ([]byte, error) {
	if len(signature) > c.width {
		return nil, malformed("a signature without padding to %d digits", maxAsymmetricSignature)
	}
	b = append(b, signature...)
	return append(b, strings.Repeat(padding, c.width-len(signature))...), nil
}

// tail keeps what is behind the last chunk.
func (c *chunkWriter) tail(p []byte) error {
	if len(c.held)+len(p) > maxTrailers {
		return malformed("more than %d bytes behind the last chunk", maxTrailers)
	}
	c.held = append(c.held, p...)
	return nil
}

// Close signs the trailers and ends the content.
func (c *chunkWriter) Close() error {
	defer c.key.wipe()
	if c.state != chunkTail {
		return malformed("no last chunk")
	}
	if !c.trailers {
		if !bytes.Equal(c.held, []byte("\r\n")) {
			return malformed("bytes behind the last chunk")
		}
		_, err := c.w.Write(c.held)
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
	lines, rest, ok := bytes.Cut(c.held, []byte(name))
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
	c.width = end
	tail, err := c.pad(append(append([]byte(nil), lines...), name...), signature)
	if err != nil {
		return nil, err
	}
	return append(tail, rest[end:]...), nil
}

func malformed(format string, args ...any) error {
	return fmt.Errorf("chunks: "+format+": %w", append(args, ErrContent)...)
}
