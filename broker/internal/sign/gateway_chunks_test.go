package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strconv"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
)

// A framed is an upload in signed chunks, cut into its parts.
type framed struct {
	chunks [][]byte // each with its first line, and the line break behind it
	tail   []byte   // what is behind the last one
}

// cut cuts content, whose chunks all have size bytes but the last.
func cut(t *testing.T, content []byte) framed {
	t.Helper()
	var f framed
	for {
		line := bytes.Index(content, []byte("\r\n")) + 2
		size, err := strconv.ParseInt(string(content[:bytes.IndexByte(content, ';')]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		end := line
		if size > 0 {
			end += int(size) + 2
		}
		f.chunks = append(f.chunks, bytes.Clone(content[:end]))
		if content = content[end:]; size == 0 {
			f.tail = bytes.Clone(content)
			return f
		}
	}
}

func (f framed) join() []byte { return append(bytes.Join(f.chunks, nil), f.tail...) }

// TestAttack31GatewayChunks changes one thing of an upload in chunks that are signed, with and without a trailer, on its way:
// versitygw takes none of them, so each signature covers what is before it, what it signs, and its place.
func TestAttack31GatewayChunks(t *testing.T) {
	address := startGateway(t)
	now := time.Now().UTC()
	content := append(append(bytes.Repeat([]byte("first "), 8<<10/6+1)[:8<<10], bytes.Repeat([]byte("second"), 8<<10/6+1)[:8<<10]...), "the third"...)
	crc := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(content)))
	length := protocol.Field{Name: "x-amz-decoded-content-length", Value: strconv.Itoa(len(content))}
	coding := protocol.Field{Name: "content-encoding", Value: "aws-chunked"}
	base := wish{method: "PUT", target: "/things/chunks", payload: payloadChunked, content: chunked(content, 8<<10, ""), at: now,
		key: testID + ":" + testSecret, in: scope{"eu-central-1", "s3"}, fields: protocol.Fields{length, coding}}
	trailer := base
	trailer.payload, trailer.content = payloadChunkedTrailer, chunked(content, 8<<10, "x-amz-checksum-crc32:"+crc)
	trailer.fields = append(base.fields.Clone(), protocol.Field{Name: "x-amz-trailer", Value: "x-amz-checksum-crc32"})
	const signature = "chunk-signature="
	spoils := map[string]func(s *signed, f *framed){
		"method": func(s *signed, f *framed) { s.method = "DELETE" },
		"path":   func(s *signed, f *framed) { s.target += "x" },
		"query":  func(s *signed, f *framed) { s.target += "?a=b" },
		"field":  func(s *signed, f *framed) { s.fields = s.fields.Set("content-encoding", "aws-chunked,gzip") },
		"length": func(s *signed, f *framed) { s.fields = s.fields.Set(length.Name, strconv.Itoa(len(content)-1)) },
		"time": func(s *signed, f *framed) {
			s.fields = s.fields.Set("x-amz-date", now.Add(time.Second).Format(awsTime))
		},
		"unsigned instead":    func(s *signed, f *framed) { s.fields = s.fields.Set("x-amz-content-sha256", payloadUnsigned) },
		"unsigned trailer":    func(s *signed, f *framed) { s.fields = s.fields.Set("x-amz-content-sha256", payloadUnsignedTrailer) },
		"seed":                func(s *signed, f *framed) { flip(s.fields) },
		"first signature":     func(s *signed, f *framed) { flipIn(f.chunks[0], signature) },
		"second signature":    func(s *signed, f *framed) { flipIn(f.chunks[1], signature) },
		"third signature":     func(s *signed, f *framed) { flipIn(f.chunks[2], signature) },
		"last signature":      func(s *signed, f *framed) { flipIn(f.chunks[3], signature) },
		"a bit of the first":  func(s *signed, f *framed) { f.chunks[0][200] ^= 1 },
		"a bit of the second": func(s *signed, f *framed) { f.chunks[1][8000] ^= 0x80 },
		"a bit of the third":  func(s *signed, f *framed) { f.chunks[2][len(f.chunks[2])-3] ^= 1 },
		"in another order":    func(s *signed, f *framed) { f.chunks[0], f.chunks[1] = f.chunks[1], f.chunks[0] },
		"one twice":           func(s *signed, f *framed) { f.chunks[1] = bytes.Clone(f.chunks[0]) },
		"one less":            func(s *signed, f *framed) { f.chunks = append(f.chunks[:1], f.chunks[2:]...) },
		"ended early":         func(s *signed, f *framed) { f.chunks = append(f.chunks[:2], f.chunks[3:]...) },
		"two in one": func(s *signed, f *framed) {
			line := bytes.Index(f.chunks[1], []byte("\r\n")) + 2
			whole := append(bytes.Clone(f.chunks[0][:len(f.chunks[0])-2]), f.chunks[1][line:]...)
			f.chunks = append([][]byte{append([]byte("4000"), whole[4:]...)}, f.chunks[2:]...)
		},
		"cut": func(s *signed, f *framed) { f.chunks, f.tail = f.chunks[:2], nil },
	}
	trailing := map[string]func(s *signed, f *framed){
		"trailer's value":     func(s *signed, f *framed) { flipIn(f.tail, "x-amz-checksum-crc32:") },
		"trailer's signature": func(s *signed, f *framed) { flipIn(f.tail, "x-amz-trailer-signature:") },
		"trailer's name": func(s *signed, f *framed) {
			f.tail = bytes.Replace(f.tail, []byte("crc32:"), []byte("crc33:"), 1)
		},
		"another trailer": func(s *signed, f *framed) { f.tail = append([]byte("x-amz-meta-a:b\r\n"), f.tail...) },
		"no signature": func(s *signed, f *framed) {
			f.tail = append(f.tail[:bytes.Index(f.tail, []byte("x-amz-trailer-signature"))], "\r\n"...)
		},
		"no trailer":      func(s *signed, f *framed) { f.tail = []byte("\r\n") },
		"not announced":   func(s *signed, f *framed) { s.fields = s.fields.Del("x-amz-trailer") },
		"none expected":   func(s *signed, f *framed) { s.fields = s.fields.Set("x-amz-content-sha256", payloadChunked) },
		"other announced": func(s *signed, f *framed) { s.fields = s.fields.Set("x-amz-trailer", "x-amz-checksum-crc32c") },
	}
	try := func(name string, w wish, spoil func(*signed, *framed)) {
		t.Run(name, func(t *testing.T) {
			w.target += "-" + strings.NewReplacer(" ", "-", "'", "").Replace(name)
			s := w.sign(t, address)
			f := cut(t, s.content)
			spoil(s, &f)
			s.content = f.join()
			status, answer := s.send(t, address)
			if control := strings.HasPrefix(name, "control"); control != (status == 200) || !control && (status < 400 || status >= 500) {
				t.Errorf("%d: %s", status, answer)
			}
			t.Logf("%d", status)
			if status == 200 {
				return
			}
			get := wish{method: "GET", target: w.target, at: now, key: w.key, in: w.in}
			if status, _ := get.sign(t, address).send(t, address); status != 404 {
				t.Errorf("what was refused is there: %d", status)
			}
		})
	}
	try("control", base, func(*signed, *framed) {})
	try("control with a trailer", trailer, func(*signed, *framed) {})
	for name, spoil := range spoils {
		try(name, base, spoil)
		try("trailer, "+name, trailer, spoil)
	}
	for name, spoil := range trailing {
		try(name, trailer, spoil)
	}
}
