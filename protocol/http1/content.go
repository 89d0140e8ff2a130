package http1

import (
	"bytes"
	"io"

	"torno.internal/protocol"
)

// framing is how the end of the content is found (RFC 9112 §6.3).
type framing uint8

const (
	byLength framing = iota
	byChunks
	byClose
)

// chunkState is where in a chunked content a Reader stands.
type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF after the data
	chunkLast
)

// maxChunkLine is the longest chunk-size line in bytes: 15 hexadecimal digits, which fit an int64, CRLF.
const maxChunkLine = 17

func (r *Reader) enter(chunked bool, length int64, toClose bool) {
	r.state, r.blank = content, false
	r.framing, r.left, r.chunk = byLength, length, chunkSize
	switch {
	case chunked:
		r.framing, r.left = byChunks, 0
	case toClose:
		r.framing = byClose
	}
}

// Trailer returns the trailer section of the content that Read has just ended, names lower case. It is
// valid until the next head is read.
func (r *Reader) Trailer() protocol.Fields { return r.trailer }

// Read reads content of the message whose head was read last. It returns io.EOF at its end, trailer
// section included, and io.ErrUnexpectedEOF if the source ends before. It returns what has arrived and
// does not wait to fill p; it may use all of p as scratch space.
func (r *Reader) Read(p []byte) (int, error) {
	switch {
	case r.err != nil:
		return 0, r.err
	case r.state == between:
		return 0, io.EOF
	case r.state == tunnel:
		return 0, errOrder
	case len(p) == 0:
		return 0, nil
	}
	switch r.framing {
	case byChunks:
		return r.readChunks(p)
	case byClose:
		n, err := r.readPlain(p)
		if err == io.EOF {
			r.finish()
		}
		return n, err
	}
	if r.left == 0 {
		r.finish()
		return 0, io.EOF
	}
	n, err := r.readPlain(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	return n, unexpected(err)
}

// readPlain reads content that has no framing in between: from the buffer, or at once into p.
func (r *Reader) readPlain(p []byte) (int, error) {
	if r.Buffered() == 0 {
		if len(p) >= bufferSize {
			return readSome(r.src, p)
		}
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.start:r.end])
	r.start += n
	return n, nil
}

func (r *Reader) readChunks(p []byte) (int, error) {
	for {
		used, n, err := r.unframe(p, r.buf[r.start:r.end])
		r.start += used
		if n > 0 || err != nil {
			return n, err
		}
		if r.chunk == chunkLast {
			return 0, r.readTrailer()
		}
		if r.Buffered() == 0 && len(p) >= bufferSize {
			n, err = r.readDirect(p)
			if n > 0 || err != nil {
				return n, err
			}
			continue
		}
		if err := r.fill(); err != nil {
			return 0, unexpected(err)
		}
	}
}

// readDirect reads from the source into p itself and takes the framing out in place, so that large
// chunks need no second buffer. What lies beyond the content goes to the buffer.
func (r *Reader) readDirect(p []byte) (int, error) {
	got, err := readSome(r.src, p)
	if err != nil {
		return 0, unexpected(err)
	}
	used, n, err := r.unframe(p, p[:got])
	rest := p[used:got]
	if len(rest) > len(r.buf) {
		r.buf = make([]byte, max(bufferSize, len(rest)))
	}
	r.start, r.end = 0, copy(r.buf, rest)
	return n, err
}

// unframe copies content from src to dst, which may be the same memory, until either ends or the
// content does. It returns how much of src it used and how much of dst it filled. Malformed framing is
// reported only when no content stands before it, so none is lost.
func (r *Reader) unframe(dst, src []byte) (used, n int, err error) {
	for n < len(dst) && used < len(src) && r.chunk != chunkLast {
		if r.chunk == chunkData {
			m := int(min(r.left, int64(len(src)-used), int64(len(dst)-n)))
			copy(dst[n:], src[used:used+m])
			used, n, r.left = used+m, n+m, r.left-int64(m)
			if r.left == 0 {
				r.chunk = chunkEnd
			}
			continue
		}
		size, err := r.chunkFraming(src[used:])
		if err != nil && n == 0 {
			return used, 0, r.fail(err)
		}
		if err != nil || size == 0 {
			break
		}
		used += size
	}
	return used, n, nil
}

// chunkFraming passes what stands between two chunks' data at the front of b and returns its length, 0
// if b ends within it.
func (r *Reader) chunkFraming(b []byte) (int, error) {
	if r.chunk == chunkEnd {
		switch {
		case b[0] != '\r' || len(b) > 1 && b[1] != '\n':
			return 0, bad("chunk is longer than its size")
		case len(b) == 1:
			return 0, nil
		}
		r.chunk = chunkSize
		return 2, nil
	}
	i := bytes.IndexByte(b[:min(len(b), maxChunkLine)], '\n')
	if i < 0 {
		if len(b) >= maxChunkLine {
			return 0, bad("chunk size line over %d bytes", maxChunkLine)
		}
		return 0, nil
	}
	size, err := parseChunkSize(b[:i+1])
	if err != nil {
		return 0, err
	}
	r.left, r.chunk = size, chunkData
	if size == 0 {
		r.chunk = chunkLast
	}
	return i + 1, nil
}

// parseChunkSize reads hexadecimal digits and CRLF, and nothing else: no extension, no white space.
func parseChunkSize(line []byte) (int64, error) {
	digits, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok || len(digits) == 0 {
		return 0, bad("chunk size line does not end in CRLF or is empty")
	}
	var n int64
	for _, c := range digits {
		switch {
		case isDigit(c):
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, bad("byte %#02x in a chunk size", c)
		}
		n = n<<4 | int64(c)
	}
	return n, nil
}

// readTrailer reads the trailer section and returns io.EOF.
func (r *Reader) readTrailer() error {
	section, err := r.section(scan{})
	if err != nil {
		return err
	}
	f, err := cutFields(nil, section)
	if err != nil {
		return r.fail(err)
	}
	for i := range f {
		if name := f[i].Name; name == "content-length" || protocol.IsConnectionField(name) {
			return r.fail(bad("field %q in a trailer section", name))
		}
	}
	r.trailer = f
	r.finish()
	return io.EOF
}
