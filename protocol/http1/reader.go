package http1

import (
	"bytes"
	"io"

	"torno.internal/protocol"
)

// bufferSize is the buffer that a Reader or Writer keeps while idle, in bytes; most heads with their
// content fit. Larger heads grow it, as their bytes arrive, until the message ends.
const bufferSize = 4 << 10

// state is where in its messages a Reader stands.
type state uint8

const (
	between state = iota // before a message, or before the response after an interim one
	content              // after a head
	tunnel               // after a head that ends HTTP on this connection: CONNECT, 101
)

// A Reader reads messages, one after another: a head by ReadRequest or ReadResponse, then its content
// by Read up to io.EOF, also when it has none. It reads ahead, so it must be the only reader of its
// source. An error of the source leaves the Reader where it stood, so a read that timed out can be
// tried again; an *Error is final. It is not safe for concurrent use.
//
// The source's end within a message comes out as io.ErrUnexpectedEOF.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int // buf[start:end] is read and not yet used
	state      state
	blank      bool // an empty line before this head was skipped
	response   bool // the last head was a response
	interims   int  // interim responses before this one
	framing    framing
	left       int64 // bytes left of the content, or of the chunk
	chunk      chunkState
	trailer    protocol.Fields
	err        error // the final error
}

// NewReader returns a Reader of src.
func NewReader(r io.Reader) *Reader { return &Reader{src: r} }

// Buffered returns how many bytes have been read from the source and not yet used.
func (r *Reader) Buffered() int { return r.end - r.start }

// TakeBuffered takes those bytes away, for a connection that becomes a tunnel.
func (r *Reader) TakeBuffered() []byte {
	b := append([]byte(nil), r.buf[r.start:r.end]...)
	r.start, r.end = 0, 0
	return b
}

// Await blocks until a byte that is not yet used has arrived, so that a caller can exchange the
// deadline of an idle connection for that of a head. Between messages the source's end is io.EOF.
func (r *Reader) Await() error {
	if r.err != nil || r.Buffered() > 0 {
		return r.err
	}
	err := r.fill()
	if r.state == content && r.framing != byClose || r.blank || r.interims > 0 {
		err = unexpected(err)
	}
	return err
}

// HeadBuffered reports whether a whole head has arrived, so that reading it waits for nothing.
func (r *Reader) HeadBuffered() bool { return bytes.Contains(r.buf[r.start:r.end], []byte("\r\n\r\n")) }

// Done reports whether the content of the last head was read up to io.EOF, so that the connection may
// be used for another message.
func (r *Reader) Done() bool { return r.err == nil && r.state == between }

// fill reads at least one more byte into the buffer, which doubles when it is full: memory follows
// what has arrived, never what was announced.
func (r *Reader) fill() error {
	if r.start == r.end {
		r.start, r.end = 0, 0
	}
	if r.end == len(r.buf) {
		r.makeRoom()
	}
	n, err := readSome(r.src, r.buf[r.end:])
	r.end += n
	return err
}

func (r *Reader) makeRoom() {
	to := r.buf
	if r.start == 0 {
		to = make([]byte, max(bufferSize, 2*len(r.buf)))
	}
	r.end = copy(to, r.buf[r.start:r.end])
	r.start, r.buf = 0, to
}

// finish stands before the next message and gives a grown buffer back.
func (r *Reader) finish() {
	r.state = between
	if len(r.buf) > 4*bufferSize && r.Buffered() <= bufferSize {
		to := make([]byte, bufferSize)
		r.end = copy(to, r.buf[r.start:r.end])
		r.start, r.buf = 0, to
	}
}

// readSome reads until there is a byte or an error, and never returns both.
func readSome(src io.Reader, p []byte) (int, error) {
	for range 100 {
		n, err := src.Read(p)
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, io.ErrNoProgress
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) fail(err error) error {
	if r.response {
		err = upstream(err)
	}
	r.err = err
	return err
}
