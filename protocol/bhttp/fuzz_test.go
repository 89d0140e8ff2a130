package bhttp

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"torno.internal/protocol"
)

// A whole is all that one message said.
type whole struct {
	Request   protocol.Request
	Responses []protocol.Response
	Content   []byte
	Trailer   protocol.Fields
}

// FuzzReadRequest and FuzzReadResponse check that a message means the same however its bytes arrive,
// that its head has one encoding, and that what was read can be written and read again.
func FuzzReadRequest(f *testing.F) {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	must(f, w.WriteRequest(&someRequest))
	mustWrite(f, w, "hello")
	must(f, w.Close(someTrailer))
	f.Add(wire.Bytes())
	f.Add([]byte(head(2, "CONNECT", "https", "h", "/", ":protocol", "websocket") + "\x00\x00\x00"))
	f.Add([]byte(head(2, "CONNECT", "", "h:1", "") + "\x00\x01a\x40\x41"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkStream(t, b, func(r *Reader, m *whole) error {
			return r.ReadRequest(&m.Request)
		}, func(w *Writer, m *whole) error {
			return w.WriteRequest(&m.Request)
		})
	})
}

func FuzzReadResponse(f *testing.F) {
	f.Add([]byte("\x03\x40\x67\x01a\x01b\x00\x40\xc8\x01a\x01b\x00\x05hello\x00\x01a\x01b\x00"))
	f.Add([]byte("\x03\x40\xcc\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		checkStream(t, b, func(r *Reader, m *whole) error {
			for {
				var resp protocol.Response
				if err := r.ReadResponse(&resp); err != nil {
					if resp.Status != 0 || len(resp.Fields) > 0 {
						t.Errorf("%+v with error %v", resp, err)
					}
					return err
				}
				m.Responses = append(m.Responses, resp)
				if !resp.Interim() {
					return nil
				}
			}
		}, func(w *Writer, m *whole) error {
			for i := range m.Responses {
				if err := w.WriteResponse(&m.Responses[i]); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func checkStream(t *testing.T, b []byte, readHead func(*Reader, *whole) error, writeHead func(*Writer, *whole) error) {
	m, headSize, err := readWhole(NewReader(bytes.NewReader(b)), len(b), readHead)
	slow, _, slowErr := readWhole(NewReader(iotest.OneByteReader(bytes.NewReader(b))), len(b), readHead)
	if d := cmp.Diff(m, slow, cmpopts.EquateEmpty()); d != "" {
		t.Fatalf("at once and byte by byte differ:\n%s", d)
	}
	if (err == nil) != (slowErr == nil) || errors.Is(err, ErrMalformed) != errors.Is(slowErr, ErrMalformed) {
		t.Fatalf("at once %v, byte by byte %v", err, slowErr)
	}
	if err != nil {
		known := err == io.EOF || err == io.ErrUnexpectedEOF || errors.Is(err, ErrMalformed) || errors.Is(err, ErrTooLarge)
		if !known || err == io.EOF && len(b) > 0 {
			t.Fatalf("error %v after %d bytes", err, len(b))
		}
		return
	}
	var wire bytes.Buffer
	w := NewWriter(&wire)
	must(t, writeHead(w, m))
	must(t, w.Flush())
	if !bytes.Equal(wire.Bytes(), b[:headSize]) {
		t.Fatalf("head %x was written as %x", b[:headSize], wire.Bytes())
	}
	_, err = w.Write(m.Content)
	must(t, err)
	must(t, w.Close(m.Trailer))
	again, _, err := readWhole(NewReader(&wire), wire.Len(), readHead)
	must(t, err)
	if d := cmp.Diff(m, again, cmpopts.EquateEmpty()); d != "" {
		t.Fatal(d)
	}
}

// readWhole reads a message; headSize is right if all of the size bytes come in one read.
func readWhole(r *Reader, size int, readHead func(*Reader, *whole) error) (m *whole, headSize int, err error) {
	m = &whole{}
	if err := readHead(r, m); err != nil {
		return m, 0, err
	}
	headSize = r.start
	if m.Content, err = io.ReadAll(r); err != nil {
		return m, headSize, err
	}
	return m, headSize, r.ReadTrailer(&m.Trailer)
}
