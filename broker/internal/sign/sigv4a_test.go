package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// testKeyPair derives the key pair of the tests' keys.
func testKeyPair(t testing.TB, in scope) *awsKey {
	t.Helper()
	k, err := deriveAsymmetric(control.AWSKeys{ID: []byte(testID), Secret: []byte(testSecret)}, in, testNow)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// TestSigV4AKey derives the key pair that AWS's own libraries agree on for these keys.
func TestSigV4AKey(t *testing.T) {
	k, err := deriveAsymmetric(control.AWSKeys{ID: []byte("AKISORANDOMAASORANDOM"), Secret: []byte("q+jcrXGc+0zWN6uzclKVhvMmUsIfRPa4rlRandom")}, scope{}, testNow)
	if err != nil {
		t.Fatal(err)
	}
	d, err := k.private.Bytes()
	if got := hex.EncodeToString(d); err != nil || got != "7fd3bd010c0d9c292141c2b77bfbde1042c92e6836fff749d1269ec890fca1bd" {
		t.Errorf("private key %s, %v", got, err)
	}
	public, err := k.private.PublicKey.Bytes()
	if got := hex.EncodeToString(public); err != nil ||
		got != "0415d242ceebf8d8169fd6a8b5a746c41140414c3b07579038da06af89190fffcb0515242cedd82e94799482e4c0514b505afccf2c0c98d6a553bf539f424c5ec0" {
		t.Errorf("public key %s, %v", got, err)
	}
	for in, want := range map[string]string{"00": "01", "ff": "00", "00ff": "0100", "01ffff": "020000"} {
		var n [sha256.Size]byte
		b, _ := hex.DecodeString(in)
		copy(n[len(n)-len(b):], b)
		if in == "ff" {
			n = [sha256.Size]byte(bytes.Repeat([]byte{0xff}, len(n)))
		}
		if addOne(&n); !strings.HasSuffix(hex.EncodeToString(n[:]), want) {
			t.Errorf("%s and one are %x", in, n)
		}
	}
}

// verifyAsymmetric verifies a request that is signed by Signature Version 4A, in its fields or in its query, as a service does:
// with the fields that it says are covered. It returns the signature.
func verifyAsymmetric(method, host, target string, fields protocol.Fields, payload string) (string, error) {
	own := map[string]string{}
	var in scope
	path, query, _ := strings.Cut(target, "?")
	all, err := parseQuery(query)
	if err != nil {
		return "", err
	}
	if pre, err := readPresigned(all); err != nil {
		return "", err
	} else if pre != nil {
		for _, p := range all {
			value, _ := unescape(p.value, false)
			own[p.name] = value
		}
		all = slices.DeleteFunc(all, func(p parameter) bool { return p.name == paramSignature })
		in, own["Signature"], own["SignedHeaders"], own["date"] = pre.claim.in, own[paramSignature], own[paramCovered], own[paramDate]
	} else {
		for part := range strings.SplitSeq(strings.TrimPrefix(fields.Get("authorization"), awsAsymmetric+" "), ", ") {
			name, value, _ := strings.Cut(part, "=")
			own[name] = value
		}
		c, err := readClaim(fields, nil)
		if err != nil {
			return "", err
		}
		in, own["date"] = c.in, fields.Get("x-amz-date")
		if !slices.Contains(c.covered, "x-amz-region-set") {
			return "", fmt.Errorf("the regions are not covered")
		}
	}
	covered := strings.Split(own["SignedHeaders"], ";")
	rule := pathNormal
	if in.object() {
		rule = pathObject
	}
	c := canonical{method: method, payload: payload, query: all}
	if c.path, err = canonicalPath(path, rule); err != nil {
		return "", err
	}
	sortQuery(c.query)
	c.fields = canonicalFields(fields, host, func(name string) bool { return name != "host" && slices.Contains(covered, name) })
	sum := sha256.Sum256(c.appendTo(nil))
	signed := strings.Join([]string{awsAsymmetric, own["date"], string(in.appendTo(nil, own["date"][:8])), hex.EncodeToString(sum[:])}, "\n")
	return own["Signature"], verifyText(signed, own["Signature"])
}

// verifyText verifies a signature of the tests' keys over text.
func verifyText(text, signature string) error {
	k, err := deriveAsymmetric(control.AWSKeys{ID: []byte(testID), Secret: []byte(testSecret)}, scope{}, testNow)
	if err != nil {
		return err
	}
	der, err := hex.DecodeString(signature)
	if sum := sha256.Sum256([]byte(text)); err != nil || !ecdsa.VerifyASN1(&k.private.PublicKey, sum[:], der) {
		return fmt.Errorf("the signature is not one of\n%s", text)
	}
	return nil
}

// crt has AWS's own signer sign requests with the keys of the tests.
const crt = `import awscrt.auth as a, awscrt.http as h, datetime, json, sys
keys = a.AwsCredentialsProvider.new_static(sys.argv[1], sys.argv[2], sys.argv[3] or None)
out = []
for r in json.load(sys.stdin):
    s3 = r["service"] == "s3"
    req = h.HttpRequest(r["method"], r["target"], h.HttpHeaders([("Host", r["host"])] + [tuple(f) for f in r["fields"]]))
    config = a.AwsSigningConfig(algorithm=a.AwsSigningAlgorithm.V4_ASYMMETRIC, credentials_provider=keys, region=r["regions"], service=r["service"],
        signature_type=a.AwsSignatureType.HTTP_REQUEST_QUERY_PARAMS if r["query"] else a.AwsSignatureType.HTTP_REQUEST_HEADERS,
        date=datetime.datetime.fromisoformat(r["at"]), signed_body_value=r["payload"], use_double_uri_encode=not s3, should_normalize_uri_path=not s3,
        signed_body_header_type=a.AwsSignedBodyHeaderType.NONE if r["query"] else a.AwsSignedBodyHeaderType.X_AMZ_CONTENT_SHA_256,
        expiration_in_seconds=300 if r["query"] else None)
    a.aws_sign_request(req, config).result()
    out.append([req.path, [list(f) for f in req.headers]])
print(json.dumps(out))
`

// A crtRequest is one that crt is to sign.
type crtRequest struct {
	Method  string      `json:"method"`
	Target  string      `json:"target"`
	Host    string      `json:"host"`
	Service string      `json:"service"`
	Regions string      `json:"regions"`
	Payload string      `json:"payload"`
	Query   bool        `json:"query"`
	Fields  [][2]string `json:"fields"`
	At      string      `json:"at"`
}

// signByCRT returns requests as AWS's own signer makes them.
func signByCRT(t *testing.T, id, key string, all []crtRequest) []*Request {
	t.Helper()
	python, err := filepath.Abs("../../../.cache/aws/bin/python")
	if err == nil {
		_, err = os.Stat(python)
	}
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("AWS's packages are not installed (make client-deps)")
		}
		t.Skip("AWS's packages are not installed (try: make client-deps)")
	}
	in, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), python, "-c", crt, id, key, "")
	cmd.Stdin = bytes.NewReader(in)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.Bytes())
	}
	var answers [][2]json.RawMessage
	if err := json.Unmarshal(out, &answers); err != nil {
		t.Fatal(err)
	}
	var requests []*Request
	for i, a := range answers {
		r := &Request{Method: all[i].Method, Host: all[i].Host, Presign: true}
		var fields [][2]string
		if json.Unmarshal(a[0], &r.Target) != nil || json.Unmarshal(a[1], &fields) != nil {
			t.Fatalf("%s", out)
		}
		for _, f := range fields {
			if name := strings.ToLower(f[0]); name != "host" {
				r.Fields = append(r.Fields, protocol.Field{Name: name, Value: f[1]})
			}
		}
		requests = append(requests, r)
	}
	return requests
}

