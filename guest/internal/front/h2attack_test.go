package front

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"torno.internal/protocol"
)

// An h2Disagreement is one request on one connection, and what comes of it.
type h2Disagreement struct {
	name   string
	fields []string
	want   string
}

// getH2 returns the fields of a plain GET, with others behind.
func getH2(others ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/"}, others...)
}

// with returns fields with another value for one of them.
func with(fields []string, name, value string) []string {
	fields = slices.Clone(fields)
	fields[slices.Index(fields, name)+1] = value
	return fields
}

// without returns fields without one of them.
func without(fields []string, name string) []string {
	i := slices.Index(fields, name)
	return slices.Delete(slices.Clone(fields), i, i+2)
}

func (h *house) h2refuse(t *testing.T, cases []h2Disagreement) {
	t.Helper()
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			before := h.asked.Load()
			conn := h.h2raw("a.example")
			if got := conn.ask(c.fields...); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			if reached := h.asked.Load() - before; (reached == 1) != (c.want == "200") {
				t.Errorf("%d exchanges reached the broker", reached)
			}
			if got := conn.ask(getH2()...); got != "200" && !strings.Contains(c.want, "GOAWAY") {
				t.Errorf("then another request: %q", got)
			}
		})
	}
}

// SNI, :authority and host name one authority, under the scheme that is spoken, or the request is refused.
func TestAttack11DisagreementH2(t *testing.T) {
	h := newHouse(t)
	h.h2refuse(t, []h2Disagreement{
		{"all agree", getH2(), "200"},
		{"host, too", getH2("host", "A.example:443"), "200"},
		{"host alone", without(getH2("host", "a.example"), ":authority"), "200"},
		{"authority differs", with(getH2(), ":authority", "b.example"), "421 misdirected"},
		{"below the name", with(getH2(), ":authority", "x.a.example"), "421 misdirected"},
		{"another port", with(getH2(), ":authority", "a.example:8443"), "421 misdirected"},
		{"host differs", getH2("host", "b.example"), "421 misdirected"},
		{"host alone differs", without(getH2("host", "b.example"), ":authority"), "421 misdirected"},
		{"host and authority differ", with(getH2("host", "b.example"), ":authority", "b.example"), "421 misdirected"},
		{"two hosts", getH2("host", "a.example", "host", "a.example"), "400 bad_request PROTOCOL_ERROR"},
		{"two authorities", getH2(":authority", "a.example"), "400 bad_request PROTOCOL_ERROR"},
		{"none", without(getH2(), ":authority"), "400 bad_authority"},
		{"userinfo", with(getH2(), ":authority", "u@a.example"), "400 bad_authority"},
		{"list", with(getH2(), ":authority", "a.example,b.example"), "400 bad_authority"},
		{"path in it", with(getH2(), ":authority", "a.example/x"), "400 bad_authority"},
		{"number", with(getH2(), ":authority", "0x7f.1"), "400 bad_authority"},
		{"CONNECT", []string{":method", "CONNECT", ":authority", "a.example:443"}, "400 bad_request"},
		{"extended CONNECT", append([]string{":protocol", "websocket"}, with(getH2(), ":method", "CONNECT")...), "400 bad_request PROTOCOL_ERROR"},
		{"another scheme", with(getH2(), ":scheme", "http"), "400 bad_request"},
		{"scheme in capitals", with(getH2(), ":scheme", "HTTPS"), "400 bad_request"},
	})
}

// The broker's own scheme (attack 41).
func TestAttack41SchemeTornoH2(t *testing.T) {
	h := newHouse(t)
	h.h2refuse(t, []h2Disagreement{
		{"scheme", with(getH2(), ":scheme", "torno"), "400 bad_request"},
		{"scheme and authority", with(with(getH2(), ":scheme", "torno"), ":authority", "broker"), "400 bad_request"},
		{"absolute path", with(getH2(), ":path", "torno://broker/v1/leaf"), "400 bad_request"},
	})
}

