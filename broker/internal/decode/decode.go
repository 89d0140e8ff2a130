// Package decode undoes the content codings that servers apply although nobody asked for them (RFC 9110
// §8.4): gzip, deflate, br and zstd. What it gives is bounded, in all and in proportion to what it took.
package decode

import (
	"bufio"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"torno.internal/protocol"
)

// Limits on decoded content.
const (
	MaxContent = 1 << 30  // bytes
	MaxRatio   = 200      // of decoded to coded bytes, beyond slack
	MaxMemory  = 20 << 20 // bytes that one Reader needs at most: a window of 16 MiB with br (RFC 7932 §9.1), and tables
	slack      = 1 << 20  // bytes that any ratio may have
	maxWindow  = 8 << 20  // bytes of a zstd window (RFC 8878 §3.1.1.1.2 asks for 8 MiB)
)

// ErrTooLarge says that content is beyond the limits.
var ErrTooLarge = errors.New("decoded content is beyond the limits")

// pieceCodings are the fields that say how pieces of the content are coded, each by itself: messages of gRPC and of
// Connect, and what stands for content that the client is supposed to have (RFC 3229 §10.5.2).
var pieceCodings = []string{"grpc-encoding", "connect-content-encoding", "im"}

// Negotiates reports whether a request's field asks for an answer that is coded, or as good as that.
func Negotiates(name string) bool {
	switch name {
	case "accept-encoding", "grpc-accept-encoding", "connect-accept-encoding", "a-im":
		return true
	}
	return false
}

// Coding returns the content coding in f, in lower case, "" for none. Anything that NewReader does not know, several
// codings one over the other, and pieces that are coded by themselves, is an error.
func Coding(f protocol.Fields) (string, error) {
	coding := ""
	for i := range f {
		if slices.Contains(pieceCodings, f[i].Name) && !strings.EqualFold(f[i].Value, "identity") {
			return "", fmt.Errorf("pieces of content coded %q", f[i].Value)
		}
		if f[i].Name != "content-encoding" {
			continue
		}
		for c := range strings.SplitSeq(f[i].Value, ",") {
			switch c = strings.ToLower(strings.Trim(c, " \t")); {
			case c == "" || c == "identity" || c == "aws-chunked": // the last: some stores keep how an upload was framed
			case coding != "":
				return "", fmt.Errorf("content coded %q and %q", coding, c)
			case c == "gzip" || c == "x-gzip" || c == "deflate" || c == "br" || c == "zstd":
				coding = c
			default:
				return "", fmt.Errorf("content coded %q", c)
			}
		}
	}
	return coding, nil
}

// A Reader decodes content. It reads nothing before it is asked to, and gives what a flush of the sender lets it
// give. Close frees its tables.
type Reader struct {
	from   counted
	coding string
	r      io.Reader
	close  func()
	total  int64
	err    error
}

// NewReader returns a Reader of r's content, coded as Coding said.
func NewReader(r io.Reader, coding string) *Reader {
	d := &Reader{coding: coding, close: func() {}}
	d.from.r = bufio.NewReader(r)
	return d
}

// Read gives decoded content. It returns io.EOF where content and coding both end cleanly, ErrTooLarge beyond the
// limits, and otherwise what the content's own reader or the coding's says.
func (d *Reader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.r == nil {
		if d.err = d.open(); d.err != nil {
			return 0, d.err
		}
	}
	n, err := d.r.Read(p)
	d.total += int64(n)
	if d.total > MaxContent || d.total > slack+MaxRatio*d.from.n {
		d.err = ErrTooLarge
		return 0, d.err
	}
	if errors.Is(err, io.EOF) {
		err = d.end()
	}
	d.err = err
	return n, err
}

// open begins to decode, now that there is something to read.
func (d *Reader) open() (err error) {
	if _, err := d.from.r.Peek(1); errors.Is(err, io.EOF) {
		return io.EOF // no content at all, as behind HEAD
	}
	switch d.coding {
	case "gzip", "x-gzip":
		d.r, err = gzip.NewReader(&d.from)
	case "deflate":
		d.r, err = d.deflate()
	case "br":
		d.r = brotli.NewReader(&d.from)
	case "zstd":
		var z *zstd.Decoder
		z, err = zstd.NewReader(&d.from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderMaxMemory(MaxContent))
		if err == nil {
			d.r, d.close = z, z.Close
		}
	default:
		err = fmt.Errorf("content coded %q", d.coding)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// deflate is zlib's form by the standard (RFC 9110 §8.4.1.2) and the bare one by custom.
func (d *Reader) deflate() (io.Reader, error) {
	head, err := d.from.r.Peek(2)
	if err == nil && head[0]&0x0f == 8 && (int(head[0])<<8|int(head[1]))%31 == 0 {
		return zlib.NewReader(&d.from)
	}
	return flate.NewReader(&d.from), nil
}

// end looks for bytes behind the coded content: another recipient might take them for content.
func (d *Reader) end() error {
	if _, err := d.from.r.Peek(1); err != nil {
		return err // io.EOF where the message ended cleanly
	}
	return errors.New("bytes behind coded content")
}

// Close frees what decoding needed.
func (d *Reader) Close() error {
	d.close()
	d.r, d.err = nil, errors.New("decode: closed")
	return nil
}

// counted counts the coded bytes that were taken.
type counted struct {
	r *bufio.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// ReadByte keeps compress/flate from reading further than the coded content goes.
func (c *counted) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
