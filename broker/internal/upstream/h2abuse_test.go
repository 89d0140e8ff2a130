package upstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"torno.internal/protocol"
)

// An h2Abuse is what a server does once the head of a GET has come on stream id, after its SETTINGS.
type h2Abuse struct {
	name string
	play func(f *h2Fake, id uint32)
	code http2.ErrCode // told to the server in GOAWAY
}

// ok is a good final head without the end.
func ok(f *h2Fake, id uint32) { f.headers(id, false, ":status", "200") }

// beforeHead is answered with an error of ReadResponse.
var beforeHead = []h2Abuse{
	{"no status", func(f *h2Fake, id uint32) { f.headers(id, true, "server", "x") }, http2.ErrCodeProtocol},
	{"no status nor end", func(f *h2Fake, id uint32) { f.headers(id, false, "server", "x") }, http2.ErrCodeProtocol},
	{"status twice", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", ":status", "200") }, http2.ErrCodeProtocol},
	{"status behind a field", func(f *h2Fake, id uint32) { f.headers(id, true, "server", "x", ":status", "200") }, http2.ErrCodeProtocol},
	{"status of two digits", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "20") }, http2.ErrCodeProtocol},
	{"status with a sign", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "+20") }, http2.ErrCodeProtocol},
	{"status 099", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "099") }, http2.ErrCodeProtocol},
	{"status 600", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "600") }, http2.ErrCodeProtocol},
	{"status 101", func(f *h2Fake, id uint32) { f.headers(id, false, ":status", "101") }, http2.ErrCodeProtocol},
	{"pseudo-field of a request", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", ":path", "/") }, http2.ErrCodeProtocol},
	{"unknown pseudo-field", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", ":x", "/") }, http2.ErrCodeProtocol},
	{"upper case", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "Server", "x") }, http2.ErrCodeProtocol},
	{"empty name", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "", "x") }, http2.ErrCodeProtocol},
	{"space in a name", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "a b", "x") }, http2.ErrCodeProtocol},
	{"long name", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", strings.Repeat("a", 257), "x") }, http2.ErrCodeProtocol},
	{"line feed in a value", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "a", "x\ny") }, http2.ErrCodeProtocol},
	{"NUL in a value", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "a", "x\x00") }, http2.ErrCodeProtocol},
	{"connection", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "connection", "x") }, http2.ErrCodeProtocol},
	{"transfer-encoding", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "transfer-encoding", "chunked") }, http2.ErrCodeProtocol},
	{"upgrade", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "upgrade", "h3") }, http2.ErrCodeProtocol},
	{"length twice", func(f *h2Fake, id uint32) {
		f.headers(id, false, ":status", "200", "content-length", "1", "content-length", "1")
	}, http2.ErrCodeProtocol},
	{"length with a sign", func(f *h2Fake, id uint32) { f.headers(id, false, ":status", "200", "content-length", "+1") }, http2.ErrCodeProtocol},
	{"length but no content", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "content-length", "1") }, http2.ErrCodeProtocol},
	{"nine interim", func(f *h2Fake, id uint32) {
		for range protocol.MaxInterim + 1 {
			f.headers(id, false, ":status", "103")
		}
	}, http2.ErrCodeProtocol},
	{"interim that ends", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "100") }, http2.ErrCodeProtocol},
	{"content before the head", func(f *h2Fake, id uint32) { _ = f.WriteData(id, false, []byte("x")) }, http2.ErrCodeProtocol},
	{"end before the head", func(f *h2Fake, id uint32) { _ = f.WriteData(id, true, nil) }, http2.ErrCodeProtocol},
	{"content between heads", func(f *h2Fake, id uint32) {
		f.headers(id, false, ":status", "103")
		_ = f.WriteData(id, false, []byte("x"))
	}, http2.ErrCodeProtocol},
	{"head on another stream", func(f *h2Fake, id uint32) { f.headers(id+2, true, ":status", "200") }, http2.ErrCodeProtocol},
	{"head on a stream of the server's", func(f *h2Fake, _ uint32) { f.headers(2, true, ":status", "200") }, http2.ErrCodeProtocol},
	{"window of an idle stream", func(f *h2Fake, id uint32) { _ = f.WriteWindowUpdate(id+2, 1) }, http2.ErrCodeProtocol},
	{"window by 0", func(f *h2Fake, _ uint32) { _ = f.WriteWindowUpdate(0, 0) }, http2.ErrCodeProtocol},
	{"window of the stream by 0", func(f *h2Fake, id uint32) { _ = f.WriteWindowUpdate(id, 0) }, http2.ErrCodeProtocol},
	{"window over 2^31-1", func(f *h2Fake, _ uint32) { _ = f.WriteWindowUpdate(0, 1<<31-1) }, http2.ErrCodeFlowControl},
	{"window of the stream over 2^31-1", func(f *h2Fake, id uint32) { _ = f.WriteWindowUpdate(id, 1<<31-1) }, http2.ErrCodeFlowControl},
	{"window by settings over 2^31-1", func(f *h2Fake, id uint32) {
		_ = f.WriteWindowUpdate(id, 1<<30)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	}, http2.ErrCodeFlowControl},
	{"initial window over 2^31-1", func(f *h2Fake, _ uint32) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
	}, http2.ErrCodeFlowControl},
	{"frame size below 16384", func(f *h2Fake, _ uint32) {
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 16383})
	}, http2.ErrCodeProtocol},
	{"push enabled", func(f *h2Fake, _ uint32) { _ = f.WriteSettings(http2.Setting{ID: http2.SettingEnablePush, Val: 1}) }, http2.ErrCodeProtocol},
	{"push", func(f *h2Fake, id uint32) {
		_ = f.WritePushPromise(http2.PushPromiseParam{StreamID: id, PromiseID: 2, BlockFragment: f.section(":path", "/"), EndHeaders: true})
	}, http2.ErrCodeProtocol},
	{"settings of five bytes", func(f *h2Fake, _ uint32) { _ = f.WriteRawFrame(http2.FrameSettings, 0, 0, make([]byte, 5)) }, http2.ErrCodeFrameSize},
	{"settings on a stream", func(f *h2Fake, id uint32) { _ = f.WriteRawFrame(http2.FrameSettings, 0, id, nil) }, http2.ErrCodeProtocol},
	{"ping of seven bytes", func(f *h2Fake, _ uint32) { _ = f.WriteRawFrame(http2.FramePing, 0, 0, make([]byte, 7)) }, http2.ErrCodeFrameSize},
	{"frame over 16384", func(f *h2Fake, id uint32) { _ = f.WriteRawFrame(http2.FrameData, 0, id, make([]byte, 16385)) }, http2.ErrCodeFrameSize},
	{"continuation of nothing", func(f *h2Fake, id uint32) { _ = f.WriteContinuation(id, true, nil) }, http2.ErrCodeProtocol},
	{"another frame within a head", func(f *h2Fake, id uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.section(":status", "200")})
		_ = f.WritePing(false, [8]byte{})
	}, http2.ErrCodeProtocol},
	{"reset of an idle stream", func(f *h2Fake, id uint32) { _ = f.WriteRSTStream(id+2, http2.ErrCodeNo) }, http2.ErrCodeProtocol},
	{"index out of the table", func(f *h2Fake, id uint32) { f.block(id, []byte{0xff, 0x7f}) }, http2.ErrCodeCompression},
	{"table over what we allow", func(f *h2Fake, id uint32) { f.block(id, []byte{0x3f, 0xff, 0x7f}) }, http2.ErrCodeCompression},
	{"half a field", func(f *h2Fake, id uint32) { f.block(id, []byte{0x00, 0x05, 'a'}) }, http2.ErrCodeCompression},
	{"value over 64 KiB", func(f *h2Fake, id uint32) { f.long(id, ":status", "200", "a", strings.Repeat("\x01", 64<<10+1)) }, http2.ErrCodeCompression},
	{"too many fields", func(f *h2Fake, id uint32) {
		fields := []string{":status", "200"}
		for i := range protocol.MaxFields + 1 {
			fields = append(fields, "a", fmt.Sprint(i))
		}
		f.headers(id, true, fields...)
	}, http2.ErrCodeEnhanceYourCalm},
	{"head too large", func(f *h2Fake, id uint32) {
		f.long(id, ":status", "200", "a", strings.Repeat("a", 60<<10), "b", strings.Repeat("b", 60<<10), "c", strings.Repeat("c", 60<<10))
	}, http2.ErrCodeEnhanceYourCalm},
	{"small block that expands", func(f *h2Fake, id uint32) {
		f.block(id, append(f.section(":status", "200", "a", strings.Repeat("a", 4000)), strings.Repeat("\xbe", 100)...))
	}, http2.ErrCodeEnhanceYourCalm},
	{"large block of nothing", func(f *h2Fake, id uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.section(":status", "200"), EndStream: true})
		for i := range 9 {
			_ = f.WriteContinuation(id, i == 8, []byte(strings.Repeat("\x20", 16<<10)))
		}
	}, http2.ErrCodeEnhanceYourCalm},
	{"endless empty continuations", func(f *h2Fake, id uint32) {
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.section(":status", "200")})
		for f.WriteContinuation(id, false, nil) == nil {
		}
	}, http2.ErrCodeEnhanceYourCalm},
	{"pings", func(f *h2Fake, _ uint32) { flood(func() error { return f.WritePing(false, [8]byte{}) }) }, http2.ErrCodeEnhanceYourCalm},
	{"settings", func(f *h2Fake, _ uint32) { flood(func() error { return f.WriteSettings() }) }, http2.ErrCodeEnhanceYourCalm},
	{"acknowledgements", func(f *h2Fake, _ uint32) { flood(f.WriteSettingsAck) }, http2.ErrCodeEnhanceYourCalm},
	{"window updates", func(f *h2Fake, _ uint32) { flood(func() error { return f.WriteWindowUpdate(0, 1) }) }, http2.ErrCodeEnhanceYourCalm},
	{"window updates of the stream", func(f *h2Fake, id uint32) { flood(func() error { return f.WriteWindowUpdate(id, 1) }) }, http2.ErrCodeEnhanceYourCalm},
	{"priorities", func(f *h2Fake, id uint32) {
		flood(func() error { return f.WritePriority(id, http2.PriorityParam{StreamDep: 3}) })
	}, http2.ErrCodeEnhanceYourCalm},
	{"unknown frames", func(f *h2Fake, _ uint32) { flood(func() error { return f.WriteRawFrame(0xee, 0, 0, nil) }) }, http2.ErrCodeEnhanceYourCalm},
}

