package sign

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/secret"
)

// startGateway starts versitygw, an object store that verifies every signature, with the bucket "things" in it, and
// returns its address.
func startGateway(t *testing.T) string {
	t.Helper()
	program, err := filepath.Abs("../../../.cache/versitygw/versitygw")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("versitygw is not built (make client-deps)")
		}
		t.Skip("versitygw is not built (try: make client-deps)")
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "things"), 0o755); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := ln.Addr().String()
	ln.Close()
	cmd := exec.Command(program, "--port", address, "--region", "eu-central-1", "--quiet", "posix", dir)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+testID, "ROOT_SECRET_ACCESS_KEY="+testSecret)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("the gateway does not listen")
	return ""
}

// A signed is a request as it goes out, with its proof.
type signed struct {
	method, host, target string
	fields               protocol.Fields
	content              []byte
}

// A wish is a request that is to be signed for the gateway.
type wish struct {
	method, target, payload string
	content                 []byte
	fields                  protocol.Fields
	at                      time.Time
	key                     string
	in                      scope
}

// sign signs w as the broker does.
func (w wish) sign(t *testing.T, host string) *signed {
	t.Helper()
	s := newTestSigner(t, "sigv4:service="+w.in.service+",region="+w.in.region)
	r := &Request{Method: w.method, Host: host, Target: w.target, Fields: w.fields.Clone(), Presign: true}
	if !strings.Contains(w.target, "X-Amz-") {
		r.Fields = append(r.Fields, claimed(w.in, "host"))
	}
	if w.payload != "" {
		r.Fields = append(r.Fields, protocol.Field{Name: "x-amz-content-sha256", Value: w.payload})
	} else {
		r.Content, r.Whole = w.content, true
	}
	p, err := s.Plan(r)
	if err != nil {
		t.Fatal(err)
	}
	r.Fields = r.Fields.DelFunc(func(f protocol.Field) bool { return s.Strip(f.Name) })
	proof, err := p.Sign(secret.New([]byte(w.key)), r, w.at)
	if err != nil {
		t.Fatal(err)
	}
	out := &signed{method: w.method, host: host, target: w.target, fields: r.Fields, content: w.content}
	for name, value := range fieldsOf(proof) {
		if name == Target {
			out.target = value
			continue
		}
		out.fields = append(out.fields, protocol.Field{Name: name, Value: value})
	}
	if proof.Content != nil {
		var b bytes.Buffer
		c := proof.Content(&b)
		if _, err := c.Write(w.content); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		out.content = b.Bytes()
	}
	return out
}

