package main_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const stsHost = "sts.eu-central-1.amazonaws.com"

// A moto stands in for AWS's services: it verifies signatures, and what the policies of whoever signs allow.
type moto struct {
	toml      string
	key, role string // of a user who may do nothing but assume the role, and the role, which may use S3
}

// awsTool returns a program of the environment with AWS's packages for Python.
func awsTool(t *testing.T, name string) string {
	t.Helper()
	program, err := filepath.Abs("../.cache/aws/bin/" + name)
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("AWS's packages are not installed (make client-deps)")
		}
		t.Skip("AWS's packages are not installed (try: make client-deps)")
	}
	return program
}

// motoSetup is what is done while nothing is verified yet: motoCalls calls.
const (
	motoCalls = "6"
	motoSetup = `import boto3, json, sys
kw = dict(endpoint_url=sys.argv[1], verify=False, region_name="eu-central-1", aws_access_key_id="x", aws_secret_access_key="y")
iam, s3 = boto3.client("iam", **kw), boto3.client("s3", **kw)
policy = lambda **s: json.dumps({"Version": "2012-10-17", "Statement": [dict(Effect="Allow", **s)]})
iam.create_user(UserName="u")
key = iam.create_access_key(UserName="u")["AccessKey"]
iam.put_user_policy(UserName="u", PolicyName="p", PolicyDocument=policy(Action="sts:AssumeRole", Resource="*"))
role = iam.create_role(RoleName="agent", AssumeRolePolicyDocument=policy(Action="sts:AssumeRole", Principal={"AWS": "*"}))["Role"]["Arn"]
iam.put_role_policy(RoleName="agent", PolicyName="p", PolicyDocument=policy(Action="s3:*", Resource="*"))
s3.create_bucket(Bucket="things", CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
print(key["AccessKeyId"] + ":" + key["SecretAccessKey"], role)
`
)

// newMoto starts one for STS and S3, with the bucket "things" in it.
func newMoto(t *testing.T) *moto {
	t.Helper()
	program, dir := awsTool(t, "moto_server"), t.TempDir()
	cert, ca := issue(t, []string{gatewayHost, stsHost})
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
	caFile, address := filepath.Join(dir, "ca.pem"), freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	cmd := exec.Command(program, "-H", host, "-p", port, "-s", "-c", filepath.Join(dir, "cert.pem"), "-k", filepath.Join(dir, "key.pem"))
	cmd.Env = append(os.Environ(), "INITIAL_NO_AUTH_ACTION_COUNT="+motoCalls)
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("moto:\n%s", log)
		}
	})
	awaitListener(t, address)
	setup := exec.Command(awsTool(t, "python"), "-c", motoSetup, "https://"+address)
	setup.Stderr = log
	out, err := setup.Output()
	m := &moto{}
	if _, scanned := fmt.Sscan(string(out), &m.key, &m.role); err != nil || scanned != nil {
		t.Fatalf("%q, %v, %v", out, err, scanned)
	}
	for _, name := range []string{gatewayHost, stsHost} {
		m.toml += fmt.Sprintf("[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", name, address, caFile)
	}
	return m
}

// boto3 signs with a placeholder, the broker with the temporary keys of a role that it assumed, and moto takes them where it
// takes the user's own for nothing.
func TestClientS3AssumedRole(t *testing.T) {
	m := newMoto(t)
	h := newHouse(t, "\n"+m.toml)
	const as = "role:duration=900,external-id=torno-1,region=eu-central-1,role="
	set := func(value, as string) {
		t.Helper()
		h.write("key", value)
		if r := h.torno("secrets", "set", "my-agent", "AWS_PROD=@key", "--as", as, "--host", gatewayHost); r.code != 0 || !strings.Contains(r.stdout, "goes to "+gatewayHost+" as aws-") {
			t.Fatalf("set: %q, %s", r.stdout, r.stderr)
		}
		if err := os.Remove(filepath.Join(h.work, "key")); err != nil {
			t.Fatal(err)
		}
	}
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"AWS_PROD\"]\n[secret.AWS_PROD]\nplaceholder = true\n")
	h.write("s3.py", `import boto3, botocore, os, sys
from botocore.config import Config
assert "tornoInert" in os.environ["AWS_ACCESS_KEY_ID"] and "AWS_SESSION_TOKEN" not in os.environ
s3 = boto3.client("s3", config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}))
try:
    s3.put_object(Bucket="things", Key=sys.argv[1], Body=b"hello")
    print(s3.get_object(Bucket="things", Key=sys.argv[1])["Body"].read().decode(), len(s3.list_objects_v2(Bucket="things")["Contents"]))
except botocore.exceptions.ClientError as e:
    print(e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["ResponseMetadata"]["HTTPHeaders"].get("torno-reason"))
`)
	for i, c := range []struct{ value, as, want string }{
		{m.key, "aws-" + as + m.role, "hello 1\n"},
		{strings.ToUpper(m.key), "aws-" + as + m.role, "502 credential_unavailable\n"},
		{m.key, "sigv4:service=s3,region=eu-central-1", "403 None\n"},
	} {
		if c.as[:3] != "aws" {
			h.torno("secrets", "delete", "my-agent", "AWS_PROD")
			if r := h.torno("secrets", "set", "my-agent", "AWS_PROD="+c.value, "--as", c.as, "--host", gatewayHost); r.code != 0 {
				t.Fatal(r.stderr)
			}
		} else {
			set(c.value, c.as)
		}
		if r := h.run("/usr/bin/python3", "s3.py", fmt.Sprint("key", i)); r.stdout != c.want {
			t.Errorf("%.20s: stdout %q, want %q; exit %d, stderr %q", c.as, r.stdout, c.want, r.code, r.stderr)
		}
	}
	events := map[string]int{}
	for _, e := range h.query() {
		events[e.Event]++
	}
	if events["token_minted"] != 1 || events["token_refused"] != 1 {
		t.Errorf("events: %v", events)
	}
}
