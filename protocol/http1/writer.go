package http1

import (
	"io"
	"net"
	"strconv"

	"torno.internal/protocol"
)

// directSize is the size in bytes of one TLS record's content. The buffer leaves by itself when it
// holds that much, and content of that much is written from the caller's memory.
const directSize = 16 << 10

// Lengths of content that are not a number of bytes.
const (
	Unknown   = -1 // chunked, or ended by the connection's end
	NoContent = -2 // none, and Content-Length is left as the fields have it: HEAD, 304
)

// A Writer writes messages: WriteRequest or WriteResponse, AppendField if wanted, content by Write,
// then Close. It gathers head, content and the end of the content in a buffer, so that a small message
// leaves in one write; nothing leaves before Flush or Close unless the buffer is full.
//
// The Writer alone frames: it writes Content-Length, Transfer-Encoding and Connection itself and
// refuses fields that end at each hop. A head that is refused leaves nothing in the buffer. After an
// error of the connection every call returns that error. It is not safe for concurrent use.
type Writer struct {
	dst     io.Writer
	gathers bool // dst writes several buffers in one system call
	buf     []byte
	secret  bool // buf holds a secret and is wiped
	state   writerState
	chunked bool
	left    int64 // bytes of content still to come, or Unknown
	err     error
	bufs    net.Buffers // scratch of writeWith, kept to save allocations
	vec     [2][]byte
}

type writerState uint8

const (
	writesHead    writerState = iota // before a head
	writesFields                     // in a head, before the empty line
	writesContent                    // after it
)

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	gathers := false
	switch w.(type) {
	case *net.TCPConn, *net.UnixConn:
		gathers = true
	}
	return &Writer{dst: w, gathers: gathers}
}

// A Value holds bytes that may be looked at only within f, as secret.Value does. The guest reads and
// writes messages without linking the type that holds secrets.
type Value interface {
	Use(f func([]byte) error) error
}

// Confide has the head that comes next wiped from the buffer when it has left: its target holds a secret.
func (w *Writer) Confide() { w.secret = true }

// AppendField appends a field to the head that was just begun and wipes its bytes from the buffer when
// they have left.
func (w *Writer) AppendField(name string, value Value) error {
	if err := w.ready(writesFields); err != nil {
		return err
	}
	if err := checkName(name); err != nil {
		return err
	}
	return value.Use(func(b []byte) error {
		if !isFieldValue(b) {
			return bad("value of field %q", name)
		}
		w.grow(len(name) + len(b) + 4)
		w.secret = true
		w.appendString(name)
		w.appendString(": ")
		w.buf = append(w.buf, b...)
		w.appendString("\r\n")
		return nil
	})
}

