package http1

import (
	"errors"
	"io"
	"strings"
	"testing"

	"torno.internal/protocol"
)

// The attacks below are messages that parsers are known to read differently (public llhttp and
// smuggling corpora, and our own). Each is refused with the status given, and each table begins with
// the control: the same message without the attack, which is accepted.

type attack struct {
	name, wire string
	status     int // 0: accepted
}

const hostLine = "Host: example.com\r\n"

func post(fields, content string) string {
	return "POST /p HTTP/1.1\r\n" + hostLine + fields + "\r\n" + content
}

func TestAttackSmugglingLength(t *testing.T) {
	runAttacks(t, []attack{
		{"control", post("Content-Length: 5\r\n", "hello"), 0},
		{"control leading zeros", post("Content-Length: 0005\r\n", "hello"), 0},
		{"control white space", post("Content-Length:\t 5 \t\r\n", "hello"), 0},
		{"twice, different", post("Content-Length: 5\r\nContent-Length: 6\r\n", "hello!"), 400},
		{"twice, equal", post("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"), 400},
		{"twice, by case", post("Content-Length: 5\r\ncontent-length: 6\r\n", "hello!"), 400},
		{"list", post("Content-Length: 5, 5\r\n", "hello"), 400},
		{"list, different", post("Content-Length: 5, 6\r\n", "hello!"), 400},
		{"plus sign", post("Content-Length: +5\r\n", "hello"), 400},
		{"minus sign", post("Content-Length: -5\r\n", "hello"), 400},
		{"minus zero", post("Content-Length: -0\r\n", ""), 400},
		{"empty", post("Content-Length:\r\n", ""), 400},
		{"hexadecimal", post("Content-Length: 0x5\r\n", "hello"), 400},
		{"exponent", post("Content-Length: 5e0\r\n", "hello"), 400},
		{"decimal point", post("Content-Length: 5.0\r\n", "hello"), 400},
		{"underscore", post("Content-Length: 1_0\r\n", "hellohello"), 400},
		{"inner space", post("Content-Length: 5 5\r\n", "hello"), 400},
		{"other digits", post("Content-Length: ５\r\n", "hello"), 400},
		{"vertical tab", post("Content-Length: \v5\r\n", "hello"), 400},
		{"no-break space", post("Content-Length: \u00a05\r\n", "hello"), 400},
		{"overflow of 64 bits", post("Content-Length: 18446744073709551621\r\n", "hello"), 400},
		{"overflow of 63 bits", post("Content-Length: 9223372036854775808\r\n", "hello"), 400},
		{"folded", post("Content-Length:\r\n 5\r\n", "hello"), 400},
		{"folded after", post("Content-Length: 5\r\n 6\r\n", "hello"), 400},
		{"space before colon", post("Content-Length : 5\r\n", "hello"), 400},
		{"tab before colon", post("Content-Length\t: 5\r\n", "hello"), 400},
		{"space before name", post(" Content-Length: 5\r\n", "hello"), 400},
		{"NUL in name", post("Content-\x00Length: 5\r\n", "hello"), 400},
		{"NUL in value", post("Content-Length: 5\x00\r\n", "hello"), 400},
		{"no colon", post("Content-Length 5\r\n", "hello"), 400},
	})
}

func TestAttackSmugglingTransferEncoding(t *testing.T) {
	const chunks = "5\r\nhello\r\n0\r\n\r\n"
	runAttacks(t, []attack{
		{"control", post("Transfer-Encoding: chunked\r\n", chunks), 0},
		{"control white space", post("Transfer-Encoding: \t chunked \r\n", chunks), 0},
		{"with length", post("Content-Length: 15\r\nTransfer-Encoding: chunked\r\n", chunks), 400},
		{"with length after", post("Transfer-Encoding: chunked\r\nContent-Length: 15\r\n", chunks), 400},
		{"with length 0", post("Transfer-Encoding: chunked\r\nContent-Length: 0\r\n", chunks), 400},
		{"twice", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", chunks), 400},
		{"twice, then identity", post("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n", chunks), 400},
		{"identity", post("Transfer-Encoding: identity\r\n", ""), 501},
		{"gzip", post("Transfer-Encoding: gzip\r\n", ""), 501},
		{"gzip, chunked", post("Transfer-Encoding: gzip, chunked\r\n", chunks), 501},
		{"chunked, identity", post("Transfer-Encoding: chunked, identity\r\n", chunks), 501},
		{"chunked, chunked", post("Transfer-Encoding: chunked, chunked\r\n", chunks), 501},
		{"comma", post("Transfer-Encoding: ,chunked\r\n", chunks), 501},
		{"suffix", post("Transfer-Encoding: chunkedx\r\n", chunks), 501},
		{"prefix", post("Transfer-Encoding: xchunked\r\n", chunks), 501},
		{"quoted", post("Transfer-Encoding: \"chunked\"\r\n", chunks), 501},
		{"parameter", post("Transfer-Encoding: chunked;q=1\r\n", chunks), 501},
		{"empty", post("Transfer-Encoding:\r\n", chunks), 501},
		{"case", post("Transfer-Encoding: CHUNKED\r\n", chunks), 501},
		{"tab within", post("Transfer-Encoding: chunked\tx\r\n", chunks), 501},
		{"vertical tab", post("Transfer-Encoding:\vchunked\r\n", chunks), 400},
		{"NUL", post("Transfer-Encoding: chunked\x00\r\n", chunks), 400},
		{"folded", post("Transfer-Encoding:\r\n chunked\r\n", chunks), 400},
		{"folded with tab", post("Transfer-Encoding:\r\n\tchunked\r\n", chunks), 400},
		{"folded after", post("Transfer-Encoding: chunked\r\n , identity\r\n", chunks), 400},
		{"space before colon", post("Transfer-Encoding : chunked\r\n", chunks), 400},
		{"line feed before", post("X: y\nTransfer-Encoding: chunked\r\n", chunks), 400},
		{"carriage return before", post("X: y\rTransfer-Encoding: chunked\r\n", chunks), 400},
		{"HTTP/1.0", "POST /p HTTP/1.0\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n" + chunks, 400},
	})
}

func TestAttackSmugglingChunks(t *testing.T) {
	chunked := func(chunks string) string { return post("Transfer-Encoding: chunked\r\n", chunks) }
	runAttacks(t, []attack{
		{"control", chunked("5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n"), 0},
		{"control zeros", chunked("005\r\nhello\r\n000\r\n\r\n"), 0},
		{"control trailer", chunked("0\r\nX-Sum: 5\r\n\r\n"), 0},
		{"extension", chunked("5;a=b\r\nhello\r\n0\r\n\r\n"), 400},
		{"bare semicolon", chunked("5;\r\nhello\r\n0\r\n\r\n"), 400},
		{"extension with line feed", chunked("5;\nhello\r\n0\r\n\r\n"), 400},
		{"extension of the last", chunked("0;a\r\n\r\n"), 400},
		{"space after", chunked("5 \r\nhello\r\n0\r\n\r\n"), 400},
		{"space before", chunked(" 5\r\nhello\r\n0\r\n\r\n"), 400},
		{"0x", chunked("0x5\r\nhello\r\n0\r\n\r\n"), 400},
		{"plus sign", chunked("+5\r\nhello\r\n0\r\n\r\n"), 400},
		{"minus sign", chunked("-5\r\nhello\r\n0\r\n\r\n"), 400},
		{"underscore", chunked("0_5\r\nhello\r\n0\r\n\r\n"), 400},
		{"empty", chunked("\r\nhello\r\n0\r\n\r\n"), 400},
		{"not hexadecimal", chunked("g\r\nhello\r\n0\r\n\r\n"), 400},
		{"overflow", chunked("10000000000000005\r\nhello\r\n0\r\n\r\n"), 400},
		{"sign bit", chunked("ffffffffffffffff\r\nhello\r\n0\r\n\r\n"), 400},
		{"line feed after size", chunked("5\nhello\r\n0\r\n\r\n"), 400},
		{"two carriage returns", chunked("5\r\r\nhello\r\n0\r\n\r\n"), 400},
		{"line feed after data", chunked("5\r\nhello\n0\r\n\r\n"), 400},
		{"data longer", chunked("4\r\nhello\r\n0\r\n\r\n"), 400},
		{"data shorter", chunked("6\r\nhello\r\n0\r\n\r\n"), 400},
		{"no line end after data", chunked("5\r\nhello0\r\n\r\n"), 400},
		{"line feed at the end", chunked("5\r\nhello\r\n0\r\n\n"), 400},
		{"line feed after last", chunked("0\n\r\n"), 400},
		{"endless size line", chunked(strings.Repeat("0", 1<<10)), 400},
		{"length in trailer", chunked("0\r\nContent-Length: 5\r\n\r\n"), 400},
		{"coding in trailer", chunked("0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400},
		{"host in trailer", chunked("0\r\nHost: evil.example\r\n\r\n"), 400},
		{"connection in trailer", chunked("0\r\nConnection: close\r\n\r\n"), 400},
		{"folded trailer", chunked("0\r\nA: b\r\n c\r\n\r\n"), 400},
	})
}

func TestAttackSmugglingRequestLine(t *testing.T) {
	line := func(s string) string { return s + "\r\n" + hostLine + "\r\n" }
	runAttacks(t, []attack{
		{"control", line("GET / HTTP/1.1"), 0},
		{"control after one empty line", "\r\n" + line("GET / HTTP/1.1"), 0},
		{"control absolute", line("GET http://example.com/ HTTP/1.1"), 0},
		{"control CONNECT", line("CONNECT example.com:443 HTTP/1.1"), 0},
		{"two empty lines", "\r\n\r\n" + line("GET / HTTP/1.1"), 400},
		{"empty line of LF", "\n" + line("GET / HTTP/1.1"), 400},
		{"carriage return", "\r" + line("GET / HTTP/1.1"), 400},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"HTTP/0.9 with fields", line("GET /"), 400},
		{"named HTTP/0.9", line("GET / HTTP/0.9"), 505},
		{"HTTP/2.0", line("GET / HTTP/2.0"), 505},
		{"the h2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"HTTP/1.2", line("GET / HTTP/1.2"), 505},
		{"HTTP/1.10", line("GET / HTTP/1.10"), 400},
		{"HTTP/11", line("GET / HTTP/11"), 400},
		{"HTTP/1", line("GET / HTTP/1"), 400},
		{"http/1.1", line("GET / http/1.1"), 400},
		{"RTSP/1.0", line("GET / RTSP/1.0"), 400},
		{"version twice", line("GET / HTTP/1.1 HTTP/1.1"), 400},
		{"space after", line("GET / HTTP/1.1 "), 400},
		{"tab", line("GET\t/ HTTP/1.1"), 400},
		{"two spaces", line("GET  / HTTP/1.1"), 400},
		{"two spaces before version", line("GET /  HTTP/1.1"), 400},
		{"space before", line(" GET / HTTP/1.1"), 400},
		{"line feed alone", "GET / HTTP/1.1\n" + hostLine + "\r\n", 400},
		{"carriage return within", line("GET /\r HTTP/1.1"), 400},
		{"NUL in target", line("GET /\x00 HTTP/1.1"), 400},
		{"bytes beyond ASCII in target", line("GET /é HTTP/1.1"), 400},
		{"fragment", line("GET /#f HTTP/1.1"), 400},
		{"separator in method", line("GE(T / HTTP/1.1"), 400},
		{"no method", line("/ HTTP/1.1"), 400},
		{"long method", line(strings.Repeat("M", protocol.MaxMethod+1) + " / HTTP/1.1"), 501},
		{"long target", line("GET /" + strings.Repeat("p", protocol.MaxPath) + " HTTP/1.1"), 414},
		{"endless line", "GET /" + strings.Repeat("p", 64<<10), 414},
		{"TRACE", line("TRACE / HTTP/1.1"), 501},
		{"asterisk", line("GET * HTTP/1.1"), 400},
		{"relative", line("GET a HTTP/1.1"), 400},
		{"no authority", line("GET http:///a HTTP/1.1"), 400},
		{"user information", line("GET http://a@example.com/ HTTP/1.1"), 400},
		{"backslash", line(`GET http://a\@example.com/ HTTP/1.1`), 400},
		{"CONNECT with path", line("CONNECT example.com:443/ HTTP/1.1"), 400},
		{"CONNECT with content", "CONNECT example.com:443 HTTP/1.1\r\n" + hostLine + "Content-Length: 5\r\n\r\nhello", 400},
		{"CONNECT with chunks", "CONNECT example.com:443 HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TLS on a plain port", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400},
	})
}

func TestAttackSmugglingHost(t *testing.T) {
	get := func(fields string) string { return "GET / HTTP/1.1\r\n" + fields + "\r\n" }
	runAttacks(t, []attack{
		{"control", get(hostLine), 0},
		{"control by target", "GET http://example.com/ HTTP/1.0\r\n\r\n", 0},
		{"absent", get(""), 400},
		{"absent on HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400},
		{"absent beside absolute form", "GET http://example.com/ HTTP/1.1\r\n\r\n", 400},
		{"twice", get(hostLine + "Host: evil.example\r\n"), 400},
		{"twice, equal", get(hostLine + hostLine), 400},
		{"twice, by case", get(hostLine + "hOsT: evil.example\r\n"), 400},
		{"empty", get("Host:\r\n"), 400},
		{"list", get("Host: example.com, evil.example\r\n"), 400},
		{"space within", get("Host: example.com evil.example\r\n"), 400},
		{"user information", get("Host: example.com@evil.example\r\n"), 400},
		{"path", get("Host: example.com/evil\r\n"), 400},
		{"percent-encoded", get("Host: example%2ecom\r\n"), 400},
		{"beyond ASCII", get("Host: exämple.com\r\n"), 400},
		{"long", get("Host: " + strings.Repeat("h", protocol.MaxAuthority+1) + "\r\n"), 400},
		{"folded", get("Host: example.com\r\n evil.example\r\n"), 400},
		{"space before colon", get("Host : example.com\r\n"), 400},
		{"space before name", get(" Host: example.com\r\n" + hostLine), 400},
	})
}

func TestAttackSmugglingFields(t *testing.T) {
	get := func(fields string) string { return "GET / HTTP/1.1\r\n" + hostLine + fields + "\r\n" }
	many := func(n int) string { return strings.Repeat("A: b\r\n", n) }
	runAttacks(t, []attack{
		{"control", get("A: b\r\nA:\r\n"), 0},
		{"control obs-text", get("A: \xff\r\n"), 0},
		{"control many", get(many(protocol.MaxFields - 1)), 0},
		{"too many", get(many(protocol.MaxFields)), 431},
		{"long name", get(strings.Repeat("n", protocol.MaxFieldName+1) + ": b\r\n"), 400},
		{"long value", get("A: " + strings.Repeat("v", protocol.MaxFieldValue+1) + "\r\n"), 431},
		{"endless line", get("A: " + strings.Repeat("v", 256<<10)), 431},
		{"long head", get(strings.Repeat("A: "+strings.Repeat("v", 1<<10)+"\r\n", 130)), 431},
		{"line feeds", "GET / HTTP/1.1\r\nHost: example.com\n\n", 400},
		{"line feed at the end", "GET / HTTP/1.1\r\n" + hostLine + "\n", 400},
		{"carriage return in value", get("A: b\rc\r\n"), 400},
		{"two carriage returns", get("A: b\r\r\n"), 400},
		{"NUL in value", get("A: b\x00c\r\n"), 400},
		{"control byte in value", get("A: b\x01c\r\n"), 400},
		{"DEL in value", get("A: b\x7fc\r\n"), 400},
		{"empty name", get(": b\r\n"), 400},
		{"byte beyond ASCII in name", get("\xc3\x84: b\r\n"), 400},
		{"quote in name", get("\"a\": b\r\n"), 400},
		{"folded first line", "GET / HTTP/1.1\r\n Host: example.com\r\n\r\n", 400},
		{"folded", get("A: b\r\n c\r\n"), 400},
		{"folded empty", get("A: b\r\n \r\n"), 400},
		{"unknown expectation", get("Expect: 200-ok\r\n"), 417},
		{"expectation twice", get("Expect: 100-continue\r\nExpect: 100-continue\r\n"), 417},
	})
}

// TestAttackSmugglingPipelining checks that what follows a message is the next message, never less or
// more, and that nothing spills over from one that ends HTTP on its connection.
func TestAttackSmugglingPipelining(t *testing.T) {
	const second = "GET /second HTTP/1.1\r\nHost: example.com\r\n\r\n"
	for _, first := range []string{
		post("Content-Length: 5\r\n", "hello"),
		post("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
		post("", ""),
		post("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n", ""),
	} {
		for arrival, arrive := range arrivals {
			r := NewReader(arrive(strings.NewReader(first + second)))
			var h RequestHead
			must(t, r.ReadRequest(&h))
			if err := r.ReadRequest(new(RequestHead)); err == nil {
				t.Errorf("%s: the next head was read before the content", arrival)
			}
			_, err := io.Copy(io.Discard, r)
			must(t, err)
			must(t, r.ReadRequest(&h))
			diff(t, h.Path, "/second")
		}
	}
	r := NewReader(strings.NewReader("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n" + second))
	var h RequestHead
	must(t, r.ReadRequest(&h))
	if _, err := r.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("content of CONNECT: %v", err)
	}
	if err := r.ReadRequest(new(RequestHead)); err == nil {
		t.Error("a request was read inside a tunnel")
	}
	diff(t, string(r.TakeBuffered()), second)
}

func TestAttackSmugglingHTTP10KeepAlive(t *testing.T) {
	r := NewReader(strings.NewReader("GET / HTTP/1.0\r\nHost: h\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n"))
	var h RequestHead
	must(t, r.ReadRequest(&h))
	if h.KeepAlive || h.Upgrade != "" {
		t.Errorf("HTTP/1.0 keeps the connection or upgrades it: %+v", h)
	}
}

// TestAttackHTTP10Expect: what must be ignored (RFC 9110 §10.1.1) must not go on either, where it would
// come to life in a request of HTTP/1.1.
func TestAttackHTTP10Expect(t *testing.T) {
	for proto, want := range map[string]int{"HTTP/1.0": 0, "HTTP/1.1": 1} {
		r := NewReader(strings.NewReader("POST / " + proto + "\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx"))
		var h RequestHead
		must(t, r.ReadRequest(&h))
		if n := h.Fields.Count("expect"); n != want || h.ExpectContinue != (want == 1) {
			t.Errorf("%s: %d Expect fields, ExpectContinue %v", proto, n, h.ExpectContinue)
		}
	}
}

// TestAttackFolding spells words with letters that fold to ASCII in Unicode alone, as no other parser does.
func TestAttackFolding(t *testing.T) {
	r := NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: h\r\nX-Key: 1\r\nConnection: clo\u017fe, x-\u212aey, upgrade\r\nUpgrade: websoc\u212aet\r\n\r\n"))
	var h RequestHead
	must(t, r.ReadRequest(&h))
	if !h.KeepAlive || h.Upgrade == "websocket" || StripConnection(h.Fields).Count("x-key") != 1 {
		t.Errorf("folded beyond ASCII: %+v", h)
	}
	r = NewReader(strings.NewReader("HTTP/1.1 200 OK\r\nTransfer-Encoding: chun\u212aed\r\n\r\n0\r\n\r\n"))
	if err := r.ReadResponse(new(ResponseHead), "GET"); err == nil {
		t.Error("a coding was folded beyond ASCII")
	}
}

// TestAttackNominated checks that Connection takes fields away only at this hop, and never the length.
func TestAttackNominated(t *testing.T) {
	f := protocol.Fields{
		{Name: "connection", Value: "Keep-Alive, X-Hop ,content-length"}, {Name: "x-hop", Value: "1"}, {Name: "x-end", Value: "2"},
		{Name: "connection", Value: "te"}, {Name: "te", Value: "trailers"}, {Name: "content-length", Value: "5"},
		{Name: "host", Value: "h"}, {Name: "keep-alive", Value: "1"}, {Name: "upgrade", Value: "h2c"},
	}
	diff(t, StripConnection(f), protocol.Fields{{Name: "x-end", Value: "2"}, {Name: "content-length", Value: "5"}})
}

func runAttacks(t *testing.T, attacks []attack) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			for arrival, arrive := range arrivals {
				r := NewReader(arrive(strings.NewReader(a.wire)))
				var h RequestHead
				err := r.ReadRequest(&h)
				if err == nil && h.Method != "CONNECT" {
					_, err = io.Copy(io.Discard, r)
				}
				var e *Error
				switch {
				case a.status == 0 && err != nil:
					t.Errorf("%s: %v, want none", arrival, err)
				case a.status != 0 && (!errors.As(err, &e) || e.Status != a.status):
					t.Errorf("%s: %v, want status %d", arrival, err, a.status)
				case a.status != 0 && r.Done():
					t.Errorf("%s: the connection may be used again", arrival)
				}
			}
		})
	}
}
