package main_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The keys of the gateway, which exist in this test and in the broker's store alone.
const (
	gatewayKeyID  = "AKIATESTGATEWAY00001"
	gatewaySecret = "q7Rw2mXz9Lk4Tv8Yb3Nc6Hj1Ds5Fg0PaEuIoKiMn"
	gatewayHost   = "s3.eu-central-1.amazonaws.com"
	bucketHost    = "my-bucket." + gatewayHost
)

// A gateway is versitygw, an object store that verifies every signature, for gatewayHost and bucketHost.
type gateway struct{ toml string }

// newGateway starts a gateway with the buckets "things" and "my-bucket" in it.
func newGateway(t *testing.T) *gateway {
	t.Helper()
	program, err := filepath.Abs("../.cache/versitygw/versitygw")
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
	for _, bucket := range []string{"things", "my-bucket"} {
		if err := os.MkdirAll(filepath.Join(dir, "data", bucket), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	cert, ca := issue(t, []string{gatewayHost, bucketHost})
	key, err := x509.MarshalECPrivateKey(cert.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"ca.pem": ca, "cert.pem": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}),
		"key.pem": pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: key}),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := freeAddress(t)
	cmd := exec.Command(program, "--port", address, "--region", "eu-central-1", "--virtual-domain", gatewayHost, "--quiet",
		"--cert", filepath.Join(dir, "cert.pem"), "--key", filepath.Join(dir, "key.pem"), "posix", filepath.Join(dir, "data"))
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+gatewayKeyID, "ROOT_SECRET_ACCESS_KEY="+gatewaySecret)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("gateway:\n%s", log)
		}
	})
	awaitListener(t, address)
	toml := ""
	for _, host := range []string{gatewayHost, bucketHost} {
		toml += fmt.Sprintf("[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", host, address, filepath.Join(dir, "ca.pem"))
	}
	return &gateway{toml}
}

// freeAddress returns an address of the loopback interface that nobody listens on.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func awaitListener(t *testing.T, address string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for ctx.Err() == nil {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("nobody listens on %s", address)
}

// newSigningHouse is a house whose agent has a secret that signs for the gateway.
func newSigningHouse(t *testing.T, extra string) *house {
	t.Helper()
	h := newHouse(t, "\n"+newGateway(t).toml+extra)
	r := h.torno("secrets", "set", "my-agent", "AWS_PROD="+gatewayKeyID+":"+gatewaySecret, "--as", "sigv4:service=s3,region=eu-central-1", "--host", gatewayHost)
	if want := "AWS_PROD: set, version 1, goes to " + gatewayHost + " as sigv4:region=eu-central-1,service=s3\n"; r.stdout != want {
		t.Fatalf("set: %q, %s", r.stdout, r.stderr)
	}
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"AWS_PROD\"]\n[secret.AWS_PROD]\nplaceholder = true\n")
	return h
}

const presignTOML = "\n[agents.my-agent]\npresign = true\n"

