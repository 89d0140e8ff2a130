package differential

import (
	"math/rand/v2"
	"strings"
)

// requestMutations fit requests alone.
var requestMutations = []mutation{
	{"method", func(r *rand.Rand, d *draft) {
		d.start[0] = pick(r, "TRACE", "CONNECT", "PRI", "get", "Get", "", "G\xc9T", "GE(T", "GET/", "!#$%&'*+-.^_`|~", strings.Repeat("M", 33), "SOURCE", "M-SEARCH", "HEAD", "QUERY")
	}},
	{"version", func(r *rand.Rand, d *draft) {
		d.start[2] = pick(r, "HTTP/1.2", "HTTP/2.0", "HTTP/0.9", "HTTP/3.0", "HTTP/1.9", "HTTP/1.", "HTTP/1", "HTTP/11", "HTTP/1.10", "HTTP/01.1", "HTTP/1.01", "http/1.1", "Http/1.1", "HTTP /1.1", "HTTP/ 1.1", "HTTP/1 .1", "HTTP/+1.1", "HTTPS/1.1", "RTSP/1.0", "ICE/1.0", "HTTP/1,1", "HTTP/1.1x", "HTTP/1.1 x", "HTP/1.1", "HTTP//1.1", "/1.1")
	}},
	{"no_version", func(r *rand.Rand, d *draft) { d.start[2], d.gaps[1] = "", pick(r, "", " ") }},
	{"http09", func(r *rand.Rand, d *draft) {
		*d = draft{start: [3]string{"GET", pick(r, "/", "/p"), ""}, gaps: [2]string{" ", ""}, startEnd: pick(r, "\r\n", "\n", "\r\n\r\n")}
	}},
	{"http10", func(r *rand.Rand, d *draft) {
		d.start[2] = "HTTP/1.0"
		d.insert(r, "Connection", pick(r, "keep-alive", "Keep-Alive", "close", "upgrade", "x-hop"))
	}},
	{"target_absolute", func(r *rand.Rand, d *draft) {
		d.start[1] = pick(r, "http://example.com", "http://example.com/", "http://example.com/p?q", "HTTP://EXAMPLE.com/p", "http://evil.example/", "http://example.com:80/", "http://example.com:8080/p", "http://example.com?q", "http://user@example.com/", "http:///p", "http://", "http:/p", "http:p", "https://example.com/", "ftp://example.com/", "://example.com/", "http://example.com:/", "http://[::1]/p", "http://example.com//p", "http://exam ple.com/", "http://example.com\\@evil.example/", "http://example.com%00/", "1http://example.com/", "h-t.t+p://example.com/p", "http://example.com:443/", "x:/p", "http://EXAMPLE.COM/p")
	}},
	{"target_other", func(r *rand.Rand, d *draft) {
		d.start[1] = pick(r, "*", "*/", "example.com:443", "example.com", "a/b", "?q", "/p#f", "#", "/p#", "/\xc3\xa9", "/\xff", "/a b", "/a\tb", "/\x01", "/\x7f", "", "/a\x00b", "\\p", ":443", "/%", "/%zz", "/%0d%0aX:%20y", "///", "/\\", "/../../x", "/./", "/;", "/a%2fb")
		if r.IntN(4) == 0 {
			d.start[0] = pick(r, "OPTIONS", "CONNECT")
		}
	}},
	{"host_absent", func(_ *rand.Rand, d *draft) { d.drop("host") }},
	{"host_twice", func(r *rand.Rand, d *draft) {
		d.insert(r, pick(r, "Host", "host", "hOsT", "Host ", " Host", "X-Host"), pick(r, "example.com", "evil.example", "", "example.com:80"))
	}},
	{"host_value", func(r *rand.Rand, d *draft) {
		d.line(r, "host").value = pick(r, "", " ", "user@example.com", "example.com:", "example.com:80:81", "example.com:0", "example.com:99999", "example.com:080", "example.com:+80", "example.com: 80", "example.com:80 ", "example.com/p", "example.com?q", "example.com#f", "example%2ecom", "example.com,evil.example", "example.com evil.example", "ex\xe4mple.com", "\xc3\xa9.example", "example.com.", ".example.com", "example..com", "[::1", "::1", "[::1]", "[::1%25eth0]", "[::ffff:127.0.0.1]", "0x7f.1", "127.1", "0177.0.0.1", "-a.example", "a_b.example", "*", "http://example.com", strings.Repeat("h", 300), "example.com\x00", "\"example.com\"", "example.com;a", "(example.com)", "example.com|evil", "exa{m}ple.com")
	}},
	{"expect", func(r *rand.Rand, d *draft) {
		d.insert(r, "Expect", pick(r, "100-continue", "100-Continue", "200-ok", "", "100-continue, 200-ok", "100-continue;q=1", "\"100-continue\"", "100-continue "))
		if r.IntN(4) == 0 {
			d.insert(r, "Expect", "100-continue")
		}
	}},
	{"upgrade", func(r *rand.Rand, d *draft) {
		d.insert(r, "Upgrade", pick(r, "h2c", "websocket", "H2C", "TLS/1.0", "h2c, websocket", "", "a b"))
		if r.IntN(4) > 0 {
			d.insert(r, "Connection", pick(r, "Upgrade", "upgrade, http2-settings", "UPGRADE", "keep-alive, Upgrade"))
		}
		if r.IntN(2) == 0 {
			d.insert(r, "HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")
		}
	}},
	{"content_on_get", func(r *rand.Rand, d *draft) {
		d.start[0] = pick(r, "GET", "HEAD", "DELETE", "OPTIONS")
		if r.IntN(2) == 0 {
			d.byLength(pick(r, contents...))
			return
		}
		d.byChunks(r, pick(r, contents...))
	}},
	{"pipelined", func(r *rand.Rand, d *draft) {
		d.pipelined = pick(r, "\r\n", "", "\n", "\r\n\r\n") + pick(r, "GET /second HTTP/1.1\r\nHost: second.example\r\n\r\n", "POST /second HTTP/1.1\r\nHost: second.example\r\nContent-Length: 3\r\n\r\nabc", "GET /second HTTP/1.1\r\nHost: second.example\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n")
	}},
}

// newInput returns the i-th input of a seed and what was done to it.
func newInput(seed, i uint64, fresh func(*rand.Rand) *draft, mutations []mutation) (wire, classes string) {
	r := rand.New(rand.NewPCG(seed, i))
	d := fresh(r)
	m := mutations[i%uint64(len(mutations))]
	m.apply(r, d)
	classes = m.class
	for r.IntN(4) == 0 && len(d.lines) > 0 {
		m = mutations[r.IntN(len(mutations))]
		m.apply(r, d)
		classes += "+" + m.class
	}
	return d.String(), classes
}
