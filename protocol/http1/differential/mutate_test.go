package differential

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// A mutation makes an attack, or an oddity, of a message that was well formed.
type mutation struct {
	class string
	apply func(r *rand.Rand, d *draft)
}

// framingMutations fit requests and responses.
var framingMutations = []mutation{
	{"none", func(*rand.Rand, *draft) {}},
	{"length_twice", func(r *rand.Rand, d *draft) {
		d.byLength(pick(r, contents...))
		d.insert(r, pick(r, "Content-Length", "content-length", "CONTENT-LENGTH"), pick(r, fmt.Sprint(len(d.content)), "0", "1", "99", ""))
	}},
	{"length_and_coding", func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.insert(r, "Content-Length", pick(r, fmt.Sprint(len(d.content)), fmt.Sprint(len(d.plain)), "0", "5"))
	}},
	{"length_sign", withLength("+%d", "-%d", "-0", "+0", "+ %d", "--%d")},
	{"length_overflow", withLength("18446744073709551616", "1844674407370955162%d", "9223372036854775808", "4294967296", "429496729%d", "99999999999999999999999", "00000000000000000000%d")},
	{"length_radix", withLength("0x%x", "%xh", "0b%b", "0o%o", "%d.0", "%de0", "1_0", "0%o", "%d,", "%d;", "\"%d\"", "\xef\xbc\x95")},
	{"length_zeros", withLength("0%d", "000%d", "000000000000000%d", "0000000000000000000000000%d")},
	{"length_space", withLength(" %d", "%d ", "\t%d", "%d\t", "%d 0", "0 %d", "\v%d", "%d\f", "\u00a0%d", "%d\u0085", "\x85%d", "\xa0%d", "%d\x85", "", " ", "%d\x00", "%d\r")},
	{"length_list", withLength("%[1]d,%[1]d", "%[1]d, %[1]d", "%d, 0", "0,%d", ",%d", "%d;q=1")},
	{"coding_fold", func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.line(r, "transfer-encoding").value = pick(r, "\r\n chunked", "\r\n\tchunked", "\n chunked", "chunked\r\n ", "chunked\r\n , identity", "identity\r\n ,chunked")
	}},
	{"coding_word", withCoding("chunkedx", "xchunked", "chunke", "chunk ed", "\"chunked\"", "chunked;q=1", "gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", ",chunked", "chunked,", " , chunked", "", "cow", "chunked-1")},
	{"coding_case", withCoding("CHUNKED", "Chunked", "chunKed", "chun\u212aed")},
	{"coding_identity", withCoding("identity", "identity, chunked", "chunked, identity", "IDENTITY")},
	{"coding_control", withCoding("\vchunked", "chunked\v", "\fchunked", "\x00chunked", "chunked\x00", "\x1fchunked", "\x7fchunked", "chunked\r", "\rchunked", "chun\x08ked", "\xa0chunked", "\x85chunked")},
	{"coding_tab", withCoding("\tchunked", "chunked\t", "\t chunked \t", "chunked\tx")},
	{"coding_twice", func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.insert(r, pick(r, "Transfer-Encoding", "transfer-encoding", "TE"), pick(r, "chunked", "identity", "", "x", "trailers"))
	}},
	{"coding_name", func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.line(r, "transfer-encoding").name = pick(r, "Transfer-Encoding ", " Transfer-Encoding", "Transfer_Encoding", "Transfer-Encodin", "Transfer\rEncoding", "X: y\nTransfer-Encoding", "X: y\rTransfer-Encoding", "\x00Transfer-Encoding", "Transfer-Encoding\x00", "transfer-encodıng")
	}},
	{"line_bare_lf", func(r *rand.Rand, d *draft) { *pickEnd(r, d) = "\n" }},
	{"line_all_lf", func(_ *rand.Rand, d *draft) {
		d.startEnd, d.end = "\n", "\n"
		for i := range d.lines {
			d.lines[i].end = "\n"
		}
	}},
	{"line_bare_cr", func(r *rand.Rand, d *draft) { *pickEnd(r, d) = pick(r, "\r", "\r\r\n", "\n\r", "\r \n", "\r\n\r") }},
	{"control_byte", func(r *rand.Rand, d *draft) {
		s := pick(r, &d.start[0], &d.start[1], &d.start[2], &d.line(r, "").name, &d.line(r, "").value)
		*s = splice(r, *s, pick(r, "\x00", "\x01", "\b", "\v", "\f", "\r", "\n", "\x1b", "\x1c", "\x7f"))
	}},
	{"space_before_colon", func(r *rand.Rand, d *draft) {
		d.line(r, "").colon = pick(r, " : ", "\t:", " :", "\v:", "\x00:", "\r: ")
	}},
	{"colon", func(r *rand.Rand, d *draft) {
		d.line(r, "").colon = pick(r, "", " ", ":", ":\t", "::", ": : ", " = ", ":\t \t", ";")
	}},
	{"space_first", func(r *rand.Rand, d *draft) {
		if len(d.lines) == 0 {
			d.add("A", "b")
		}
		l := &d.lines[0]
		l.name = pick(r, " ", "\t", "  ", "\v") + l.name
	}},
	{"fold", func(r *rand.Rand, d *draft) {
		d.line(r, "").value += pick(r, "\r\n folded", "\r\n\tfolded", "\r\n ", "\n folded", "\r\n \r\n folded", "\r folded")
	}},
	{"empty_name", func(r *rand.Rand, d *draft) { d.insert(r, "", pick(r, values...)) }},
	{"name_byte", func(r *rand.Rand, d *draft) {
		l := d.line(r, "")
		l.name = splice(r, l.name, pick(r, "(", ")", "<", "@", ",", ";", "\\", "\"", "/", "[", "]", "?", "=", "{", "}", " ", "\t", "\x80", "\xff", "é"))
	}},
	{"no_colon", func(r *rand.Rand, d *draft) {
		d.lines = append([]line{{pick(r, "novalue", "GET / HTTP/1.1", "Content-Length 5", "\x00"), "", "", "\r\n"}}, d.lines...)
	}},
	{"chunk_extension", withChunk("%x;a=b\r\n", "%x;\r\n", "%x ;a\r\n", "%x;a=\"\r\n\"\r\n", "%x;a=\n\r\n", "%x;\x00\r\n", "%x;a\rb\r\n", "%x a\r\n", "%x;"+strings.Repeat("e", 100)+"\r\n")},
	{"chunk_size", withChunk(" %x\r\n", "%x \r\n", "\t%x\r\n", "0x%x\r\n", "+%x\r\n", "-%x\r\n", "%xg\r\n", "g\r\n", "\r\n", "0_%x\r\n", "%x.\r\n", "%x\x00\r\n", "\v%x\r\n", "%x\xa0\r\n", "００%x\r\n")},
	{"chunk_overflow", withChunk("1000000000000000%x\r\n", "ffffffffffffffff\r\n", "fffffffffffffff%x\r\n", "10000000%x\r\n", "00000000000000%x\r\n", "0000000000000000%x\r\n", "000000000000000000000000%x\r\n", "8000000000000000\r\n", "7fffffffffffffff\r\n")},
	{"chunk_line_end", withChunk("%x\n", "%x\r", "%x\r\r\n", "%x\n\r", "%x", "%x\r\n\r\n", "%x\r \n")},
	{"chunk_data_end", func(r *rand.Rand, d *draft) {
		d.byChunks(r, "hello")
		d.content = "5\r\nhello" + pick(r, "\n", "", "\r", "\r\r\n", "\n\r", "!\r\n", "\r\n\r\n", "xx", "\r\nx\r\n", " \r\n") + pick(r, "0\r\n\r\n", "1\r\nx\r\n0\r\n\r\n")
	}},
	{"chunk_last", func(r *rand.Rand, d *draft) {
		d.byChunks(r, "")
		d.content = pick(r, "0\r\n\n", "0\n\n", "0\n\r\n", "0\r\n\r", "0\r\n", "0;a\r\n\r\n", "00\r\n\r\n", "000000000000000000\r\n\r\n", "-0\r\n\r\n", "0 \r\n\r\n", "0\r\n \r\n", "0\r\n\r\n\r\n", "0\r\r\n\r\n", "\r\n\r\n", "0x0\r\n\r\n")
	}},
	{"trailer", func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.content = strings.TrimSuffix(d.content, "\r\n") + pick(r, "X-Sum: 5\r\n", "Host: evil.example\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Authorization: x\r\n", "no colon\r\n", ": v\r\n", "A : b\r\n", "A: b\r\n c\r\n", "A: b\n", "A: b\r", "a\x00: b\r\n", " A: b\r\n", "GET /inner HTTP/1.1\r\n", "X: "+strings.Repeat("t", 5000)+"\r\n") + "\r\n"
	}},
	{"connection", func(r *rand.Rand, d *draft) {
		d.insert(r, pick(r, "Connection", "connection", "Proxy-Connection", "Keep-Alive"), pick(r, "close", "keep-alive", "Close", "keep-alive, close", "close, keep-alive", "x-hop", "a", "content-length", "transfer-encoding", "host", "te", "upgrade", ",", "", "\"close\"", "closed", "timeout=5", "authorization"))
		if r.IntN(2) == 0 {
			d.insert(r, "X-Hop", "1")
		}
	}},
	{"long", func(r *rand.Rand, d *draft) {
		s := pick(r, &d.start[1], &d.start[2], &d.line(r, "").name, &d.line(r, "").value, &d.line(r, "").value)
		*s += strings.Repeat(pick(r, "l", "0", " ", "\t"), pick(r, 200, 250, 8_000, 8_192, 16_000, 17_000, 65_000, 66_000))
	}},
	{"many", func(r *rand.Rand, d *draft) {
		for range pick(r, 50, 99, 120, 240, 300) {
			d.add("X-Many", "1")
		}
	}},
	{"content_cut", func(r *rand.Rand, d *draft) {
		if d.content != "" {
			d.content = d.content[:r.IntN(len(d.content))]
		}
	}},
	{"content_spill", func(r *rand.Rand, d *draft) {
		d.content += pick(r, "GET /spilled HTTP/1.1\r\nHost: spilled.example\r\n\r\n", "\r\n", "\n", "x", "0\r\n\r\n", " ", "\r\n\r\n")
	}},
	{"before", func(r *rand.Rand, d *draft) {
		d.before = pick(r, "\r\n", "\n", "\r\n\r\n", "\r", " ", "\x00", "\t\r\n", "\n\r\n", "\ufeff", "0\r\n\r\n")
	}},
	{"start_gap", func(r *rand.Rand, d *draft) {
		d.gaps[r.IntN(2)] = pick(r, "  ", "\t", " \t", "", "\v", "\r", "\u00a0", "   ", "\f")
	}},
	{"start_end", func(r *rand.Rand, d *draft) {
		d.startEnd = pick(r, " \r\n", "\t\r\n", "\r\r\n", "\n", "\r", "\v\r\n", "\r\n\r\n")
	}},
	{"byte", func(r *rand.Rand, d *draft) { flip(r, d) }},
	{"bytes", func(r *rand.Rand, d *draft) { flip(r, d); flip(r, d) }},
}