// TestSigV4AAgainstCRT has AWS's own signer sign: what it makes with the real keys verifies as this package reads requests and
// derives keys, and what it makes with placeholders is signed anew, by the same rules.
func TestSigV4AAgainstCRT(t *testing.T) {
	sum := sha256.Sum256([]byte("content"))
	digest := hex.EncodeToString(sum[:])
	base := crtRequest{Method: "PUT", Host: "mfzwi23gnjvgw.mrap.accesspoint.s3-global.amazonaws.com", Service: "s3", Regions: "*", Payload: digest, At: testNow.Format(time.RFC3339)}
	var all []crtRequest
	add := func(change func(*crtRequest)) {
		r := base
		r.Fields = [][2]string{}
		change(&r)
		all = append(all, r)
	}
	for _, target := range []string{"/", "/a%20b/%C3%BC", "/x//y/./z", "/?list-type=2&prefix=a%2Fb&delimiter=", "/a?x-id=PutObject&b=2&B=1&a%2A=~"} {
		add(func(r *crtRequest) { r.Target = target })
		add(func(r *crtRequest) { r.Target, r.Query, r.Method, r.Payload = target, true, "GET", payloadUnsigned })
		add(func(r *crtRequest) {
			r.Target, r.Service, r.Host, r.Regions = target, "events", "abc.endpoint.events.amazonaws.com", "us-east-1,eu-*"
			r.Fields = [][2]string{{"Content-Type", "application/x-amz-json-1.1"}, {"X-Amz-Target", "AWSEvents.PutEvents"}, {"X-Amz-Meta-A", "a   b"}}
		})
	}
	add(func(r *crtRequest) { r.Target, r.Payload = "/a", payloadUnsigned })
	for _, r := range signByCRT(t, testID, testSecret, all) {
		payload := digest
		if declared := r.Fields.Get("x-amz-content-sha256"); declared != "" {
			payload = declared
		} else if strings.Contains(r.Target, paramSignature) {
			payload = payloadUnsigned
		}
		if _, err := verifyAsymmetric(r.Method, r.Host, r.Target, r.Fields, payload); err != nil {
			t.Errorf("AWS's signer, %s: %v", r.Target, err)
		}
	}
	for i, r := range signByCRT(t, inert, inert, all) {
		s := newTestSigner(t, "sigv4")
		if payload := r.Fields.Get("x-amz-content-sha256"); isDigest(payload) {
			r.Content, r.Whole = []byte("content"), true
		}
		proof, err := prove(s, testID+":"+testSecret, r)
		if err != nil {
			t.Errorf("%s: %v", r.Target, err)
			continue
		}
		out := r.Fields.DelFunc(func(f protocol.Field) bool { return s.Strip(f.Name) })
		target, payload := r.Target, payloadUnsigned
		for name, value := range fieldsOf(proof) {
			if name == Target {
				target = value
				continue
			}
			out = append(out, protocol.Field{Name: name, Value: value})
		}
		if declared := out.Get("x-amz-content-sha256"); declared != "" {
			payload = declared
		}
		if _, err := verifyAsymmetric(r.Method, r.Host, target, out, payload); err != nil {
			t.Errorf("ours, %s: %v", target, err)
		}
		if all[i].Query == (target == r.Target) || strings.Contains(target+fmt.Sprint(out), inert) {
			t.Errorf("%s became %s, %v", r.Target, target, out)
		}
		if set := out.Get("x-amz-region-set"); !all[i].Query && set != all[i].Regions {
			t.Errorf("signed for %q, want %q", set, all[i].Regions)
		}
	}
}

