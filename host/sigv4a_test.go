package main_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// boto3 calls an access point of several regions, whose requests are signed for all of them at once. What arrives is signed
// anew with the real key, by the same algorithm.
func TestClientS3ManyRegions(t *testing.T) {
	packages, err := filepath.Glob(filepath.Dir(filepath.Dir(awsTool(t, "python"))) + "/lib/python3*/site-packages")
	if err != nil || len(packages) != 1 {
		t.Fatal(packages, err)
	}
	const host = "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com"
	var mu sync.Mutex
	var got []string
	up := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		credential, _, _ := strings.Cut(r.Header.Get("Authorization"), ", ")
		mu.Lock()
		got = append(got, fmt.Sprintf("%s %s %s %s %v", r.Method, r.URL.Path, credential[:strings.LastIndex(credential, "/2")+1]+credential[strings.LastIndex(credential, "/s3"):],
			r.Header.Get("X-Amz-Region-Set"), strings.Contains(string(b), "hello") || r.Method == http.MethodGet))
		if strings.Contains(fmt.Sprint(r.Header), "tornoInert") {
			got = append(got, "with a placeholder")
		}
		mu.Unlock()
		w.Header().Set("ETag", `"1"`)
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(w, "hello")
		}
	}))
	cert, ca := issue(t, []string{host})
	up.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	up.StartTLS()
	t.Cleanup(up.Close)
	caFile := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newHouse(t, fmt.Sprintf("\n[[upstream]]\nhost = %q\ndial = %q\nca = %q\n", host, up.Listener.Addr(), caFile))
	if r := h.torno("secrets", "set", "my-agent", "AWS_PROD="+gatewayKeyID+":"+gatewaySecret, "--as", "sigv4:service=s3,regions=eu-* us-*", "--host", host); r.code != 0 {
		t.Fatal(r.stderr)
	}
	h.write("torno.toml", "name = \"my-agent\"\nsecrets = [\"AWS_PROD\"]\n[secret.AWS_PROD]\nplaceholder = true\n")
	h.write("s3.py", `import boto3, botocore
arn = "arn:aws:s3::123456789012:accesspoint/mfzwi23gnjvgw.mrap"
s3 = boto3.client("s3", region_name="eu-central-1")
try:
    s3.put_object(Bucket=arn, Key="a b", Body=b"hello")
    print(s3.get_object(Bucket=arn, Key="a b")["Body"].read().decode())
except botocore.exceptions.ClientError as e:
    print(e.response["ResponseMetadata"]["HTTPStatusCode"], e.response["ResponseMetadata"]["HTTPHeaders"].get("torno-reason"))
`)
	run := func() result {
		t.Helper()
		return h.runWith([]string{"--mount-ro", packages[0]}, "/usr/bin/env", "PYTHONPATH="+packages[0], "/usr/bin/python3", "s3.py")
	}
	if r := run(); r.stdout != "403 unsignable\n" || len(got) > 0 { // it asks for all regions of the world
		t.Errorf("regions beyond what is sealed: stdout %q, exit %d, stderr %q; arrived: %q", r.stdout, r.code, r.stderr, got)
	}
	h.must("secrets", "set", "my-agent", "AWS_PROD="+gatewayKeyID+":"+gatewaySecret, "--as", "sigv4:service=s3,regions=*", "--host", host)
	if r := run(); r.stdout != "hello\n" {
		t.Errorf("stdout %q, exit %d, stderr %q", r.stdout, r.code, r.stderr)
	}
	for i, method := range []string{"PUT", "GET"} {
		want := method + " /a b AWS4-ECDSA-P256-SHA256 Credential=" + gatewayKeyID + "//s3/aws4_request * true"
		if len(got) != 2 || got[i] != want {
			t.Errorf("arrived: %q, want %q", got, want)
		}
	}
}