// flip changes one byte of a random line.
func flip(r *rand.Rand, d *draft) {
	l := d.line(r, "")
	s := pick(r, &d.start[0], &d.start[1], &d.start[2], &l.name, &l.value, &l.colon, &l.end, &d.content, &d.content)
	b := []byte(*s)
	if len(b) == 0 {
		return
	}
	b[r.IntN(min(len(b), 64))] = pick(r, byte(r.IntN(256)), '\r', '\n', ' ', '\t', ':', 0, ',', ';', '0')
	*s = string(b)
}

// splice puts part somewhere into s.
func splice(r *rand.Rand, s, part string) string {
	i := r.IntN(len(s) + 1)
	return s[:i] + part + s[i:]
}

// pickEnd returns the end of a random line.
func pickEnd(r *rand.Rand, d *draft) *string {
	switch i := r.IntN(len(d.lines) + 2); i {
	case 0:
		return &d.startEnd
	case 1:
		return &d.end
	default:
		return &d.lines[i-2].end
	}
}

func withLength(formats ...string) func(*rand.Rand, *draft) {
	return func(r *rand.Rand, d *draft) {
		d.byLength(pick(r, "", "hello", "0123456789", "0\r\n\r\n"))
		format := pick(r, formats...)
		if strings.Contains(format, "%") {
			format = fmt.Sprintf(format, len(d.content))
		}
		d.line(r, "content-length").value = format
	}
}

func withCoding(words ...string) func(*rand.Rand, *draft) {
	return func(r *rand.Rand, d *draft) {
		d.byChunks(r, pick(r, contents...))
		d.line(r, "transfer-encoding").value = pick(r, words...)
	}
}

func withChunk(formats ...string) func(*rand.Rand, *draft) {
	return func(r *rand.Rand, d *draft) {
		d.byChunks(r, "hello")
		format := pick(r, formats...)
		if strings.Contains(format, "%") {
			format = fmt.Sprintf(format, len("hello"))
		}
		d.content = format + "hello\r\n0\r\n\r\n"
	}
}