// afterHead is answered with an error of Read that matches io.ErrUnexpectedEOF; all begins with ok.
var afterHead = []h2Abuse{
	{"second final head", func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200") }, http2.ErrCodeProtocol},
	{"trailers that do not end", func(f *h2Fake, id uint32) { f.headers(id, false, "x-sum", "1") }, http2.ErrCodeProtocol},
	{"trailer content-length", func(f *h2Fake, id uint32) { f.headers(id, true, "content-length", "0") }, http2.ErrCodeProtocol},
	{"trailer transfer-encoding", func(f *h2Fake, id uint32) { f.headers(id, true, "transfer-encoding", "x") }, http2.ErrCodeProtocol},
	{"content on another stream", func(f *h2Fake, id uint32) { _ = f.WriteData(id+2, true, []byte("x")) }, http2.ErrCodeProtocol},
	{"padding without content", func(f *h2Fake, id uint32) {
		flood(func() error { return f.WriteDataPadded(id, false, nil, make([]byte, 255)) })
	}, http2.ErrCodeEnhanceYourCalm},
	{"empty content", func(f *h2Fake, id uint32) { flood(func() error { return f.WriteData(id, false, nil) }) }, http2.ErrCodeEnhanceYourCalm},
	{"padding longer than the frame", func(f *h2Fake, id uint32) {
		_ = f.WriteRawFrame(http2.FrameData, http2.FlagDataPadded, id, []byte{9, 1})
	}, http2.ErrCodeProtocol},
}

func (f *h2Fake) block(id uint32, b []byte) {
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b, EndStream: true, EndHeaders: true})
}