// send sends a request as it stands and returns the answer's status and content.
func (s *signed) send(t *testing.T, address string) (int, string) {
	t.Helper()
	path, query, _ := strings.Cut(s.target, "?")
	req, err := http.NewRequest(s.method, "http://"+address+"/", bytes.NewReader(s.content))
	if err != nil {
		t.Fatal(err)
	}
	req.URL.Opaque, req.URL.RawQuery, req.Host = path, query, s.host
	for _, f := range s.fields {
		req.Header.Add(f.Name, f.Value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// chunked frames content in signed chunks as an SDK does, with signatures that are worth nothing.
func chunked(content []byte, size int, trailer string) []byte {
	var b bytes.Buffer
	signature := ";chunk-signature=" + strings.Repeat("0", 64) + "\r\n"
	for len(content) > 0 {
		n := min(size, len(content))
		fmt.Fprintf(&b, "%x%s%s\r\n", n, signature, content[:n])
		content = content[n:]
	}
	b.WriteString("0" + signature)
	if trailer != "" {
		b.WriteString(trailer + "\r\nx-amz-trailer-signature:" + strings.Repeat("0", 64) + "\r\n")
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// presignedWish is the query of a request that was signed there at a time.
func presignedWish(at time.Time) string {
	return "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + inert + "%2F" + at.Format(awsDay) + "%2Feu-central-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=" + at.Format(awsTime) + "&X-Amz-Expires=300&X-Amz-SignedHeaders=host&X-Amz-Signature=" + emptyHash
}

// TestGatewayTakes has versitygw verify every form of signature.
func TestGatewayTakes(t *testing.T) {
	address := startGateway(t)
	now := time.Now().UTC()
	content := bytes.Repeat([]byte("content "), 20000)
	base := wish{method: "PUT", target: "/things/a", content: content, at: now, key: testID + ":" + testSecret, in: scope{"eu-central-1", "s3"}}
	length := protocol.Field{Name: "x-amz-decoded-content-length", Value: strconv.Itoa(len(content))}
	coding := protocol.Field{Name: "content-encoding", Value: "aws-chunked"}
	crc := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(content)))
	for name, change := range map[string]func(*wish){
		"digest":   func(*wish) {},
		"unsigned": func(w *wish) { w.payload = payloadUnsigned },
		"fields": func(w *wish) {
			w.fields = protocol.Fields{{Name: "x-amz-meta-a", Value: `"a   b"  c`}, {Name: "content-type", Value: "text/plain; charset=utf-8"}}
		},
		"names":  func(w *wish) { w.target = "/things/a%20b/" + escape("ü+&=~*'()!$,:;@世") },
		"digits": func(w *wish) { w.target = "/things/%c3%bc" },
		"chunks": func(w *wish) {
			w.payload, w.content, w.fields = payloadChunked, chunked(content, 64<<10, ""), protocol.Fields{length, coding}
		},
		"smaller": func(w *wish) {
			w.payload, w.content, w.fields = payloadChunked, chunked(content, 8<<10, ""), protocol.Fields{length, coding}
		},
		"trailer": func(w *wish) {
			w.payload, w.content = payloadChunkedTrailer, chunked(content, 64<<10, "x-amz-checksum-crc32:"+crc)
			w.fields = protocol.Fields{length, coding, {Name: "x-amz-trailer", Value: "x-amz-checksum-crc32"}}
		},
		"presigned": func(w *wish) { w.target += "?" + presignedWish(now) },
	} {
		t.Run(name, func(t *testing.T) {
			w := base
			change(&w)
			if status, answer := w.sign(t, address).send(t, address); status != 200 {
				t.Fatalf("%d %s", status, answer)
			}
			get := wish{method: "GET", target: strings.Split(w.target, "?")[0], at: now, key: base.key, in: base.in}
			if status, answer := get.sign(t, address).send(t, address); status != 200 || answer != string(content) {
				t.Errorf("back: %d, %d bytes", status, len(answer))
			}
		})
	}
	list := wish{method: "GET", target: "/things?list-type=2&prefix=a+b%2F&delimiter=%2F&max-keys=3", at: now, key: base.key, in: base.in}
	if status, answer := list.sign(t, address).send(t, address); status != 200 || !strings.Contains(answer, "<ListBucketResult") {
		t.Errorf("list: %d %s", status, answer)
	}
}

// TestAttack31Gateway changes one thing of a signed request on its way: versitygw takes none of them, so the signature
// covers each, and the verifier verifies.
func TestAttack31Gateway(t *testing.T) {
	address := startGateway(t)
	now := time.Now().UTC()
	content := []byte("content of one thing")
	base := wish{method: "PUT", target: "/things/a?x-id=PutObject", content: content, at: now, key: testID + ":" + testSecret,
		in: scope{"eu-central-1", "s3"}, fields: protocol.Fields{{Name: "x-amz-meta-a", Value: "b"}}}
	same := func(*signed) {}
	chunks := func(w *wish) {
		w.payload, w.content = payloadChunked, chunked(content, 8<<10, "")
		w.fields = protocol.Fields{{Name: "x-amz-decoded-content-length", Value: strconv.Itoa(len(content))}}
	}
	presign := func(w *wish) { w.target = "/things/a?" + presignedWish(now) }
	asIs := func(*wish) {}
	for name, c := range map[string]struct {
		wish  func(*wish)
		spoil func(*signed)
		want  int
	}{
		"control":           {asIs, same, 200},
		"control chunks":    {chunks, same, 200},
		"control presigned": {presign, same, 200},
		"method":            {asIs, func(s *signed) { s.method = "DELETE" }, 403},
		"host":              {asIs, func(s *signed) { s.host = "127.0.0.2" + s.host[strings.IndexByte(s.host, ':'):] }, 403},
		"path":              {asIs, func(s *signed) { s.target = strings.Replace(s.target, "/a", "/b", 1) }, 403},
		"query":             {asIs, func(s *signed) { s.target += "x" }, 403},
		"query, more":       {asIs, func(s *signed) { s.target += "&acl=" }, 403},
		"field":             {asIs, func(s *signed) { s.fields = s.fields.Set("x-amz-meta-a", "c") }, 403},
		"field, more":       {asIs, func(s *signed) { s.fields = s.fields.Set("x-amz-acl", "public-read") }, 403},
		"field, less":       {asIs, func(s *signed) { s.fields = s.fields.Del("x-amz-meta-a") }, 403},
		"content":           {asIs, func(s *signed) { s.content = bytes.ToUpper(s.content) }, 400},
		"no signature":      {asIs, func(s *signed) { s.fields = s.fields.Del("authorization") }, 403},
		"signature":         {asIs, func(s *signed) { flip(s.fields) }, 403},
		"time":              {func(w *wish) { w.at = now.Add(-time.Hour) }, same, 403},
		"time ahead":        {func(w *wish) { w.at = now.Add(time.Hour) }, same, 403},
		"key":               {func(w *wish) { w.key = testID + ":" + strings.ToUpper(testSecret) }, same, 403},
		"key's id":          {func(w *wish) { w.key = "AKIATESTSIGNER000002:" + testSecret }, same, 404},
		"region":            {func(w *wish) { w.in.region = "us-east-1" }, same, 400},
		"service":           {func(w *wish) { w.in.service = "dynamodb" }, same, 400},
		"chunk":             {chunks, func(s *signed) { s.content = bytes.Replace(s.content, []byte("of one"), []byte("of two"), 1) }, 403},
		"chunk's signature": {chunks, func(s *signed) { flipIn(s.content, "chunk-signature=") }, 403},
		"presigned path":    {presign, func(s *signed) { s.target = strings.Replace(s.target, "/a", "/b", 1) }, 403},
		"presigned method":  {presign, func(s *signed) { s.method = "DELETE" }, 403},
		"presigned host":    {presign, func(s *signed) { s.host = "127.0.0.2" + s.host[strings.IndexByte(s.host, ':'):] }, 403},
		"presigned query":   {presign, func(s *signed) { s.target += "&acl=" }, 403},
		"presigned region":  {presign, func(s *signed) { s.target = strings.Replace(s.target, "eu-central-1", "us-east-1", 1) }, 400},
		"presigned date": {presign, func(s *signed) {
			s.target = strings.Replace(s.target, now.Format(awsTime), now.Add(-time.Second).Format(awsTime), 1)
		}, 403},
		"presigned signature": {presign, func(s *signed) {
			b := []byte(s.target)
			flipIn(b, "X-Amz-Signature=")
			s.target = string(b)
		}, 403},
		"presigned key":  {presign, func(s *signed) { s.target = strings.Replace(s.target, testID, "AKIATESTSIGNER000002", 1) }, 404},
		"presigned time": {presign, func(s *signed) { s.target = strings.Replace(s.target, "X-Amz-Expires=", "X-Amz-Expires=1", 1) }, 403},
	} {
		t.Run(name, func(t *testing.T) {
			w := base
			c.wish(&w)
			s := w.sign(t, address)
			c.spoil(s)
			if status, answer := s.send(t, address); status != c.want {
				t.Errorf("%d, want %d: %s", status, c.want, answer)
			}
		})
	}
}

// flip changes one bit of the signature in f.
func flip(f protocol.Fields) {
	for i := range f {
		if f[i].Name == "authorization" {
			b := []byte(f[i].Value)
			flipIn(b, "Signature=")
			f[i].Value = string(b)
		}
	}
}

// flipIn changes one digit behind mark.
func flipIn(b []byte, mark string) {
	i := bytes.Index(b, []byte(mark)) + len(mark)
	if b[i] == '0' {
		b[i] = '1'
	} else {
		b[i] = '0'
	}
}
