package upstream

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// FuzzH2Response reads whatever a server may send. It ends, without more memory than the window, and
// cleanly only where some frame ended the stream.
func FuzzH2Response(f *testing.F) {
	for _, seed := range h2Seeds() {
		f.Add(seed)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	defer ln.Close()
	f.Fuzz(func(t *testing.T, sent []byte) {
		if len(sent) > 1<<20 {
			return
		}
		tcp, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = tcp.(*net.TCPConn).SetLinger(0) // leaves no port behind that waits
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		served := make(chan struct{})
		go func() {
			defer close(served)
			_, _ = server.Write(sent)
			_ = server.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, server)
		}()
		c, err := newConn(t.Context(), &origin{host: "example.com"}, tcp.(*net.TCPConn), h2Window)
		if err != nil {
			t.Fatal(err)
		}
		c.h2 = newH2(c, h2Window)
		c.r, c.w = c.h2, c.h2
		// The request is there first, as if the server had waited for it.
		if err := errors.Join(c.w.WriteRequest("GET", "/", "example.com", nil, 0), c.w.Close(nil)); err != nil {
			t.Fatal(err)
		}
		ran := make(chan struct{})
		go func() {
			defer close(ran)
			c.h2.run()
		}()
		x := &Exchange{conn: c}
		var resp protocol.Response
		for resp.Status < 200 && err == nil {
			err = x.ReadResponse(&resp)
			for _, l := range resp.Fields {
				if err == nil && (!protocol.IsToken(l.Name) || !protocol.IsFieldValue(l.Value) || endsHere(l.Name)) {
					t.Errorf("field %q: %q", l.Name, l.Value)
				}
			}
		}
		if err == nil {
			content, err := io.ReadAll(x)
			if frames, ended := scanFrames(sent); err == nil && !ended || int64(len(content)) > frames {
				t.Errorf("%d bytes of content, %v, from %d, ended %v", len(content), err, frames, ended)
			}
			if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("content ended with %v", err)
			}
		}
		if n := c.h2.room(); n > h2Window {
			t.Errorf("buffer of %d bytes", n)
		}
		c.abort()
		select {
		case <-ran:
		case <-time.After(10 * time.Second):
			t.Fatal("the reader does not end")
		}
		<-served
	})
}

// scanFrames walks over frames, without knowing anything of them but their headers, and returns how much
// content there is on stream 1 at most and whether something ends it.
func scanFrames(b []byte) (content int64, ended bool) {
	for len(b) >= 9 {
		n := int(b[0])<<16 | int(b[1])<<8 | int(b[2])
		kind, flags, id := http2.FrameType(b[3]), http2.Flags(b[4]), b[8]
		if kind == http2.FrameData {
			content += int64(n)
		}
		if kind <= http2.FrameHeaders && flags.Has(http2.FlagDataEndStream) && id == 1 {
			ended = true
		}
		b = b[min(len(b), 9+n):]
	}
	return content, ended
}

// h2Seeds returns what servers send in good and bad exchanges.
func h2Seeds() [][]byte {
	var seeds [][]byte
	record := func(play func(f *h2Fake, id uint32)) {
		var sent bytes.Buffer
		f := &h2Fake{Framer: http2.NewFramer(&sent, nil)}
		f.AllowIllegalWrites = true
		f.enc = hpack.NewEncoder(&f.buf)
		_ = f.WriteSettings(window(1<<16), http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 100})
		_ = f.WriteSettingsAck()
		play(f, 1)
		seeds = append(seeds, sent.Bytes())
	}
	record(func(f *h2Fake, id uint32) {
		f.headers(id, false, ":status", "103", "link", "</a>")
		f.headers(id, false, ":status", "200", "content-length", "5", "server", "x")
		_ = f.WritePing(false, [8]byte{1})
		_ = f.WriteDataPadded(id, false, []byte("hello"), make([]byte, 10))
		f.headers(id, true, "x-sum", "1")
		_ = f.WriteGoAway(1, http2.ErrCodeNo, []byte("bye"))
	})
	record(func(f *h2Fake, id uint32) {
		f.long(id, ":status", "200", "a", string(bytes.Repeat([]byte{0x80}, 20_000)))
	})
	record(func(f *h2Fake, id uint32) {
		ok(f, id)
		_ = f.WriteWindowUpdate(id, 5)
		_ = f.WriteRSTStream(id, http2.ErrCodeCancel)
	})
	for _, a := range beforeHead {
		if a.code != http2.ErrCodeEnhanceYourCalm { // those are long, some without end
			record(a.play)
		}
	}
	for _, a := range afterHead[:len(afterHead)-1] {
		if a.code != http2.ErrCodeEnhanceYourCalm {
			record(func(f *h2Fake, id uint32) {
				ok(f, id)
				a.play(f, id)
			})
		}
	}
	return seeds
}

// FuzzH2Section sends fields of every kind and reads them back with another decoder.
func FuzzH2Section(f *testing.F) {
	f.Add("x-key", []byte("sk-1"))
	f.Add("authorization", bytes.Repeat([]byte("k"), 127))
	f.Add("a", bytes.Repeat([]byte("k"), 40_000))
	f.Fuzz(func(t *testing.T, name string, value []byte) {
		h := newH2(&conn{}, h2Window)
		if h.WriteRequest("GET", "/", "example.com", protocol.Fields{{Name: "x-first", Value: "1"}}, 0) != nil {
			t.Fatal("refused")
		}
		if err := h.AppendField(name, plainValue(value)); err != nil {
			return
		}
		fields, err := hpack.NewDecoder(0, nil).DecodeFull(h.section.b)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := fields[len(fields)-1], (hpack.HeaderField{Name: name, Value: string(value), Sensitive: true}); got != want {
			t.Errorf("got %q %q, want %q %q", got.Name, got.Value, name, value)
		}
	})
}

// A plainValue is a value that is no secret.
type plainValue []byte

func (v plainValue) Use(f func([]byte) error) error { return f(v) }