// asymmetric is the Authorization field that an SDK made with placeholders, with the regions beside it.
func asymmetric(regions string) protocol.Fields {
	return protocol.Fields{{Name: "authorization", Value: awsAsymmetric + " Credential=" + inert + "/20261128/s3/aws4_request, SignedHeaders=host;x-amz-date;x-amz-region-set, Signature=" + strings.Repeat("30", 70)},
		{Name: "x-amz-date", Value: "20261128T000000Z"}, {Name: "x-amz-region-set", Value: regions}}
}

// TestAttack31Regions asks for signatures in regions that are not the secret's, and by one algorithm with parts of the other.
func TestAttack31Regions(t *testing.T) {
	change := func(f protocol.Fields, old, new string) protocol.Fields {
		f[0].Value = strings.Replace(f[0].Value, old, new, 1)
		return f
	}
	hmac := func(region string) protocol.Fields { return protocol.Fields{claimed(scope{region, "s3"}, "host")} }
	for name, c := range map[string]struct {
		as     string
		fields protocol.Fields
		why    string // in the error; empty: it is signed
		set    string
	}{
		"as the workload says":     {"sigv4", asymmetric("*"), "", "*"},
		"several":                  {"sigv4", asymmetric("us-east-1, eu-*"), "", "us-east-1,eu-*"},
		"within":                   {"sigv4:regions=us-east-1 eu-*", asymmetric("eu-west-1,us-east-1"), "", "eu-west-1,us-east-1"},
		"within, open":             {"sigv4:regions=eu-*", asymmetric("eu-west-*"), "", "eu-west-*"},
		"anywhere":                 {"sigv4:regions=*", asymmetric("eu-west-*,us-east-1"), "", "eu-west-*,us-east-1"},
		"beyond":                   {"sigv4:regions=us-east-1 eu-*", asymmetric("eu-west-1,us-east-2"), `"us-east-2"`, ""},
		"beyond, open":             {"sigv4:regions=eu-west-*", asymmetric("eu-*"), `"eu-*"`, ""},
		"beyond one region":        {"sigv4:region=us-east-1", asymmetric("*"), `"*"`, ""},
		"one region":               {"sigv4:region=us-east-1", asymmetric("us-east-1"), "", "us-east-1"},
		"region and set":           {"sigv4:region=us-east-1,regions=eu-*", asymmetric("us-east-1,eu-west-1"), "", "us-east-1,eu-west-1"},
		"unsigned":                 {"sigv4:regions=us-east-1 eu-*,service=s3", nil, "", "us-east-1,eu-*"},
		"unsigned, one region":     {"sigv4:region=us-east-1,regions=eu-*,service=s3", nil, "", ""},
		"by HMAC within":           {"sigv4:regions=eu-*", hmac("eu-west-1"), "", ""},
		"by HMAC beyond":           {"sigv4:regions=eu-*", hmac("us-east-1"), `"us-east-1"`, ""},
		"another service":          {"sigv4:service=events", asymmetric("*"), `service "s3"`, ""},
		"no set":                   {"sigv4", asymmetric("*")[:2], "region-set", ""},
		"two sets":                 {"sigv4", append(asymmetric("*"), asymmetric("*")[2]), "twice", ""},
		"empty region":             {"sigv4", asymmetric("us-east-1,,eu-west-1"), "region set", ""},
		"star inside":              {"sigv4", asymmetric("us-*-1"), "region set", ""},
		"line break":               {"sigv4", asymmetric("us\neast"), "region set", ""},
		"long set":                 {"sigv4", asymmetric(strings.Repeat("us-east-1,", 200) + "x"), "region set", ""},
		"region in the scope":      {"sigv4", change(asymmetric("*"), "/s3/", "/us-east-1/s3/"), "credential", ""},
		"no region in HMAC's":      {"sigv4", change(hmac("us-east-1"), "/us-east-1/", "/"), "credential", ""},
		"short signature":          {"sigv4", change(asymmetric("*"), strings.Repeat("30", 70), "3030"), "Signature", ""},
		"long signature":           {"sigv4", change(asymmetric("*"), strings.Repeat("30", 70), strings.Repeat("30", 73)), "Signature", ""},
		"padded signature":         {"sigv4", change(asymmetric("*"), strings.Repeat("30", 70), strings.Repeat("30", 68)+"****"), "Signature", ""},
		"HMAC's chunks":            {"sigv4", append(asymmetric("*"), protocol.Field{Name: "x-amz-content-sha256", Value: payloadChunked}), "another algorithm", ""},
		"chunks in HMAC's":         {"sigv4", append(hmac("us-east-1"), protocol.Field{Name: "x-amz-content-sha256", Value: payloadECDSATrailer}), "another algorithm", ""},
		"chunks without signature": {"sigv4:region=us-east-1,service=s3", protocol.Fields{{Name: "x-amz-content-sha256", Value: payloadECDSA}}, "another algorithm", ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "GET", Host: testHost, Target: "/a", Fields: c.fields, Whole: true}
			proof, err := prove(newTestSigner(t, c.as), testID+":"+testSecret, r)
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Fatalf("error %v, want one with %q", err, c.why)
			}
			if err == nil && fieldsOf(proof)["x-amz-region-set"] != c.set {
				t.Errorf("signed for %q, want %q", fieldsOf(proof)["x-amz-region-set"], c.set)
			}
		})
	}
	query := func(change string) string {
		return "/a?X-Amz-Algorithm=" + awsAsymmetric + "&X-Amz-Credential=" + inert + "%2F20261128%2Fs3%2Faws4_request&X-Amz-Date=20261128T101900Z&X-Amz-Expires=300" +
			"&X-Amz-SignedHeaders=host&X-Amz-Signature=" + strings.Repeat("30", 70) + change
	}
	for change, good := range map[string]bool{"&X-Amz-Region-Set=%2A": true, "": false, "&x-amz-region-set=%2A": false, "&X-Amz-Region-Set=eu-%2A": false} {
		r := &Request{Method: "GET", Host: testHost, Target: query(change), Whole: true, Presign: true}
		as := "sigv4:regions=us-* *"
		if change == "&X-Amz-Region-Set=eu-%2A" {
			as = "sigv4:regions=us-*"
		}
		proof, err := prove(newTestSigner(t, as), testID+":"+testSecret, r)
		if (err == nil) != good {
			t.Errorf("%q: %v", change, err)
		}
		if err == nil {
			if _, err := verifyAsymmetric("GET", testHost, fieldsOf(proof)[Target], nil, payloadUnsigned); err != nil {
				t.Error(err)
			}
		}
	}
}

