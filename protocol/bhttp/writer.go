package bhttp

import (
	"io"
	"net"

	"torno.internal/protocol"
)

const (
	// directSize is from how many bytes on content is written from the caller's memory together with
	// the buffer, where the connection writes both in one system call, and not copied.
	directSize = 16 << 10
	// flushSize is how much small content gathers in the buffer before it leaves by itself, in bytes.
	flushSize = 32 << 10
)

// A Writer writes messages of the stream profile: WriteRequest or WriteResponse, content by Write,
// then Close. It gathers head, content and terminator in a buffer, so that a small message leaves in
// one write; nothing leaves before Flush or Close unless the buffer is full or the content is large.
//
// A head that a Reader would refuse is refused with ErrMalformed or ErrTooLarge, nothing of it is
// written, and the Writer stands where it stood. After an error of the connection every call returns
// that error. To abort a message, close the connection without Close. It is not safe for concurrent use.
type Writer struct {
	dst      io.Writer
	gather   func(*net.Buffers) (int64, error) // nil: dst takes one buffer at a time
	buf      []byte
	state    state
	interims int // interim responses of this message so far
	err      error
	bufs     net.Buffers // scratch of writeWith, kept to save allocations
	vec      [2][]byte
}

// NewWriter returns a Writer to w. Large content is not copied if w is a TCP or Unix connection, or has
// a method WriteBuffers(*net.Buffers) (int64, error) that writes several buffers in one system call.
func NewWriter(w io.Writer) *Writer {
	switch w := w.(type) {
	case *net.TCPConn, *net.UnixConn:
		return &Writer{dst: w, gather: func(b *net.Buffers) (int64, error) { return b.WriteTo(w) }}
	case interface {
		WriteBuffers(*net.Buffers) (int64, error)
	}:
		return &Writer{dst: w.(io.Writer), gather: w.WriteBuffers}
	}
	return &Writer{dst: w}
}

// WriteRequest writes the head of a request.
func (w *Writer) WriteRequest(r *protocol.Request) error {
	if err := w.ready(between); err != nil {
		return err
	}
	if err := checkRequest(r); err != nil {
		return err
	}
	mark := len(w.buf)
	b := append(w.buf, indeterminateRequest)
	b = appendString(b, r.Method)
	b = appendString(b, r.Scheme)
	b = appendString(b, r.Authority)
	b = appendString(b, r.Path)
	lines := len(r.Fields)
	if r.Protocol != "" {
		b = appendString(b, fieldProtocol)
		b = appendString(b, r.Protocol)
		lines++
	}
	return w.section(b, mark+1, mark, r.Fields, lines, content)
}

// WriteResponse writes the head of a response. Interim responses may precede the final one.
func (w *Writer) WriteResponse(r *protocol.Response) error {
	want := between
	if w.state == interim {
		want = interim
	}
	if err := w.ready(want); err != nil {
		return err
	}
	if err := checkStatus(uint64(r.Status)); err != nil {
		return err
	}
	if r.Interim() && w.interims == protocol.MaxInterim {
		return tooLarge("number of interim responses", protocol.MaxInterim)
	}
	mark := len(w.buf)
	b := w.buf
	if w.state == between {
		b = append(b, indeterminateResponse)
	}
	start := len(b)
	b = appendVarint(b, uint64(r.Status))
	next := content
	if r.Interim() {
		next = interim
	}
	if err := w.section(b, start, mark, r.Fields, len(r.Fields), next); err != nil {
		return err
	}
	w.interims++
	if next == content {
		w.interims = 0
	}
	return nil
}

// Write writes p as content, in one chunk or, beyond protocol.MaxChunk, several. An empty p writes
// nothing.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ready(content); err != nil {
		return 0, err
	}
	n := 0
	for n < len(p) {
		chunk := p[n:min(len(p), n+protocol.MaxChunk)]
		w.buf = appendVarint(w.buf, uint64(len(chunk)))
		if len(chunk) >= directSize && w.gather != nil {
			w.writeWith(chunk)
		} else if w.buf = append(w.buf, chunk...); len(w.buf) >= flushSize {
			w.flush()
		}
		if w.err != nil {
			return n, w.err
		}
		n += len(chunk)
	}
	return n, nil
}

// Close ends the content, writes the trailer section, which may be empty, and flushes. The Writer then
// stands before the next message. If the trailer is refused nothing is written.
func (w *Writer) Close(f protocol.Fields) error {
	if err := w.ready(content); err != nil {
		return err
	}
	mark := len(w.buf)
	b := append(w.buf, 0)
	if err := w.section(b, mark+1, mark, f, len(f), between); err != nil {
		return err
	}
	if w.flush(); cap(w.buf) > 4*bufferSize {
		w.buf = nil // an idle stream keeps little
	}
	return w.err
}

// Flush writes what is buffered.
func (w *Writer) Flush() error {
	if w.err != nil {
		return w.err
	}
	return w.flush()
}

// Rest gives the buffer back, if nothing waits in it, until it is needed again: for a stream that stays silent for long.
func (w *Writer) Rest() {
	if len(w.buf) == 0 {
		w.buf = nil
	}
}

// section appends the field section f to b, whose head begins at start, and makes it the buffer; or
// cuts the buffer back to mark.
func (w *Writer) section(b []byte, start, mark int, f protocol.Fields, lines int, next state) error {
	if lines > protocol.MaxFields {
		return tooLarge("number of field lines", protocol.MaxFields)
	}
	for i := range f {
		if err := checkField(f[i].Name, f[i].Value); err != nil {
			w.buf = b[:mark]
			return err
		}
		b = appendString(b, f[i].Name)
		b = appendString(b, f[i].Value)
		if len(b)-start > protocol.MaxHead {
			w.buf = b[:mark]
			return tooLarge("head", protocol.MaxHead)
		}
	}
	w.buf = append(b, 0)
	w.state = next
	return nil
}

func (w *Writer) ready(s state) error {
	if w.err == nil && w.state != s {
		return errOrder
	}
	if w.buf == nil {
		w.buf = make([]byte, 0, bufferSize)
	}
	return w.err
}

func (w *Writer) flush() error {
	if len(w.buf) > 0 {
		_, w.err = w.dst.Write(w.buf)
		w.buf = w.buf[:0]
	}
	return w.err
}

// writeWith writes the buffer and then p in one system call.
func (w *Writer) writeWith(p []byte) {
	w.vec = [2][]byte{w.buf, p}
	w.bufs = w.vec[:]
	_, w.err = w.gather(&w.bufs)
	w.vec = [2][]byte{}
	w.buf = w.buf[:0]
}

func appendString(b []byte, s string) []byte {
	b = appendVarint(b, uint64(len(s)))
	return append(b, s...)
}