// long writes a head in as many frames as it takes.
func (f *h2Fake) long(id uint32, fields ...string) {
	b := f.section(fields...)
	n := min(len(b), h2FrameSize)
	err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:n], EndStream: true, EndHeaders: n == len(b)})
	for b = b[n:]; len(b) > 0 && err == nil; b = b[n:] {
		n = min(len(b), h2FrameSize)
		err = f.WriteContinuation(id, n == len(b), b[:n])
	}
}

// flood writes until that fails, or for long enough to show that it does not.
func flood(write func() error) {
	for range 100 * h2MaxIdleFrames {
		if write() != nil {
			return
		}
	}
}

// play runs one exchange with a server that abuses it, and returns what the server was told and the errors
// of head and content.
func play(t *testing.T, script func(f *h2Fake, id uint32)) (told chan http2.ErrCode, head, content error) {
	t.Helper()
	told = make(chan http2.ErrCode, 2)
	s := newH2Fake(t, func(f *h2Fake) {
		_ = f.WriteSettings()
		id, _, _, err := f.request()
		if err != nil {
			t.Error(err)
		}
		drained := make(chan struct{}) // who floods us reads as well
		go func() {
			defer close(drained)
			if code, ok := f.drain(); ok {
				told <- code
			}
			close(told)
		}()
		script(f, id)
		<-drained
	})
	x := s.begin(t, t.Context())
	defer x.Release(true)
	var resp protocol.Response
	for resp.Status < 200 && head == nil {
		head = x.ReadResponse(&resp)
	}
	if head == nil {
		_, content = io.ReadAll(x)
	}
	return told, head, content
}

