package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A draft is a message in the pieces that mutations change. Each piece stands on the wire as it is.
type draft struct {
	before    string // empty lines
	start     [3]string
	gaps      [2]string // between the parts of the start line
	startEnd  string
	lines     []line
	end       string // the empty line
	content   string // with the framing that the lines announce
	plain     string // the same without framing
	pipelined string
}

// A line is one field line.
type line struct{ name, colon, value, end string }

func (d *draft) String() string {
	var b strings.Builder
	for _, s := range []string{d.before, d.start[0], d.gaps[0], d.start[1], d.gaps[1], d.start[2], d.startEnd} {
		b.WriteString(s)
	}
	for _, l := range d.lines {
		b.WriteString(l.name + l.colon + l.value + l.end)
	}
	b.WriteString(d.end + d.content + d.pipelined)
	return b.String()
}

func (d *draft) add(name, value string) {
	d.lines = append(d.lines, line{name, ": ", value, "\r\n"})
}

// insert adds a line at a random place.
func (d *draft) insert(r *rand.Rand, name, value string) {
	i := r.IntN(len(d.lines) + 1)
	d.lines = append(d.lines[:i:i], append([]line{{name, ": ", value, "\r\n"}}, d.lines[i:]...)...)
}

// line returns the first line of that name, or a random one, or a new one.
func (d *draft) line(r *rand.Rand, name string) *line {
	for i := range d.lines {
		if strings.EqualFold(d.lines[i].name, name) {
			return &d.lines[i]
		}
	}
	if name != "" {
		d.insert(r, name, "")
		return d.line(r, name)
	}
	if len(d.lines) == 0 {
		d.add("a", "b")
	}
	return &d.lines[r.IntN(len(d.lines))]
}

// drop takes away every line of that name.
func (d *draft) drop(name string) {
	kept := d.lines[:0]
	for _, l := range d.lines {
		if !strings.EqualFold(l.name, name) {
			kept = append(kept, l)
		}
	}
	d.lines = kept
}

func pick[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// byLength frames plain by Content-Length.
func (d *draft) byLength(plain string) {
	d.drop("content-length")
	d.drop("transfer-encoding")
	d.add("Content-Length", fmt.Sprint(len(plain)))
	d.content, d.plain = plain, plain
}

// byChunks frames plain in chunks of random sizes.
func (d *draft) byChunks(r *rand.Rand, plain string) {
	d.drop("content-length")
	d.drop("transfer-encoding")
	d.add("Transfer-Encoding", "chunked")
	d.content, d.plain = chunks(r, plain)+"0\r\n\r\n", plain
}

// chunks are the chunks of plain without the last.
func chunks(r *rand.Rand, plain string) string {
	var b strings.Builder
	for plain != "" {
		n := 1 + r.IntN(len(plain))
		fmt.Fprintf(&b, pick(r, "%x\r\n", "%X\r\n", "0%x\r\n"), n)
		b.WriteString(plain[:n] + "\r\n")
		plain = plain[n:]
	}
	return b.String()
}

// Contents look like framing, like heads, like nothing, and like text.
var contents = []string{
	"", "hello", "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", "GET /inner HTTP/1.1\r\nHost: inner.example\r\n\r\n",
	"\r\n", "\n\n", "\x00\xff\x80", "a=b&c=d", `{"a": "b"}`, strings.Repeat("0123456789abcdef", 300),
}

// Values are all allowed, and odd.
var values = []string{
	"", "b", "a b", "a\tb", "a  b", "a,b", ", ,", `"quoted, \" text"`, "caf\xc3\xa9", "caf\xe9", "\x85", "\xa0", "\xff\xfe",
	"a;b=c", "chunked", "5", "close", "a: b", ":", "=?utf-8?q?x?=", "%0d%0a", `\r\n`, "HTTP/1.1 200 OK", "(comment)", "\x80",
	strings.Repeat("v", 4000),
}

// Names are all allowed, and odd.
var names = []string{
	"A", "a", "X-Mixed-Case", "x_under", "x.dot", "!#$%&'*+-.^_`|~09", "Content_Length", "Transfer_Encoding", "X-Content-Length",
	"Content-Lengthx", "Cookie", "Accept", "Authorization", "Set-Cookie", "Date", "From", "Range", "Content-Type", "Content-Encoding",
	"Via", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Host", "0", "__proto__", "constructor", "If-Match", "Priority",
}

// newRequest returns a request that is well formed.
func newRequest(r *rand.Rand) *draft {
	d := &draft{
		start: [3]string{
			pick(r, "GET", "GET", "POST", "POST", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "PROPFIND", "M-SEARCH", "PURGE", "get", "ODD"),
			pick(r, "/", "/p", "/a/b?c=d", "/%2e%2e/x", "/a//b", "//double", "/?", "/a;b=c", "/%00", `/"quoted"`, "/<a>", "/a?b?c", "/a|b^c`{d}", `/a\b`, "/*", "/..", "/a/../b", "/:", "/@host", "/a?http://x/"),
			pick(r, "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"),
		},
		gaps: [2]string{" ", " "}, startEnd: "\r\n", end: "\r\n",
	}
	d.add(pick(r, "Host", "Host", "host", "HOST"), pick(r, "example.com", "example.com", "example.com", "Example.COM", "example.com:8080", "127.0.0.1", "[::1]:80", "a-b.example", "localhost"))
	for range r.IntN(4) {
		d.insert(r, pick(r, names...), pick(r, values...))
	}
	switch r.IntN(5) {
	case 0, 1:
		d.byLength(pick(r, contents...))
	case 2, 3:
		if d.start[2] == "HTTP/1.1" {
			d.byChunks(r, pick(r, contents...))
		}
	}
	return d
}

// newResponse returns a response that is well formed.
func newResponse(r *rand.Rand) *draft {
	d := &draft{
		start: [3]string{
			pick(r, "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.1", "HTTP/1.0"),
			pick(r, "200", "200", "200", "200", "201", "206", "299", "301", "400", "404", "418", "500", "599", "204", "304", "205"),
			pick(r, "OK", "", "Not Found", "caf\xe9", "two  words"),
		},
		gaps: [2]string{" ", " "}, startEnd: "\r\n", end: "\r\n",
	}
	for range r.IntN(4) {
		d.insert(r, pick(r, names...), pick(r, values...))
	}
	switch r.IntN(6) {
	case 0, 1:
		d.byLength(pick(r, contents...))
	case 2, 3:
		if d.start[0] == "HTTP/1.1" {
			d.byChunks(r, pick(r, contents...))
		}
	case 4:
		d.content = pick(r, contents...)
		d.plain = d.content
	}
	return d
}
