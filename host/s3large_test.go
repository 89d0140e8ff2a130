package main_test

import (
	"fmt"
	"strings"
	"testing"
)

// gibibyte is the size of the uploads that must pass without being held.
const gibibyte = 1 << 30

// brokerBound is how much memory the broker may have used for them in the end: it holds chunks, never content.
const brokerBound = 96 << 20 // bytes

// The SDK for JavaScript streams a gibibyte in chunks, with a checksum behind them that the gateway compares, and reads it back.
func TestClientS3NodeGibibyte(t *testing.T) {
	h := newSigningHouse(t, presignTOML)
	dir := clients(t)
	h.write("s3.cjs", fmt.Sprintf(`const modules = "%s/node/node_modules/";
const {S3Client, PutObjectCommand, GetObjectCommand} = require(modules + "@aws-sdk/client-s3");
const {Readable} = require("stream");
const crypto = require("crypto");
const size = %d, piece = crypto.randomBytes(1 << 20);
(async () => {
  const s3 = new S3Client({forcePathStyle: true, requestChecksumCalculation: "WHEN_SUPPORTED"});
  const up = crypto.createHash("sha256"), down = crypto.createHash("sha256");
  async function* content() {
    for (let at = 0; at < size; at += piece.length) { piece.writeUInt32LE(at >>> 20); up.update(piece); yield Buffer.from(piece); }
  }
  const put = await s3.send(new PutObjectCommand({Bucket: "things", Key: "big", Body: Readable.from(content()), ContentLength: size}));
  const r = await s3.send(new GetObjectCommand({Bucket: "things", Key: "big"}));
  let n = 0;
  for await (const b of r.Body) { n += b.length; down.update(b); }
  console.log(n, up.digest("hex") === down.digest("hex"), put.ChecksumCRC32 !== undefined || put.ChecksumCRC64NVME !== undefined);
})().catch(e => { console.error(e); process.exit(1); });
`, dir, gibibyte))
	r := h.withClients(dir, "node", "s3.cjs")
	if want := fmt.Sprintf("%d true true\n", gibibyte); r.stdout != want {
		t.Errorf("stdout %q, want %q; exit %d, stderr %q", r.stdout, want, r.code, r.stderr)
	}
	h.bounded()
}

// A gibibyte in signed chunks, as the SDKs for Java and Go frame it, with and without a trailer: every signature in it is made anew,
// and the gateway verifies each.
func TestClientS3SignedChunksGibibyte(t *testing.T) {
	h := newSigningHouse(t, "")
	h.write("chunks.py", fmt.Sprintf(`import base64, hashlib, http.client, os, ssl, sys, time, zlib
size, host, chunk = %d, %q, 1 << 16
def upload(key, trailer):
    day = time.strftime("%%Y%%m%%d", time.gmtime())
    inert = "0" * 64
    pieces = [os.urandom(chunk) for _ in range(16)]
    def content():
        crc = 0
        for i in range(size // chunk):
            b = pieces[i %% 16]
            crc = zlib.crc32(b, crc)
            yield b"%%x;chunk-signature=%%s\r\n" %% (chunk, inert.encode()) + b + b"\r\n"
        yield b"0;chunk-signature=" + inert.encode() + b"\r\n"
        if trailer:
            yield b"x-amz-checksum-crc32:" + base64.b64encode(crc.to_bytes(4, "big")) + b"\r\nx-amz-trailer-signature:" + inert.encode() + b"\r\n"
        yield b"\r\n"
    length = size // chunk * (chunk + 2 + len("10000;chunk-signature=\r\n") + 64) + len("0;chunk-signature=\r\n") + 64 + 2
    headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=%%s/%%s/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-date, Signature=%%s" %% (os.environ["AWS_ACCESS_KEY_ID"], day, inert),
        "X-Amz-Date": day + "T000000Z", "Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": str(size),
        "X-Amz-Content-Sha256": "STREAMING-AWS4-HMAC-SHA256-PAYLOAD" + ("-TRAILER" if trailer else "")}
    if trailer:
        headers["X-Amz-Trailer"] = "x-amz-checksum-crc32"
        length += len("x-amz-checksum-crc32:AAAAAA==\r\nx-amz-trailer-signature:\r\n") + 64
    headers["Content-Length"] = str(length)
    c = http.client.HTTPSConnection(host, timeout=600)
    c.request("PUT", "/things/" + key, content(), headers)
    r = c.getresponse()
    answer = r.read()
    c.request("HEAD", "/things/" + key)
    back = c.getresponse()
    print(r.status, back.headers["Content-Length"], answer[:300].decode())
upload("chunks", False)
upload("trailer", True)
`, gibibyte, gatewayHost))
	r := h.run("/usr/bin/python3", "chunks.py")
	if want := strings.Repeat(fmt.Sprintf("200 %d \n", gibibyte), 2); r.stdout != want {
		t.Errorf("stdout %q, want %q; exit %d, stderr %q", r.stdout, want, r.code, r.stderr)
	}
	h.bounded()
}

// boto3 in many parts, presigned requests both ways, the AWS command and s3cmd: each takes a file there and back.
func TestClientS3Files(t *testing.T) {
	h := newSigningHouse(t, presignTOML)
	h.write("parts.py", `import boto3, subprocess, urllib.request
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
s3 = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"}))
parts = TransferConfig(multipart_threshold=16 << 20, multipart_chunksize=16 << 20, max_concurrency=4)
s3.upload_file("file", "things", "parts", Config=parts)
s3.download_file("things", "parts", "parts.back", Config=parts)
put = s3.generate_presigned_url("put_object", Params={"Bucket": "things", "Key": "presigned"}, ExpiresIn=600)
subprocess.run(["curl", "-fsS", "-T", "file", put], check=True)
get = s3.generate_presigned_url("get_object", Params={"Bucket": "things", "Key": "presigned"}, ExpiresIn=600)
urllib.request.urlretrieve(get, "presigned.back")
`)
	const size = 200 << 20
	r := h.sh(fmt.Sprintf(`set -e
cp parts.py "$HOME" && cd "$HOME"
head -c %d /dev/urandom >file
/usr/bin/python3 parts.py
cmp file parts.back && cmp file presigned.back && echo boto3
/usr/bin/aws configure set default.s3.addressing_style path
/usr/bin/aws s3 cp --no-progress file s3://things/command >/dev/null
/usr/bin/aws s3 cp --no-progress s3://things/command command.back >/dev/null
cmp file command.back && echo aws
s3cmd="/usr/bin/s3cmd --quiet --no-progress --region eu-central-1 --host %s --host-bucket %s"
$s3cmd put file "s3://things/s3cmd a+b"
$s3cmd get "s3://things/s3cmd a+b" s3cmd.back
cmp file s3cmd.back && $s3cmd del "s3://things/s3cmd a+b" && echo s3cmd`, size, gatewayHost, gatewayHost))
	if want := "boto3\naws\ns3cmd\n"; r.stdout != want || r.code != 0 {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
	h.bounded()
}

// bounded fails the test if the broker ever had more memory than content that passes needs.
func (h *house) bounded() {
	h.t.Helper()
	peak := peakMemory(h.t, h.serve.Process.Pid)
	if peak > brokerBound {
		h.t.Errorf("the broker used %d MiB of memory, at most %d are wanted", peak>>20, brokerBound>>20)
	}
	h.t.Logf("the broker used %d MiB of memory", peak>>20)
}