// boto3 signs with what the session's environment holds, and the gateway takes what the broker made of it: declared,
// unsigned and many parts, ranges, names that must be encoded, queries, presigned requests.
func TestClientS3Boto(t *testing.T) {
	h := newSigningHouse(t, presignTOML)
	h.write("s3.py", `import boto3, gzip, hashlib, io, os, urllib.request
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
assert "tornoInert" in os.environ["AWS_ACCESS_KEY_ID"]
for signed in (False, True):
    s3 = boto3.client("s3", config=Config(s3={"payload_signing_enabled": signed, "addressing_style": "path"}))
    for key in ("plain", "a b/ü+&=~*'()!.txt", "x//y", "dots/./z"):
        s3.put_object(Bucket="things", Key=key, Body=b"hello", ContentType="text/plain", Metadata={"a": "b  c"})
        r = s3.get_object(Bucket="things", Key=key)
        assert r["Body"].read() == b"hello" and r["Metadata"] == {"a": "b  c"}, key
    data = os.urandom(12 << 20)
    s3.upload_fileobj(io.BytesIO(data), "things", "big", Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    out = io.BytesIO()
    s3.download_fileobj("things", "big", out, Config=TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20))
    assert out.getvalue() == data
    assert s3.get_object(Bucket="things", Key="big", Range="bytes=5-9")["Body"].read() == data[5:10]
    coded = gzip.compress(os.urandom(100000))
    s3.put_object(Bucket="things", Key="coded", Body=coded, ContentEncoding="gzip")
    part = s3.get_object(Bucket="things", Key="coded", Range="bytes=50000-50099")
    assert part["Body"].read() == coded[50000:50100] and part["ContentEncoding"] == "gzip", part
    assert s3.get_object(Bucket="things", Key="coded")["Body"].read() == gzip.decompress(coded)
    print(len(s3.list_objects_v2(Bucket="things", Prefix="a b/", Delimiter="/", MaxKeys=7)["Contents"]))
url = boto3.client("s3", config=Config(signature_version="s3v4", s3={"addressing_style": "path"})).generate_presigned_url(
    "get_object", Params={"Bucket": "things", "Key": "plain", "ResponseContentType": "text/x"}, ExpiresIn=3600)
with urllib.request.urlopen(url) as r:
    print(r.read().decode(), r.headers["Content-Type"])
s3.delete_object(Bucket="things", Key="big")
`)
	r := h.run("/usr/bin/python3", "s3.py")
	if want := "1\n1\nhello text/x\n"; r.stdout != want || r.code != 0 {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// The AWS command does too, and curl needs no signature of its own at all.
func TestClientS3Command(t *testing.T) {
	h := newSigningHouse(t, "")
	r := h.sh(`set -e
cp torno.toml "$HOME" && cd "$HOME"
/usr/bin/aws configure set default.s3.addressing_style path
head -c 20000000 /dev/urandom >big
/usr/bin/aws s3 cp --no-progress big s3://things/in/big >/dev/null
/usr/bin/aws s3 cp --no-progress s3://things/in/big back >/dev/null
cmp big back
/usr/bin/aws s3 ls s3://things/in/ | wc -l
curl -sS https://` + gatewayHost + `/things/in/big | cmp - big
curl -sS -T torno.toml https://` + gatewayHost + `/things/curl
curl -sS https://` + gatewayHost + `/things/curl | cmp - torno.toml
curl -sS -o /dev/null -w '%{http_code} %header{torno-reason}\n' "$(/usr/bin/aws s3 presign s3://things/curl)"`)
	if want := "1\n403 unsignable\n"; r.stdout != want || r.code != 0 {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}

// The SDK for JavaScript streams content in chunks, with a checksum behind them.
func TestClientS3Node(t *testing.T) {
	h := newSigningHouse(t, presignTOML)
	dir := clients(t)
	h.write("s3.cjs", `const modules = "`+dir+`/node/node_modules/";
const {S3Client, PutObjectCommand, GetObjectCommand} = require(modules + "@aws-sdk/client-s3");
const {Readable} = require("stream");
(async () => {
  const s3 = new S3Client({forcePathStyle: true});
  await s3.send(new PutObjectCommand({Bucket: "things", Key: "a b/ü.txt", Body: "small"}));
  const big = Buffer.alloc(3000000, "x");
  await s3.send(new PutObjectCommand({Bucket: "things", Key: "stream", Body: Readable.from([big.subarray(0, 100000), big.subarray(100000)]), ContentLength: big.length}));
  for (const Key of ["a b/ü.txt", "stream"]) {
    const r = await s3.send(new GetObjectCommand({Bucket: "things", Key}));
    console.log(Key, (await r.Body.transformToString()).length);
  }
})().catch(e => { console.error(e); process.exit(1); });
`)
	r := h.withClients(dir, "node", "s3.cjs")
	if want := "a b/ü.txt 5\nstream 3000000\n"; r.stdout != want {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
}