// TestH2Abuse has servers break the protocol in every way. Each is answered with an error and the
// connection's end.
func TestH2Abuse(t *testing.T) {
	for _, tt := range beforeHead {
		t.Run(tt.name, func(t *testing.T) {
			told, head, _ := play(t, tt.play)
			wantReason(t, head, protocol.ReasonUpstreamProtocol)
			wantTold(t, told, tt.code)
		})
	}
	for _, tt := range afterHead {
		t.Run(tt.name, func(t *testing.T) {
			told, head, content := play(t, func(f *h2Fake, id uint32) {
				ok(f, id)
				tt.play(f, id)
			})
			if head != nil || !errors.Is(content, io.ErrUnexpectedEOF) {
				t.Errorf("head %v, content %v", head, content)
			}
			wantReason(t, content, protocol.ReasonUpstreamProtocol)
			wantTold(t, told, tt.code)
		})
	}
}

// TestH2FirstFrame cuts off servers that begin with anything but their settings (RFC 9113 §3.4).
func TestH2FirstFrame(t *testing.T) {
	for name, say := range map[string]func(f *h2Fake) error{
		"ping":            func(f *h2Fake) error { return f.WritePing(false, [8]byte{}) },
		"acknowledgement": func(f *h2Fake) error { return f.WriteSettingsAck() },
		"HTTP/1.1": func(f *h2Fake) error {
			_, err := io.WriteString(f.conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return err
		},
	} {
		s := newH2Fake(t, func(f *h2Fake) {
			_ = say(f)
			_ = f.WriteSettings()
			if id, _, _, _ := f.request(); id != 0 {
				serve(f, id)
			}
			f.drain()
		})
		_, err := s.do(t.Context(), get("/"), "")
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) || refused.Reason != protocol.ReasonUpstreamProtocol {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestH2Pending bounds the answers that wait behind a writer that is stuck.
func TestH2Pending(t *testing.T) {
	h := newH2(&conn{}, h2Window)
	h.wmu.Lock()
	for range h2MaxPending {
		if err := h.answer(appendSettingsAck); err != nil {
			if len(h.ctl) < h2MaxPending || len(h.ctl) > h2MaxPending+h2FrameHeader {
				t.Errorf("%d bytes wait", len(h.ctl))
			}
			return
		}
	}
	t.Error("there is no bound")
}

// TestH2AnswerWhileWriting sends what was queued while somebody wrote, once they have.
func TestH2AnswerWhileWriting(t *testing.T) {
	wire := &h2Wire{}
	h := newH2(&conn{rw: wire}, h2Window)
	h.ctl = nil
	wire.during = func() {
		wire.during = func() {}
		if err := h.answer(appendSettingsAck); err != nil {
			t.Error(err)
		}
	}
	if err := h.write([]byte("frames")); err != nil {
		t.Fatal(err)
	}
	if got, want := wire.sent.String(), "frames"+string(appendSettingsAck(nil)); got != want {
		t.Errorf("sent %q, want %q", got, want)
	}
}

// An h2Wire is a connection on which something happens during each write.
type h2Wire struct {
	net.Conn
	during func()
	sent   bytes.Buffer
}

func (w *h2Wire) SetWriteDeadline(time.Time) error { return nil }

func (w *h2Wire) Write(p []byte) (int, error) {
	w.during()
	return w.sent.Write(p)
}

// wantTold checks the code of the GOAWAY. That of a flood may be lost with what the server still sends.
func wantTold(t *testing.T, told chan http2.ErrCode, want http2.ErrCode) {
	t.Helper()
	select {
	case got, ok := <-told:
		if ok && got != want || !ok && want != http2.ErrCodeEnhanceYourCalm {
			t.Errorf("server was told %v, %v, want %v", got, ok, want)
		}
	case <-time.After(5 * time.Second):
		t.Error("the connection was not closed")
	}
}

// TestH2NotAbuse has servers do what is unusual and allowed.
func TestH2NotAbuse(t *testing.T) {
	for _, tt := range []h2Abuse{
		{name: "trimmed value", play: func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200", "a", " x\t") }},
		{name: "no settings but defaults", play: func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "200") }},
		{name: "padding and priority", play: func(f *h2Fake, id uint32) {
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.section(":status", "200"), EndHeaders: true,
				PadLength: 200, Priority: http2.PriorityParam{StreamDep: 5, Weight: 3}})
			_ = f.WriteDataPadded(id, true, []byte("x"), make([]byte, 255))
		}},
		{name: "unknown frames and settings", play: func(f *h2Fake, id uint32) {
			_ = f.WriteRawFrame(0xee, 0xff, id, []byte("?"))
			_ = f.WriteRawFrame(0xa, 0, 0, []byte("\x00\x00h3=\":443\"")) // ALTSVC
			_ = f.WriteSettings(http2.Setting{ID: 0xfefe, Val: 1}, http2.Setting{ID: http2.SettingHeaderTableSize, Val: 0}, http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1<<24 - 1})
			f.headers(id, true, ":status", "200")
		}},
		{name: "a thousand frames in all", play: func(f *h2Fake, id uint32) {
			for range h2MaxIdleFrames - 2 {
				_ = f.WritePing(false, [8]byte{})
			}
			f.headers(id, true, ":status", "200")
		}},
		{name: "head in pieces", play: func(f *h2Fake, id uint32) {
			b := f.section(":status", "200", "a", "b")
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b[:1], EndStream: true})
			for i := range b[1:] {
				_ = f.WriteContinuation(id, i == len(b)-2, b[i+1:i+2])
			}
		}},
		{name: "largest head", play: func(f *h2Fake, id uint32) {
			v := strings.Repeat("a", 64<<10-60)
			f.long(id, ":status", "200", "a", v, "b", v)
		}},
		{name: "head on a dead stream's window", play: func(f *h2Fake, id uint32) {
			f.headers(id, true, ":status", "200")
			_ = f.WriteWindowUpdate(id, 1)
			_ = f.WriteRSTStream(id, http2.ErrCodeNo)
		}},
		{name: "204 with a length", play: func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "204", "content-length", "7") }},
		{name: "304 with a length", play: func(f *h2Fake, id uint32) { f.headers(id, true, ":status", "304", "content-length", "7") }},
		{name: "go away after this one", play: func(f *h2Fake, id uint32) {
			_ = f.WriteGoAway(id, http2.ErrCodeNo, []byte("bye"))
			time.Sleep(10 * time.Millisecond)
			ok(f, id)
			time.Sleep(10 * time.Millisecond)
			_ = f.WriteData(id, true, nil)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			told, head, content := play(t, func(f *h2Fake, id uint32) {
				tt.play(f, id)
				_ = f.conn.(*tls.Conn).CloseWrite()
			})
			if head != nil || content != nil {
				t.Errorf("head %v, content %v", head, content)
			}
			if code, ok := <-told; ok {
				t.Errorf("server was told %v", code)
			}
		})
	}
}
