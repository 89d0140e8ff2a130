package differential

import (
	"math/rand/v2"
	"strings"
)

// responseMutations fit responses alone.
var responseMutations = []mutation{
	{"version", func(r *rand.Rand, d *draft) {
		d.start[0] = pick(r, "HTTP/1.2", "HTTP/2.0", "HTTP/2", "HTTP/0.9", "HTTP/1.", "HTTP/1", "HTTP/11", "HTTP/1.10", "http/1.1", "ICY", "RTSP/1.0", "", "HTTP", "HTTP /1.1", "HTTP/1.1 HTTP/1.1")
	}},
	{"status", func(r *rand.Rand, d *draft) {
		d.start[1] = pick(r, "20", "2000", "099", "600", "700", "999", "000", "+20", "-200", "2 0", "0200", "2e2", "", "abc", "20x", "200;", "200\t", "\x00200", "100", "102", "103", "199", "101", "204", "205", "304")
	}},
	{"reason", func(r *rand.Rand, d *draft) {
		d.start[2] = pick(r, "", " ", "O\x00K", "O\x01K", "OK\t", "\tOK", "O\rK", "\xff", strings.Repeat("O", 10_000), "O:K", "200 OK")
		d.gaps[1] = pick(r, " ", "", "\t", "  ")
	}},
	{"no_content", func(r *rand.Rand, d *draft) {
		d.start[1] = pick(r, "204", "304", "205", "204", "304")
		switch r.IntN(3) {
		case 0:
			d.byLength(pick(r, contents...))
		case 1:
			d.byChunks(r, pick(r, contents...))
		}
	}},
	{"interim", func(r *rand.Rand, d *draft) {
		for range pick(r, 1, 1, 2, 8, 9) {
			d.before += pick(r, "HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 100\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 199 x\r\n\r\n", "HTTP/1.1 100 Continue\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 100 Continue\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.0 100 Continue\r\n\r\n")
		}
	}},
	{"to_close", func(r *rand.Rand, d *draft) {
		d.drop("content-length")
		d.drop("transfer-encoding")
		d.content = pick(r, contents...)
	}},
	{"http10", func(r *rand.Rand, d *draft) {
		d.start[0] = "HTTP/1.0"
		d.insert(r, "Connection", pick(r, "keep-alive", "close"))
	}},
	{"pipelined", func(r *rand.Rand, d *draft) {
		d.pipelined = pick(r, "", "\r\n") + "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"
	}},
	{"coding_case", withCoding("CHUNKED", "Chunked", "chunKed", "CHUNKED ")},
}