// What another parser might read as two messages, two fields or another request.
func TestAttack18SmugglingH2(t *testing.T) {
	h := newHouse(t)
	malformed := "400 bad_request PROTOCOL_ERROR"
	cases := []h2Disagreement{
		{"spaces in the path", with(getH2(), ":path", "/ HTTP/1.1"), "400 bad_request"},
		{"fragment", with(getH2(), ":path", "/#x"), "400 bad_request"},
		{"bytes above ASCII", with(getH2(), ":path", "/\xc3\xa4"), "400 bad_request"},
		{"absolute form", with(getH2(), ":path", "https://b.example/"), "400 bad_request"},
		{"asterisk", with(with(getH2(), ":path", "*"), ":method", "OPTIONS"), "400 bad_request"},
		{"spaces in the method", with(getH2(), ":method", "GET /x"), "400 bad_request"},
		{"long path", with(getH2(), ":path", "/"+strings.Repeat("x", protocol.MaxPath)), "400 bad_request"},
		{"long value", getH2("x", strings.Repeat("x", protocol.MaxFieldValue+1)), "400 bad_request"},
		{"many fields", getH2(slices.Repeat([]string{"x", "1"}, protocol.MaxFields+1)...), "400 bad_request"},
		{"large head", getH2(slices.Repeat([]string{"x", strings.Repeat("a", 5000)}, 30)...), "400 bad_request"},
		{"bomb", getH2(slices.Repeat([]string{"x", strings.Repeat("x", 4000)}, 2000)...), "400 bad_request"},
		{"no path", without(getH2(), ":path"), malformed},
		{"empty path", with(getH2(), ":path", ""), malformed},
		{"two paths", getH2(":path", "/x"), malformed},
		{"pseudo-field last", append(without(getH2("x", "1"), ":path"), ":path", "/"), malformed},
		{"unknown pseudo-field", append([]string{":x", "1"}, getH2()...), malformed},
		{"status", append([]string{":status", "200"}, getH2()...), malformed},
		{"content that does not come", getH2("content-length", "7"), malformed},
		{"two lengths", getH2("content-length", "0", "content-length", "0"), malformed},
		{"signed length", getH2("content-length", "+0"), malformed},
		{"te", getH2("te", "gzip"), malformed},
	}
	for _, value := range []string{"a\r\nx: 1", "a\nb", "a\rb", "a\x00b", " a", "a\t", "\x7f"} {
		cases = append(cases, h2Disagreement{fmt.Sprintf("value %q", value), getH2("x", value), malformed},
			h2Disagreement{fmt.Sprintf("path %q", value), with(getH2(), ":path", "/"+value+"\r"), malformed},
			h2Disagreement{fmt.Sprintf("authority %q", value), with(getH2(), ":authority", value), malformed})
	}
	for _, name := range []string{"X", "x y", "x:", "x\r\ny", "", "x\x00", "\xc3\xa4"} {
		cases = append(cases, h2Disagreement{fmt.Sprintf("name %q", name), getH2(name, "1"), malformed})
	}
	for _, name := range append([]string{"Transfer-Encoding"}, protocol.ConnectionFields...) {
		if name != "host" {
			cases = append(cases, h2Disagreement{name, getH2(name, "chunked"), malformed})
		}
	}
	h.h2refuse(t, cases)
}