// Write writes p as content. It writes nothing and returns ErrLong if p is longer than what is left of
// the length announced.
func (w *Writer) Write(p []byte) (int, error) {
	if err := w.ready(writesContent); err != nil {
		return 0, err
	}
	switch {
	case len(p) == 0:
		return 0, nil
	case w.left >= 0 && int64(len(p)) > w.left:
		return 0, ErrLong
	case w.left >= 0:
		w.left -= int64(len(p))
	}
	if w.chunked {
		w.grow(maxChunkLine)
		w.buf = strconv.AppendUint(w.buf, uint64(len(p)), 16)
		w.appendString("\r\n")
	}
	w.writeContent(p)
	if w.chunked {
		w.appendString("\r\n")
	}
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Close ends the content and flushes. The trailer section, which may be empty, is written if the
// content is chunked; elsewhere HTTP/1.1 has no place for it. Close returns ErrShort if content is
// missing: the message is then aborted, and its connection must be closed.
func (w *Writer) Close(trailer protocol.Fields) error {
	if err := w.ready(writesContent); err != nil {
		return err
	}
	if w.left > 0 {
		return ErrShort
	}
	if w.chunked {
		mark := len(w.buf)
		w.appendString("0\r\n")
		for i := range trailer {
			if err := w.appendField(trailer[i]); err != nil {
				w.buf = w.buf[:mark]
				return err
			}
		}
		w.appendString("\r\n")
	}
	w.state = writesHead
	return w.flush()
}

// Flush writes what is buffered, and ends the head if it was just begun.
func (w *Writer) Flush() error {
	if w.err == nil && w.state == writesFields {
		w.endHead()
	}
	if w.err != nil {
		return w.err
	}
	return w.flush()
}

// Discard drops what is buffered, wiped, from a message that is aborted; its connection must be closed.
func (w *Writer) Discard() {
	wipe(w.buf)
	w.buf, w.secret = nil, false
	w.err = errDiscarded
}

// Buffered returns how many bytes wait to be flushed.
func (w *Writer) Buffered() int { return len(w.buf) }

// ready checks that the Writer stands at s; content ends the head.
func (w *Writer) ready(s writerState) error {
	if w.err == nil && w.state == writesFields && s == writesContent {
		w.endHead()
	}
	if w.err == nil && w.state != s {
		return errOrder
	}
	return w.err
}

func (w *Writer) endHead() {
	w.appendString("\r\n")
	w.state = writesContent
}

func (w *Writer) writeContent(p []byte) {
	switch {
	case w.err != nil:
	case len(p) < directSize:
		w.grow(len(p))
		w.buf = append(w.buf, p...)
		if len(w.buf) >= directSize {
			w.flush()
		}
	case w.gathers:
		w.vec = [2][]byte{w.buf, p}
		w.bufs = w.vec[:]
		_, w.err = w.bufs.WriteTo(w.dst)
		w.vec = [2][]byte{}
		w.reset()
	default: // fill the first record, then write the rest as it is
		if n := directSize - len(w.buf); len(w.buf) > 0 && n > 0 {
			w.grow(n)
			w.buf = append(w.buf, p[:n]...)
			p = p[n:]
		}
		if w.flush() == nil && len(p) > 0 {
			_, w.err = w.dst.Write(p)
		}
	}
}

func (w *Writer) flush() error {
	if len(w.buf) > 0 {
		_, w.err = w.dst.Write(w.buf)
		w.reset()
	}
	return w.err
}

// reset empties the buffer, wipes it if it held a secret, and gives a grown one back.
func (w *Writer) reset() {
	if w.secret {
		wipe(w.buf)
		w.secret = false
	}
	if cap(w.buf) > 2*directSize+bufferSize {
		w.buf = nil
		return
	}
	w.buf = w.buf[:0]
}

func wipe(b []byte) { clear(b[:cap(b)]) }

// grow makes room for n more bytes without leaving a copy of a secret behind.
func (w *Writer) grow(n int) {
	if len(w.buf)+n <= cap(w.buf) {
		return
	}
	to := make([]byte, len(w.buf), max(bufferSize, 2*cap(w.buf), len(w.buf)+n))
	copy(to, w.buf)
	if w.secret {
		wipe(w.buf)
	}
	w.buf = to
}

func (w *Writer) appendString(s string) {
	w.grow(len(s))
	w.buf = append(w.buf, s...)
}

// appendField appends one line, checked.
func (w *Writer) appendField(f protocol.Field) error {
	if err := checkName(f.Name); err != nil {
		return err
	}
	if !protocol.IsFieldValue(f.Value) {
		return bad("value of field %q", f.Name) // never the value: it may be a credential
	}
	w.grow(len(f.Name) + len(f.Value) + 4)
	w.buf = append(w.buf, f.Name...)
	w.buf = append(w.buf, ": "...)
	w.buf = append(w.buf, f.Value...)
	w.buf = append(w.buf, "\r\n"...)
	return nil
}

func checkName(name string) error {
	for i := range len(name) {
		if lowerTokenChar[name[i]] != name[i] || name[i] == 0 {
			return bad("field name %q", name)
		}
	}
	switch {
	case name == "" || name == "content-length":
		return bad("field name %q", name)
	case protocol.IsConnectionField(name):
		return bad("connection-specific field %q", name)
	}
	return nil
}

func isFieldValue(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return false
		}
	}
	return len(b) == 0 || !isSpace(b[0]) && !isSpace(b[len(b)-1])
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }
