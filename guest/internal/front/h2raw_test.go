package front

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// An h2raw is a connection on which a test says what it wants.
type h2raw struct {
	t      testing.TB
	conn   net.Conn
	framer *http2.Framer
	enc    *hpack.Encoder
	block  bytes.Buffer
	id     uint32 // of the stream opened last
}

// h2raw opens a connection for name, without TLS if that is "".
func (h *house) h2raw(name string) *h2raw {
	h.t.Helper()
	var conn net.Conn
	if name == "" {
		conn = h.raw(h.addr, "")
	} else {
		config := h.tlsConfig(name)
		config.NextProtos = []string{"h2"}
		var err error
		if conn, err = tlsDial(h.addr, config); err != nil {
			h.t.Fatal(err)
		}
		h.t.Cleanup(func() { conn.Close() })
	}
	return newH2raw(h.t, conn)
}

// h2pipe opens a connection without TLS and without a buffer between the two ends.
func (h *house) h2pipe() *h2raw {
	h.t.Helper()
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = h.front.Serve(ctx, &once{far, make(chan struct{})}) }()
	h.t.Cleanup(func() { near.Close(); cancel(); <-done })
	return newH2raw(h.t, near)
}

// A once listener has one connection, which believes to go to dialled.
type once struct {
	conn   net.Conn
	closed chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	if l.conn == nil {
		<-l.closed
		return nil, net.ErrClosed
	}
	c := l.conn
	l.conn = nil
	return pipeConn{c}, nil
}

func (l *once) Close() error   { close(l.closed); return nil }
func (l *once) Addr() net.Addr { return net.TCPAddrFromAddrPort(dialled) }

type pipeConn struct{ net.Conn }

func (pipeConn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(dialled) }

func newH2raw(t testing.TB, conn net.Conn) *h2raw {
	t.Helper()
	c := &h2raw{t: t, conn: conn, framer: http2.NewFramer(conn, conn)}
	c.framer.AllowIllegalWrites = true
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.enc = hpack.NewEncoder(&c.block)
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, h2Preface); err != nil {
		t.Fatal(err)
	}
	if err := c.framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return c
}

// encode encodes names and values, one after the other.
func (c *h2raw) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	return c.block.Bytes()
}

// headers opens the next stream.
func (c *h2raw) headers(end bool, fields ...string) error {
	c.id = max(1, c.id+2)
	if c.id%2 == 0 {
		c.id--
	}
	return c.section(end, fields...)
}

// ask makes a request without content and returns what becomes of it, as outcome does.
func (c *h2raw) ask(fields ...string) string {
	_ = c.headers(true, fields...)
	return c.outcome()
}

// outcome returns what becomes of the last stream: status and reason, and how it ended if not well.
func (c *h2raw) outcome() string {
	var said []string
	for pings := 0; ; {
		f, err := c.framer.ReadFrame()
		if err != nil {
			return strings.Join(append(said, "closed"), " ")
		}
		ended := false
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			said = append(said, f.PseudoValue("status"))
			for _, l := range f.RegularFields() {
				if l.Name == protocol.FieldReason {
					said = append(said, l.Value)
				}
			}
			ended = f.StreamEnded()
		case *http2.DataFrame:
			ended = f.StreamEnded()
		case *http2.RSTStreamFrame:
			return strings.Join(append(said, f.ErrCode.String()), " ")
		case *http2.GoAwayFrame:
			return strings.Join(append(said, fmt.Sprint("GOAWAY ", f.ErrCode)), " ")
		case *http2.PingFrame:
			if len(said) == 0 {
				continue // the answer to a ping of the outcome before
			}
			if pings++; pings == 3 {
				return strings.Join(said, " ")
			}
			time.Sleep(5 * time.Millisecond)
			ended = true
		}
		if ended { // and a reset may follow
			_ = c.framer.WritePing(false, [8]byte{})
		}
	}
}

// section sends a head or trailers on the stream opened last.
func (c *h2raw) section(end bool, fields ...string) error {
	block := c.encode(fields...)
	first := block[:min(len(block), h2MaxFrame)]
	block = block[len(first):]
	err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: c.id, BlockFragment: first, EndStream: end, EndHeaders: len(block) == 0})
	for len(block) > 0 && err == nil {
		piece := block[:min(len(block), h2MaxFrame)]
		block = block[len(piece):]
		err = c.framer.WriteContinuation(c.id, len(block) == 0, piece)
	}
	return err
}