// Content that is not as long as announced, and trailers that are none, never end a request.
func TestAttack18ContentH2(t *testing.T) {
	h := newHouse(t)
	post := with(getH2("content-length", "7"), ":method", "POST")
	for name, c := range map[string]struct {
		send func(c *h2raw)
		want string
	}{
		"as long": {func(c *h2raw) { _ = c.framer.WriteData(c.id, true, []byte("content")) }, "200"},
		"in pieces": {func(c *h2raw) {
			_ = c.framer.WriteData(c.id, false, []byte("con"))
			_ = c.framer.WriteData(c.id, true, []byte("tent"))
		}, "200"},
		"padded":   {func(c *h2raw) { _ = c.framer.WriteDataPadded(c.id, true, []byte("content"), make([]byte, 200)) }, "200"},
		"shorter":  {func(c *h2raw) { _ = c.framer.WriteData(c.id, true, []byte("conten")) }, "400 bad_request PROTOCOL_ERROR"},
		"longer":   {func(c *h2raw) { _ = c.framer.WriteData(c.id, true, []byte("content!")) }, "400 bad_request PROTOCOL_ERROR"},
		"none":     {func(c *h2raw) { _ = c.framer.WriteData(c.id, true, nil) }, "400 bad_request PROTOCOL_ERROR"},
		"trailers": {func(c *h2raw) { _ = c.framer.WriteData(c.id, false, []byte("content")); _ = c.section(true, "x", "1") }, "200"},
		"no end":   {func(c *h2raw) { _ = c.section(false, "x", "1") }, "400 bad_request PROTOCOL_ERROR"},
		"early":    {func(c *h2raw) { _ = c.section(true, "x", "1") }, "400 bad_request PROTOCOL_ERROR"},
		"pseudo": {func(c *h2raw) {
			_ = c.framer.WriteData(c.id, false, []byte("content"))
			_ = c.section(true, ":path", "/")
		}, "400 bad_request PROTOCOL_ERROR"},
		"connection": {func(c *h2raw) {
			_ = c.framer.WriteData(c.id, false, []byte("content"))
			_ = c.section(true, "transfer-encoding", "chunked")
		}, "400 bad_request PROTOCOL_ERROR"},
		"CR LF": {func(c *h2raw) {
			_ = c.framer.WriteData(c.id, false, []byte("content"))
			_ = c.section(true, "x", "a\r\nb")
		}, "400 bad_request PROTOCOL_ERROR"},
	} {
		conn := h.h2raw("a.example")
		_ = conn.headers(false, post...)
		c.send(conn)
		if got := conn.outcome(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if got := conn.ask(getH2()...); got != "200" {
			t.Errorf("%s, then another request: %q", name, got)
		}
	}
}

// Frames where they do not belong end the connection, and no exchange of them is made.
func TestAttack19FramesH2(t *testing.T) {
	h := newHouse(t)
	for name, c := range map[string]struct {
		send func(c *h2raw)
		want string
	}{
		"even stream":        {func(c *h2raw) { c.id = 2; _ = c.section(true, getH2()...) }, "GOAWAY PROTOCOL_ERROR"},
		"stream 0":           {func(c *h2raw) { _ = c.section(true, getH2()...) }, "GOAWAY PROTOCOL_ERROR"},
		"DATA first":         {func(c *h2raw) { _ = c.framer.WriteData(1, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		"CONTINUATION first": {func(c *h2raw) { _ = c.framer.WriteContinuation(1, true, nil) }, "GOAWAY PROTOCOL_ERROR"},
		"PUSH_PROMISE": {func(c *h2raw) {
			_ = c.framer.WritePushPromise(http2.PushPromiseParam{StreamID: 1, PromiseID: 2, EndHeaders: true})
		}, "GOAWAY PROTOCOL_ERROR"},
		"DATA within a head": {func(c *h2raw) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(getH2()...), EndStream: true})
			_ = c.framer.WriteData(1, true, nil)
		}, "GOAWAY PROTOCOL_ERROR"},
		"another's CONTINUATION": {func(c *h2raw) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(getH2()...), EndStream: true})
			_ = c.framer.WriteContinuation(3, true, nil)
		}, "GOAWAY PROTOCOL_ERROR"},
		"not HPACK": {func(c *h2raw) {
			_ = c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0xff, 0xff, 0xff}, EndStream: true, EndHeaders: true})
		}, "GOAWAY COMPRESSION_ERROR"},
		"large frame":     {func(c *h2raw) { _ = c.framer.WriteRawFrame(http2.FrameData, 0, 1, make([]byte, 1<<15)) }, "GOAWAY FRAME_SIZE_ERROR"},
		"window overflow": {func(c *h2raw) { _ = c.framer.WriteWindowUpdate(0, 1<<31-1) }, "GOAWAY FLOW_CONTROL_ERROR"},
		"huge window": {func(c *h2raw) {
			_ = c.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 31})
		}, "GOAWAY FLOW_CONTROL_ERROR"},
		"table size too large": {func(c *h2raw) {
			c.enc.SetMaxDynamicTableSizeLimit(1 << 20)
			c.enc.SetMaxDynamicTableSize(1 << 20)
			c.id = 1
			_ = c.section(true, getH2()...)
		}, "GOAWAY COMPRESSION_ERROR"},
		"unknown frame": {func(c *h2raw) {
			_ = c.framer.WriteRawFrame(0xbb, 0xff, 1, []byte("x"))
			_ = c.headers(true, getH2()...)
		}, "200"},
	} {
		conn := h.h2raw("a.example")
		c.send(conn)
		if got := conn.outcome(); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	if n := h.asked.Load(); n != 1 {
		t.Errorf("%d exchanges reached the broker", n)
	}
}

// Nothing that a client says in a head comes out as what the wire would refuse, or as two fields.
func FuzzH2Head(f *testing.F) {
	seed := &h2raw{}
	seed.enc = hpack.NewEncoder(&seed.block)
	f.Add(slices.Clone(seed.encode(getH2("cookie", "a", "cookie", "b", "content-length", "7")...)), false)
	f.Add(slices.Clone(seed.encode(getH2("te", "trailers")...)), true)
	f.Fuzz(func(t *testing.T, block []byte, end bool) {
		var head h2Head
		dec := hpack.NewDecoder(h2TableSize, head.add)
		if _, err := dec.Write(block); err != nil || dec.Close() != nil || head.finish(end) != nil {
			return
		}
		if len(head.Fields) > protocol.MaxFields || head.size > protocol.MaxHead {
			t.Errorf("head of %d fields, %d bytes", len(head.Fields), head.size)
		}
		c := &conn{scheme: "https", name: "a.example", port: 443, http2: true}
		if c.request(&head.RequestHead) != nil {
			return
		}
		if c.req.Authority != "a.example:443" || c.req.Scheme != "https" || !protocol.IsPath(c.req.Path) {
			t.Errorf("%s://%s%s", c.req.Scheme, c.req.Authority, c.req.Path)
		}
		for _, l := range c.req.Fields {
			if protocol.IsConnectionField(l.Name) || strings.ToLower(l.Name) != l.Name || !protocol.IsToken(l.Name) || !protocol.IsFieldValue(l.Value) {
				t.Errorf("field %q: %q", l.Name, l.Value)
			}
		}
		if c.req.Fields.Count("cookie") > 1 || c.req.Fields.Count("content-length") > 1 {
			t.Errorf("fields %v", c.req.Fields)
		}
	})
}