// padded is a chunk's signature as AWS's signer writes it.
func padded(string) string { return strings.Repeat("30", 70) + "****" }

// TestSigV4AChunks signs content in chunks, cut at every kind of place. Each signature is over what AWS's own tests say, with
// their digests of the chunks, and the content keeps its length.
func TestSigV4AChunks(t *testing.T) {
	chunks := []string{"bf718b6f653bebc184e1479f1935b8da974d701b893afcf49e701f3e2f9f9c5a", "2edc986847e209b4016e141a6dc8716d3207350f416969382d431539bf292e4a", emptyHash}
	in := scope{service: "s3"}
	for name, e := range examples {
		content := e.content(padded)
		for _, piece := range []int{1, 1000, 70000} {
			var out bytes.Buffer
			k := testKeyPair(t, in)
			w := newChunkWriter(&out, k, "5eed", int64(exampleSize), e.trailer != "")
			for b := []byte(content); len(b) > 0; b = b[min(piece, len(b)):] {
				if _, err := w.Write(b[:min(piece, len(b))]); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil || out.Len() != len(content) || k.private != nil {
				t.Fatalf("%s: %v; %d bytes became %d", name, err, len(content), out.Len())
			}
			stamp := testNow.Format(awsTime) + "\n" + testNow.Format(awsDay) + "/s3/aws4_request\n"
			previous := "5eed"
			for i, part := range strings.Split(out.String(), ";chunk-signature=")[1:] {
				signature, _, _ := strings.Cut(part, "\r\n")
				bare := strings.TrimRight(signature, "*")
				if err := verifyText("AWS4-ECDSA-P256-SHA256-PAYLOAD\n"+stamp+previous+"\n"+emptyHash+"\n"+chunks[i], bare); err != nil || len(signature) != maxAsymmetricSignature {
					t.Errorf("%s: chunk %d, %d digits: %v", name, i, len(signature), err)
				}
				previous = bare
			}
			if e.trailer != "" {
				_, rest, _ := strings.Cut(out.String(), "x-amz-trailer-signature:")
				signature, _, _ := strings.Cut(rest, "\r\n")
				sum := sha256.Sum256([]byte("x-amz-checksum-crc32c:sOO8/Q==\n"))
				if err := verifyText("AWS4-ECDSA-P256-SHA256-TRAILER\n"+stamp+previous+"\n"+hex.EncodeToString(sum[:]), strings.TrimRight(signature, "*")); err != nil {
					t.Errorf("%s: the trailer: %v", name, err)
				}
			}
		}
	}
	for name, signature := range map[string]string{
		"by HMAC": placeholderSignature(""), "without padding": strings.Repeat("30", 8), "padding before": "**" + strings.Repeat("30", 71), "nothing but": strings.Repeat("*", 144),
		"long": strings.Repeat("30", 73), "capitals": strings.Repeat("3A", 72),
	} {
		w := newChunkWriter(io.Discard, testKeyPair(t, in), "5eed", int64(exampleSize), false)
		_, err := io.WriteString(w, examples["chunks"].content(func(string) string { return signature }))
		if err == nil {
			err = w.Close()
		}
		if err == nil {
			t.Errorf("%s: passed on", name)
		}
	}
}

// FuzzSigV4AChunks is FuzzChunks with signatures whose length varies.
func FuzzSigV4AChunks(f *testing.F) {
	signature := ";chunk-signature=" + padded("") + "\r\n"
	f.Add([]byte("3"+signature+"abc\r\n0"+signature+"\r\n"), false)
	f.Add([]byte("1"+signature+"a\r\n0"+signature+"x-amz-checksum-crc32c:sOO8/Q==\n\r\nx-amz-trailer-signature:"+padded("")+"\r\n\r\n"), true)
	f.Fuzz(func(t *testing.T, in []byte, trailers bool) {
		var out bytes.Buffer
		w := newChunkWriter(&out, testKeyPair(t, scope{service: "s3"}), "5eed", declared(in), trailers)
		if _, err := w.Write(in); err != nil {
			return
		}
		if err := w.Close(); err == nil && out.Len() != len(in) {
			t.Fatalf("%d bytes became %d", len(in), out.Len())
		}
	})
}
