package main_test

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// The workload's own AWS credentials, which no secret of torno replaces: requests pass as they were signed.
const (
	awsKeyID  = "AKIAIOSFODNN7EXAMPLE"
	awsSecret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// checkSigV4 reports whether the request is signed with awsSecret (AWS Signature Version 4), as it arrived.
func checkSigV4(r *http.Request, service string) error {
	auth := r.Header.Get("Authorization")
	part := func(name string) string {
		_, after, _ := strings.Cut(auth, name+"=")
		before, _, _ := strings.Cut(after, ",")
		return strings.TrimSpace(before)
	}
	date := r.Header.Get("X-Amz-Date")
	if !strings.HasPrefix(auth, "AWS4-HMAC-SHA256 ") || len(date) < 8 {
		return fmt.Errorf("authorization %q", auth)
	}
	var fields strings.Builder
	for name := range strings.SplitSeq(part("SignedHeaders"), ";") {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host", ":authority":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&fields, "%s:%s\n", name, strings.TrimSpace(value))
	}
	query := strings.Split(r.URL.RawQuery, "&")
	sort.Strings(query)
	for i, q := range query {
		if q != "" && !strings.Contains(q, "=") {
			query[i] = q + "="
		}
	}
	path := r.URL.EscapedPath()
	if service != "s3" {
		path = strings.ReplaceAll(path, "%", "%25") // every service but S3 encodes twice
	}
	payload := r.Header.Get("X-Amz-Content-Sha256")
	if payload == "" {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		sum := sha256.Sum256(body)
		payload = hex.EncodeToString(sum[:])
	}
	canonical := strings.Join([]string{r.Method, path, strings.Join(query, "&"), fields.String(), part("SignedHeaders"), payload}, "\n")
	sum := sha256.Sum256([]byte(canonical))
	scope := date[:8] + "/us-east-1/" + service + "/aws4_request"
	key := []byte("AWS4" + awsSecret)
	for _, s := range append(strings.Split(scope, "/"), strings.Join([]string{"AWS4-HMAC-SHA256", date, scope, hex.EncodeToString(sum[:])}, "\n")) {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(s))
		key = m.Sum(nil)
	}
	if want := hex.EncodeToString(key); part("Signature") != want {
		return fmt.Errorf("signature %s, want %s for\n%s", part("Signature"), want, canonical)
	}
	return nil
}

// A bucket is an object store that takes only what is signed.
type bucket struct {
	mu      sync.Mutex
	objects map[string][]byte
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := checkSigV4(r, "s3"); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		body := io.Reader(r.Body)
		if strings.Contains(r.Header.Get("Content-Encoding"), "aws-chunked") {
			body = awsChunks(r.Body)
		}
		content, err := io.ReadAll(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		b.objects[r.URL.Path] = content
		w.Header().Set("ETag", `"1"`)
	case http.MethodGet:
		w.Header().Set("ETag", `"1"`)
		_, _ = w.Write(b.objects[r.URL.Path])
	default:
		http.Error(w, "method", http.StatusMethodNotAllowed)
	}
}

// awsChunks undoes the chunks in which SDKs stream payloads, trailers included.
func awsChunks(r io.Reader) io.Reader {
	pr, pw := io.Pipe()
	go func() {
		br := bufio.NewReader(r)
		for {
			line, err := br.ReadString('\n')
			size, _, _ := strings.Cut(strings.TrimSpace(line), ";")
			n, perr := strconv.ParseInt(size, 16, 64)
			if err != nil || perr != nil {
				pw.CloseWithError(fmt.Errorf("chunk %q: %v", line, err))
				return
			}
			if n == 0 {
				_, err := io.Copy(io.Discard, br)
				pw.CloseWithError(err)
				return
			}
			if _, err := io.CopyN(pw, br, n); err != nil {
				pw.CloseWithError(err)
				return
			}
			if _, err := br.Discard(2); err != nil {
				pw.CloseWithError(err)
				return
			}
		}
	}()
	return pr
}

// bedrock answers model calls that are signed and come by HTTP/2.
func bedrock(w http.ResponseWriter, r *http.Request) {
	if err := checkSigV4(r, "bedrock"); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"proto":%q,"bytes":%d}`, r.Proto, len(body))
}

// S3, signed by the SDK: small and streamed uploads, and back.
func TestClientS3(t *testing.T) {
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", agentFile[:strings.Index(agentFile, "[egress]")]+"[egress]\nallow = [\"s3.us-east-1.amazonaws.com\"]\n")
	h.write("s3.cjs", `const modules = "`+dir+`/node/node_modules/";
const {S3Client, PutObjectCommand, GetObjectCommand} = require(modules + "@aws-sdk/client-s3");
const {Readable} = require("stream");
(async () => {
  const s3 = new S3Client({region: "us-east-1", forcePathStyle: true, credentials: {accessKeyId: "`+awsKeyID+`", secretAccessKey: "`+awsSecret+`"}});
  await s3.send(new PutObjectCommand({Bucket: "bucket", Key: "a b/ü.txt", Body: "small"}));
  const big = Buffer.alloc(300000, "x");
  await s3.send(new PutObjectCommand({Bucket: "bucket", Key: "stream", Body: Readable.from([big.subarray(0, 100000), big.subarray(100000)]), ContentLength: big.length}));
  for (const Key of ["a b/ü.txt", "stream"]) {
    const r = await s3.send(new GetObjectCommand({Bucket: "bucket", Key}));
    console.log(Key, (await r.Body.transformToString()).length);
  }
})().catch(e => { console.error(e); process.exit(1); });
`)
	r := h.withClients(dir, "node", "s3.cjs")
	if want := "a b/ü.txt 5\nstream 300000\n"; r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// Bedrock's SDK speaks HTTP/2 alone.
func TestClientBedrock(t *testing.T) {
	h := newAgentHouse(t)
	dir := clients(t)
	h.write("torno.toml", agentFile[:strings.Index(agentFile, "[egress]")]+"[egress]\nallow = [\"POST bedrock-runtime.us-east-1.amazonaws.com\"]\n")
	h.write("bedrock.cjs", `const modules = "`+dir+`/node/node_modules/";
const {BedrockRuntimeClient, InvokeModelCommand} = require(modules + "@aws-sdk/client-bedrock-runtime");
(async () => {
  const c = new BedrockRuntimeClient({region: "us-east-1", credentials: {accessKeyId: "`+awsKeyID+`", secretAccessKey: "`+awsSecret+`"}});
  const ask = () => c.send(new InvokeModelCommand({modelId: "anthropic.claude-3-haiku-20240307-v1:0", contentType: "application/json", body: JSON.stringify({prompt: "Hello"})}));
  for (const r of await Promise.all([ask(), ask(), ask()])) console.log(Buffer.from(r.body).toString());
  c.destroy();
})().catch(e => { console.error(e); process.exit(1); });
`)
	r := h.withClients(dir, "node", "bedrock.cjs")
	if want := strings.Repeat(`{"proto":"HTTP/2.0","bytes":18}`+"\n", 3); r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}
