package bhttp

import (
	"io"

	"torno.internal/protocol"
)

// bufferSize is the buffer that a Reader or Writer keeps while idle, in bytes; most heads with their
// content fit. Larger heads grow it, as their bytes arrive, until they have been read.
const bufferSize = 4 << 10

// state is where in a message a Reader or Writer stands.
type state uint8

const (
	between state = iota // before a message
	interim              // after an interim response, before the next head
	content              // after the last head, before the content terminator
	trailer              // after the content terminator
)

// A Reader reads messages of the stream profile, one after another: a head, its content by Read up to
// io.EOF, then ReadTrailer. It reads ahead, so it must be the only reader of its source. An error of
// the source leaves the Reader where it stood, so a read that timed out can be tried again; ErrMalformed
// and ErrTooLarge are final. It is not safe for concurrent use.
//
// The source's end within a message comes out as io.ErrUnexpectedEOF: an aborted exchange is never
// mistaken for a complete one.
type Reader struct {
	src        io.Reader
	buf        []byte
	start, end int    // buf[start:end] is read and not yet used
	left       uint64 // bytes left in the current chunk
	state      state
	interims   int   // interim responses of this message so far
	err        error // the final error
}

// NewReader returns a Reader of src.
func NewReader(r io.Reader) *Reader { return &Reader{src: r} }

// Buffered returns how many bytes have been read from the source and not yet used.
func (r *Reader) Buffered() int { return r.end - r.start }

// Await blocks until a byte that is not yet used has arrived, so that a caller can exchange the
// deadline of an idle stream for that of a head. Between messages the source's end is io.EOF.
func (r *Reader) Await() error {
	if r.err != nil || r.Buffered() > 0 {
		return r.err
	}
	return r.atEnd(r.fill())
}

// ReadRequest reads the head of the next request into req, reusing the memory of req.Fields. It
// returns io.EOF if the source ended before the request began.
func (r *Reader) ReadRequest(req *protocol.Request) error {
	*req = protocol.Request{Fields: req.Fields[:0]}
	c, err := r.head(indeterminateRequest, controlRequest)
	if err != nil {
		return err
	}
	if err := c.request(req); err != nil {
		*req = protocol.Request{}
		return r.fail(err)
	}
	r.state = content
	r.release()
	return nil
}

// ReadResponse reads the next response head into resp, reusing the memory of resp.Fields. Interim
// responses come out one by one; content follows the final one alone. It returns io.EOF if the source
// ended before the first head began.
func (r *Reader) ReadResponse(resp *protocol.Response) error {
	*resp = protocol.Response{Fields: resp.Fields[:0]}
	c, err := r.head(indeterminateResponse, controlResponse)
	if err != nil {
		return err
	}
	resp.Status = int(c.integer())
	if err := c.fields(&resp.Fields); err != nil {
		*resp = protocol.Response{}
		return r.fail(err)
	}
	if !resp.Interim() {
		r.state, r.interims = content, 0
		r.release()
		return nil
	}
	if r.interims++; r.interims > protocol.MaxInterim {
		*resp = protocol.Response{}
		return r.fail(tooLarge("number of interim responses", protocol.MaxInterim))
	}
	r.state = interim
	return nil
}

// ReadTrailer reads the trailer section into f, reusing its memory. It follows io.EOF from Read;
// after it the Reader stands before the next message.
func (r *Reader) ReadTrailer(f *protocol.Fields) error {
	*f = (*f)[:0]
	if r.err == nil && r.state != trailer {
		return errOrder
	}
	c, err := r.section(scan{control: controlNone}, 0)
	if err != nil {
		return err
	}
	if err := c.fields(f); err != nil {
		*f = nil
		return r.fail(err)
	}
	r.state = between
	r.release()
	return nil
}

// head reads one head, with the framing indicator that opens its message unless an interim response
// already did.
func (r *Reader) head(indicator byte, control int) (cut, error) {
	skip := 1
	switch {
	case r.err != nil:
		return cut{}, r.err
	case r.state == interim && control == controlResponse:
		skip = 0
	case r.state != between:
		return cut{}, errOrder
	}
	if err := r.Await(); err != nil {
		return cut{}, err
	}
	if skip == 1 && r.buf[r.start] != indicator {
		return cut{}, r.fail(malformed("framing indicator %#x, want %d", r.buf[r.start], indicator))
	}
	return r.section(scan{control: control}, skip)
}

// section waits for the whole of what s scans, which begins skip bytes on, and uses it up.
func (r *Reader) section(s scan, skip int) (cut, error) {
	if r.err != nil {
		return cut{}, r.err
	}
	for {
		if r.Buffered() > skip {
			done, err := s.run(r.buf[r.start+skip : r.end])
			if err != nil {
				return cut{}, r.fail(err)
			}
			if done {
				break
			}
		}
		if err := r.fill(); err != nil {
			return cut{}, unexpected(err)
		}
	}
	b := r.buf[r.start+skip : r.start+skip+s.pos]
	r.start += skip + s.pos
	if len(b) == 1 { // an empty trailer section
		return cut{b: b, s: "\x00"}, nil
	}
	return cut{b: b, s: string(b)}, nil
}

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

// release gives a grown buffer back: an exchange may take hours, and hundreds of them as long.
func (r *Reader) release() {
	if len(r.buf) > 4*bufferSize && r.Buffered() <= bufferSize {
		to := make([]byte, bufferSize)
		r.end = copy(to, r.buf[r.start:r.end])
		r.start, r.buf = 0, to
	}
}

// Rest gives the buffer back, if nothing waits in it, until it is needed again: for a stream that stays silent for long.
func (r *Reader) Rest() {
	if r.Buffered() == 0 {
		r.start, r.end, r.buf = 0, 0, nil
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

// atEnd lets io.EOF pass between messages alone.
func (r *Reader) atEnd(err error) error {
	if r.state == between {
		return err
	}
	return unexpected(err)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) fail(err error) error {
	r.err = err
	return err
}
