package upstream

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// An h2Fake is one connection of a server that does what a test wants of it. Its Framer checks nothing
// of what it writes.
type h2Fake struct {
	*http2.Framer
	conn net.Conn
	enc  *hpack.Encoder
	buf  bytes.Buffer
	dec  *hpack.Decoder
	acks int // of our SETTINGS

	// What the client lets us send, as far as request has seen it.
	room       int64 // on the connection
	streamRoom int64 // on a new stream
}

// newH2Fake starts a server that plays script on each connection that has sent its preface.
func newH2Fake(t testing.TB, script func(f *h2Fake)) *upstreamServer {
	t.Helper()
	s := newScriptTLS(t, "https", &tls.Config{NextProtos: []string{"h2"}}, func(c net.Conn, r *bufio.Reader) {
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(r, preface); err != nil {
			return // the test was faster
		}
		if string(preface) != http2.ClientPreface {
			t.Errorf("preface %q", preface)
		}
		f := &h2Fake{Framer: http2.NewFramer(c, r), conn: c, room: h2DefaultWindow, streamRoom: h2DefaultWindow}
		f.AllowIllegalWrites = true
		f.enc = hpack.NewEncoder(&f.buf)
		f.dec = hpack.NewDecoder(4096, nil)
		script(f)
	})
	s.key.HTTP2 = true
	return s
}

// section encodes name, value, name, value and so on.
func (f *h2Fake) section(fields ...string) []byte {
	f.buf.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = f.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return bytes.Clone(f.buf.Bytes())
}

func (f *h2Fake) headers(id uint32, end bool, fields ...string) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.section(fields...), EndStream: end, EndHeaders: true})
}

// request answers what needs an answer until a request's head is whole.
func (f *h2Fake) request() (id uint32, end bool, fields []hpack.HeaderField, err error) {
	f.dec.SetEmitFunc(func(l hpack.HeaderField) { fields = append(fields, l) })
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return 0, false, nil, err
		}
		var fragment []byte
		ended := false
		switch fr := fr.(type) {
		case *http2.SettingsFrame:
			if fr.IsAck() {
				f.acks++
				continue
			}
			if n, ok := fr.Value(http2.SettingInitialWindowSize); ok {
				f.streamRoom = int64(n)
			}
			_ = f.WriteSettingsAck()
			continue
		case *http2.WindowUpdateFrame:
			f.room += int64(fr.Increment)
			continue
		case *http2.HeadersFrame:
			id, end = fr.StreamID, fr.StreamEnded()
			fragment, ended = fr.HeaderBlockFragment(), fr.HeadersEnded()
		case *http2.ContinuationFrame:
			fragment, ended = fr.HeaderBlockFragment(), fr.HeadersEnded()
		default:
			continue
		}
		if _, err := f.dec.Write(fragment); err != nil {
			return 0, false, nil, err
		}
		if ended {
			return id, end, fields, f.dec.Close()
		}
	}
}

// drain reads until the connection ends and returns the code of a GOAWAY that came.
func (f *h2Fake) drain() (code http2.ErrCode, told bool) {
	for {
		fr, err := f.ReadFrame()
		var se http2.StreamError
		if err != nil && !errors.As(err, &se) {
			return code, told
		}
		if g, ok := fr.(*http2.GoAwayFrame); ok {
			code, told = g.ErrCode, true
		}
	}
}

// data reads up to the next DATA frame and returns its content.
func (f *h2Fake) data() (content []byte, end bool, err error) {
	for {
		fr, err := f.ReadFrame()
		if err != nil {
			return nil, false, err
		}
		if d, ok := fr.(*http2.DataFrame); ok {
			return bytes.Clone(d.Data()), d.StreamEnded(), nil
		}
	}
}

// flood sends size bytes of content as the windows let it.
func (f *h2Fake) flood(id uint32, size int64) {
	room := map[uint32]int64{0: f.room, id: f.streamRoom}
	for size > 0 {
		if n := min(room[0], room[id], h2FrameSize, size); n > 0 {
			if f.WriteData(id, n == size, make([]byte, n)) != nil {
				return
			}
			room[0], room[id], size = room[0]-n, room[id]-n, size-n
			continue
		}
		fr, err := f.ReadFrame()
		if err != nil {
			return
		}
		if w, ok := fr.(*http2.WindowUpdateFrame); ok {
			room[w.StreamID] += int64(w.Increment)
		}
	}
}
