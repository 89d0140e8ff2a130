package sign

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"pgregory.net/rapid"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

const (
	testID     = "AKIATESTSIGNER000001"
	testSecret = "Zx8vQ2mK9tR4wY7pL1nB6cJ3dF5gH0sAeUiOyTkM"
	testToken  = "FwoGZXIvYXdzEJr//////////wEaDExampleToken+/=="
	testHost   = "things.s3.eu-central-1.amazonaws.com"
	inert      = "AKIAtornoInertAbCdEfGhIjKlMnOpQrStUv"
)

var testNow = time.Date(2026, 11, 28, 10, 20, 30, 0, time.UTC)

func newTestSigner(t testing.TB, scheme string) Signer {
	t.Helper()
	in, err := control.ParseScheme(scheme)
	s := New(control.Meta{Name: "AWS_PROD", Inject: in})
	if err != nil || s == nil {
		t.Fatalf("%s: %v, %v", scheme, s, err)
	}
	return s
}

// claimed is the Authorization field that an SDK made with placeholders.
func claimed(in scope, covered string) protocol.Field {
	return protocol.Field{Name: "authorization", Value: awsAlgorithm + " Credential=" + inert + "/20261128/" + in.region + "/" + in.service +
		"/aws4_request, SignedHeaders=" + covered + ", Signature=" + strings.Repeat("0", 64)}
}

// prove plans and signs a request as the broker does, at testNow.
func prove(s Signer, value string, r *Request) (*Proof, error) { return proveAt(s, value, r, testNow) }

func proveAt(s Signer, value string, r *Request, now time.Time) (*Proof, error) {
	p, err := s.Plan(r)
	if err != nil {
		return nil, err
	}
	out := *r
	out.Fields = r.Fields.Clone().DelFunc(func(f protocol.Field) bool { return s.Strip(f.Name) })
	return p.Sign(secret.New([]byte(value)), &out, now)
}

// fieldsOf returns the fields of a proof by name.
func fieldsOf(p *Proof) map[string]string {
	m := map[string]string{}
	for _, f := range p.Fields {
		_ = f.Value.Use(func(b []byte) error { m[f.Name] = string(b); return nil })
	}
	return m
}

// TestSigV4AgainstSDK signs requests of every shape and compares the whole Authorization field with what AWS's own
// SDK makes of the same request.
func TestSigV4AgainstSDK(t *testing.T) {
	text := rapid.StringMatching(`[a-zA-Z0-9 _.~+&=/*'()!$,:;@üΩ世-]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		in := rapid.SampledFrom([]scope{{"eu-central-1", "s3"}, {"us-east-1", "dynamodb"}, {"us-east-1", "s3-outposts"}}).Draw(t, "scope")
		path := "/"
		for _, segment := range rapid.SliceOfN(text, 0, 4).Draw(t, "path") {
			path += strings.ReplaceAll(escape(strings.Trim(segment, "./")+"x"), "%2F", "/") + "/"
		}
		path = normalPath(path)
		query := url.Values{}
		for range rapid.IntRange(0, 4).Draw(t, "parameters") {
			query.Add(text.Draw(t, "name"), text.Draw(t, "value"))
		}
		body := rapid.SliceOf(rapid.Byte()).Draw(t, "content")
		r := &Request{Method: rapid.SampledFrom([]string{"GET", "PUT", "POST", "DELETE"}).Draw(t, "method"), Host: testHost,
			Target: path, Content: body, Whole: true, Fields: protocol.Fields{claimed(in, "accept;host;x-amz-date"), {Name: "x-amz-date", Value: "20261128T000000Z"}}}
		if len(query) > 0 {
			r.Target += "?" + query.Encode()
		}
		for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"x-amz-meta-a", "x-amz-acl", "content-type", "range", "if-match", "accept", "x-other"}), 0, 5, rapid.ID).Draw(t, "fields") {
			r.Fields = append(r.Fields, protocol.Field{Name: name, Value: strings.TrimSpace(rapid.StringMatching(`[a-z]( {0,3}[a-z0-9",;]){0,8}`).Draw(t, name))})
		}
		value, token := testID+":"+testSecret, ""
		if rapid.Bool().Draw(t, "temporary") {
			token = testToken
			value += ":" + token
		}
		s := New(control.Meta{Name: "A", Inject: control.Injector{Scheme: control.SchemeSigV4}})
		proof, err := prove(s, value, r)
		if err != nil {
			t.Fatal(err)
		}
		got := fieldsOf(proof)
		want := sdkAuthorization(t, r, in, token, got["x-amz-content-sha256"])
		if got["authorization"] != want {
			t.Errorf("%s %s\n got %s\nwant %s", r.Method, r.Target, got["authorization"], want)
		}
	})
}

// sdkAuthorization is what the SDK signs r with.
func sdkAuthorization(t *rapid.T, r *Request, in scope, token, digest string) string {
	u, err := url.Parse("https://" + r.Host + r.Target)
	if err != nil {
		t.Fatal(err)
	}
	req := &http.Request{Method: r.Method, URL: u, Host: r.Host, Header: http.Header{"X-Amz-Content-Sha256": {digest}}}
	for _, f := range r.Fields {
		if f.Name != "authorization" && f.Name != "x-amz-date" && f.Name != "x-other" { // which the workload did not sign
			req.Header.Add(f.Name, f.Value)
		}
	}
	keys := aws.Credentials{AccessKeyID: testID, SecretAccessKey: testSecret, SessionToken: token}
	err = v4.NewSigner().SignHTTP(t.Context(), keys, req, digest, in.service, in.region, testNow, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = in.object() })
	if err != nil {
		t.Fatal(err)
	}
	return req.Header.Get("Authorization")
}

// TestAttack31Shape asks for signatures over what is not the request, or not the secret's to sign.
func TestAttack31Shape(t *testing.T) {
	s3 := scope{"eu-central-1", "s3"}
	date := protocol.Field{Name: "x-amz-date", Value: "20261128T000000Z"}
	good := claimed(s3, "host;x-amz-content-sha256;x-amz-date")
	auth := func(old, new string) protocol.Fields {
		return protocol.Fields{{Name: good.Name, Value: strings.Replace(good.Value, old, new, 1)}, date}
	}
	for name, c := range map[string]struct {
		target string
		fields protocol.Fields
		why    string // in the error; empty: it is signed
	}{
		"control":               {"/a?list-type=2&x-id=PutObject", protocol.Fields{good, date}, ""},
		"unsigned":              {"/a", nil, ""},
		"other scheme":          {"/a", protocol.Fields{{Name: "authorization", Value: "Bearer x"}}, ""},
		"another region":        {"/a", auth("eu-central-1", "us-east-1"), `region "us-east-1"`},
		"another service":       {"/a", auth("/s3/", "/iam/"), `service "iam"`},
		"region with a slash":   {"/a", auth("eu-central-1", "eu/central"), "credential"},
		"another end":           {"/a", auth("aws4_request", "aws5_request"), "credential"},
		"no day":                {"/a", auth("20261128", "20261328"), "day"},
		"date of another day":   {"/a", protocol.Fields{good, {Name: "x-amz-date", Value: "20261129T000000Z"}}, "day"},
		"date that is none":     {"/a", protocol.Fields{good, {Name: "x-amz-date", Value: "tomorrow"}}, "day"},
		"another algorithm":     {"/a", auth("AWS4-HMAC-SHA256", "AWS4-HMAC-SHA512"), "algorithm"},
		"no signature":          {"/a", auth("Signature=", "Sig="), "Signature"},
		"two credentials":       {"/a", auth("SignedHeaders", "Credential=x, SignedHeaders"), "parameter"},
		"host not covered":      {"/a", auth("host;", ""), "host"},
		"covered out of order":  {"/a", auth("host;x-amz-content-sha256", "x-amz-content-sha256;host"), "sorted"},
		"covered in capitals":   {"/a", auth("host;", "Host;host;"), "signed header"},
		"two authorizations":    {"/a", protocol.Fields{good, good, date}, "twice"},
		"two dates":             {"/a", protocol.Fields{good, date, date}, "twice"},
		"two digests":           {"/a", protocol.Fields{good, date, {Name: "x-amz-content-sha256", Value: emptyHash}, {Name: "x-amz-content-sha256", Value: payloadUnsigned}}, "twice"},
		"digest that is none":   {"/a", protocol.Fields{good, date, {Name: "x-amz-content-sha256", Value: "abc"}}, "sha256"},
		"signed by another way": {"/a", protocol.Fields{good, date, {Name: "x-amz-content-sha256", Value: "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD"}}, "sha256"},
		"chunks of no length":   {"/a", protocol.Fields{good, date, {Name: "x-amz-content-sha256", Value: payloadChunked}}, "decoded"},
		"chunks of a length":    {"/a", protocol.Fields{good, date, {Name: "x-amz-content-sha256", Value: payloadChunked}, {Name: "x-amz-decoded-content-length", Value: "010"}}, "decoded"},
		"smuggled signature":    {"/a?X-Amz-Signature=" + emptyHash, protocol.Fields{good, date}, "without"},
		"smuggled credential":   {"/a?X-Amz-Credential=x", protocol.Fields{good, date}, "without"},
		"smuggled, encoded":     {"/a?%58-Amz-Credential=x", protocol.Fields{good, date}, "without"},
		"smuggled, lower case":  {"/a?x-amz-credential=x", protocol.Fields{good, date}, "another case"},
		"smuggled token":        {"/a?X-Amz-Security-Token=x", protocol.Fields{good, date}, "without"},
		"smuggled date":         {"/a?X-Amz-Date=20261128T000000Z", nil, "without"},
		"smuggled version 2":    {"/a?AWSAccessKeyId=x&Signature=y&Expires=1", nil, "without"},
		"presigned":             {"/a?" + presignedQuery(""), nil, "presign"},
		"broken encoding":       {"/a?b=%zz", protocol.Fields{good, date}, "percent"},
		"no path":               {"*", protocol.Fields{good, date}, "path"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "GET", Host: testHost, Target: c.target, Fields: c.fields, Whole: true}
			_, err := prove(newTestSigner(t, "sigv4:service=s3,region=eu-central-1"), testID+":"+testSecret, r)
			if c.why == "" && err != nil || c.why != "" && (err == nil || !strings.Contains(err.Error(), c.why)) {
				t.Errorf("error %v, want one with %q", err, c.why)
			}
		})
	}
}

// TestAttack31Unsigned asks for unsigned content where content is signed, and for a scope that nobody names.
func TestAttack31Unsigned(t *testing.T) {
	for _, payload := range []string{payloadUnsigned, payloadUnsignedTrailer} {
		r := &Request{Method: "POST", Host: "dynamodb.us-east-1.amazonaws.com", Target: "/", Whole: true, Fields: protocol.Fields{
			claimed(scope{"us-east-1", "dynamodb"}, "host;x-amz-date"), {Name: "x-amz-content-sha256", Value: payload}}}
		if _, err := prove(newTestSigner(t, "sigv4"), testID+":"+testSecret, r); err == nil {
			t.Errorf("%s is signed for dynamodb", payload)
		}
	}
	r := &Request{Method: "GET", Host: testHost, Target: "/", Whole: true}
	if _, err := prove(newTestSigner(t, "sigv4:service=s3"), testID+":"+testSecret, r); err == nil || !strings.Contains(err.Error(), "region") {
		t.Errorf("no region: %v", err)
	}
}

// TestAttack31Binds changes one thing of a request at a time: the signature is another each time, and the same for
// the same request.
func TestAttack31Binds(t *testing.T) {
	base := func() *Request {
		return &Request{Method: "PUT", Host: testHost, Target: "/a/b?c=d", Content: []byte("content"), Whole: true,
			Fields: protocol.Fields{claimed(scope{"eu-central-1", "s3"}, "host;x-amz-date"), {Name: "x-amz-acl", Value: "private"}}}
	}
	signature := func(value string, r *Request) string {
		p, err := prove(newTestSigner(t, "sigv4:region=eu-central-1"), value, r)
		if err != nil {
			t.Fatal(err)
		}
		a := fieldsOf(p)["authorization"]
		return a[len(a)-64:]
	}
	value := testID + ":" + testSecret
	want := signature(value, base())
	if signature(value, base()) != want {
		t.Fatal("one request, two signatures")
	}
	for name, change := range map[string]func(*Request){
		"method":  func(r *Request) { r.Method = "POST" },
		"host":    func(r *Request) { r.Host = "thing.s3.eu-central-1.amazonaws.com" },
		"path":    func(r *Request) { r.Target = "/a/c?c=d" },
		"dots":    func(r *Request) { r.Target = "/a/./b?c=d" },
		"slashes": func(r *Request) { r.Target = "/a//b?c=d" },
		"query":   func(r *Request) { r.Target = "/a/b?c=e" },
		"field":   func(r *Request) { r.Fields[1].Value = "public-read" },
		"more":    func(r *Request) { r.Fields = append(r.Fields, protocol.Field{Name: "x-amz-tagging", Value: "a"}) },
		"content": func(r *Request) { r.Content = []byte("Content") },
	} {
		r := base()
		change(r)
		if signature(value, r) == want {
			t.Errorf("%s: the same signature", name)
		}
	}
	if signature(testID+":"+testSecret[1:]+"x", base()) == want {
		t.Error("another key, the same signature")
	}
}

// TestSigV4Content asks what of the content is needed, and that declared digests hold.
func TestSigV4Content(t *testing.T) {
	s3 := claimed(scope{"eu-central-1", "s3"}, "host")
	declare := func(v string) protocol.Fields {
		return protocol.Fields{s3, {Name: "x-amz-content-sha256", Value: v}, {Name: "x-amz-decoded-content-length", Value: "1"}}
	}
	for name, c := range map[string]struct {
		fields protocol.Fields
		want   Demand
	}{
		"declared":           {declare(emptyHash), DemandNothing},
		"unsigned":           {declare(payloadUnsigned), DemandNothing},
		"unsigned, trailers": {declare(payloadUnsignedTrailer), DemandNothing},
		"chunks":             {declare(payloadChunked), DemandChunks},
		"chunks, trailers":   {declare(payloadChunkedTrailer), DemandChunks},
		"undeclared":         {protocol.Fields{s3}, DemandWhole},
		"not signed at all":  {nil, DemandNothing},
	} {
		p, err := newTestSigner(t, "sigv4:service=s3,region=eu-central-1").Plan(&Request{Method: "PUT", Host: testHost, Target: "/", Fields: c.fields})
		if err != nil || p.Demand() != c.want {
			t.Errorf("%s: %v, %v; want %v", name, p, err, c.want)
		}
	}
	r := &Request{Method: "PUT", Host: testHost, Target: "/", Fields: declare(emptyHash), Content: []byte("x"), Whole: true}
	if _, err := prove(newTestSigner(t, "sigv4"), testID+":"+testSecret, r); !errors.Is(err, ErrContent) {
		t.Errorf("wrong content that is there: %v", err)
	}
	r.Whole = false
	proof, err := prove(newTestSigner(t, "sigv4"), testID+":"+testSecret, r)
	if err != nil || proof.Content == nil {
		t.Fatal(proof, err)
	}
	var out bytes.Buffer
	w := proof.Content(&out)
	_, _ = io.WriteString(w, "x")
	if err := w.Close(); !errors.Is(err, ErrContent) || out.Len() != 0 {
		t.Errorf("wrong content that comes later: %v, %d bytes", err, out.Len())
	}
}

// TestSigV4Strip strips what a server could take for the signature's.
func TestSigV4Strip(t *testing.T) {
	s := newTestSigner(t, "sigv4")
	for name, want := range map[string]bool{
		"authorization": true, "Authorization": true, "X_Amz_Date": true, "x-amz-security_token": true, "x-amz-content-sha256": true,
		"proxy-authorization": true, "x-api-key": true, "x-amz-acl": false, "content-type": false, "date": false,
	} {
		if s.Strip(name) != want {
			t.Errorf("Strip(%q) = %v", name, !want)
		}
	}
}

// presignedQuery is the query of a request that was signed there at testNow, with more parameters before it.
func presignedQuery(more string) string {
	return more + "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + inert + "%2F20261128%2Feu-central-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=20261128T102030Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=" + emptyHash
}

// TestPresigned signs presigned requests anew, for at most 15 minutes from when they were made, and compares with the
// SDK.
func TestPresigned(t *testing.T) {
	for name, c := range map[string]struct {
		query   string
		after   time.Duration
		expires string // empty: refused
	}{
		"at once":       {presignedQuery("response-content-type=a%2Fb&"), 0, "900"},
		"later":         {presignedQuery(""), 5 * time.Minute, "600"},
		"too late":      {presignedQuery(""), 15 * time.Minute, ""},
		"short":         {strings.Replace(presignedQuery(""), "=3600", "=60", 1), time.Second, "59"},
		"short, late":   {strings.Replace(presignedQuery(""), "=3600", "=60", 1), time.Minute, ""},
		"clock ahead":   {presignedQuery(""), -10 * time.Minute, "900"},
		"of the future": {presignedQuery(""), -16 * time.Minute, ""},
		"eight days":    {strings.Replace(presignedQuery(""), "=3600", "=691200", 1), 0, ""},
		"no time":       {strings.Replace(presignedQuery(""), "=3600", "=0", 1), 0, ""},
		"twice":         {presignedQuery("X-Amz-Expires=900&"), 0, ""},
		"other case":    {strings.Replace(presignedQuery(""), "X-Amz-Expires", "x-amz-expires", 1), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Request{Method: "GET", Host: testHost, Target: "/a%20b?" + c.query, Presign: true}
			p, err := newTestSigner(t, "sigv4:service=s3").Plan(r)
			var proof *Proof
			if err == nil {
				proof, err = p.Sign(secret.New([]byte(testID+":"+testSecret+":"+testToken)), r, testNow.Add(c.after))
			}
			if c.expires == "" {
				if err == nil {
					t.Errorf("signed: %s", fieldsOf(proof))
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := url.Parse(fieldsOf(proof)[Target])
			if err != nil {
				t.Fatal(err)
			}
			if e := got.Query()["X-Amz-Expires"]; len(e) != 1 || e[0] != c.expires || len(proof.Fields) != 1 {
				t.Errorf("expires %q, want %s", e, c.expires)
			}
			if want := sdkPresigned(t, got, testNow.Add(c.after)); got.Query().Get(paramSignature) != want {
				t.Errorf("signature %s, want %s", got.Query().Get(paramSignature), want)
			}
		})
	}
}

// sdkPresigned is what the SDK signs the same request with.
func sdkPresigned(t *testing.T, target *url.URL, now time.Time) string {
	t.Helper()
	q := target.Query()
	for _, own := range []string{paramAlgorithm, paramKey, paramDate, paramCovered, paramToken, paramSignature} {
		q.Del(own)
	}
	u := *target
	u.Scheme, u.Host, u.RawQuery = "https", testHost, q.Encode()
	keys := aws.Credentials{AccessKeyID: testID, SecretAccessKey: testSecret, SessionToken: testToken}
	signed, _, err := v4.NewSigner().PresignHTTP(t.Context(), keys, &http.Request{Method: "GET", URL: &u, Host: testHost, Header: http.Header{}},
		payloadUnsigned, "s3", "eu-central-1", now, func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true })
	if err != nil {
		t.Fatal(err)
	}
	s, err := url.Parse(signed)
	if err != nil {
		t.Fatal(err)
	}
	return s.Query().Get(paramSignature)
}

// FuzzSigV4 asks to sign anything: a request that is signed carries one signature, in one place, and no byte that
// would end a field.
func FuzzSigV4(f *testing.F) {
	f.Add("/a?b=c", claimed(scope{"eu-central-1", "s3"}, "host;x-amz-date").Value, "20261128T000000Z", emptyHash, false)
	f.Add("/a?"+presignedQuery(""), "", "", "", true)
	f.Add("/../a//b%2F?x=+%2b", "AWS4-HMAC-SHA256 Credential=", "", payloadUnsigned, false)
	f.Fuzz(func(t *testing.T, target, authorization, date, digest string, presign bool) {
		if !protocol.IsPath(target) {
			return
		}
		fields := protocol.Fields{{Name: "authorization", Value: authorization}, {Name: "x-amz-date", Value: date}, {Name: "x-amz-content-sha256", Value: digest}}
		for _, l := range fields {
			if !protocol.IsFieldValue(l.Value) {
				return
			}
		}
		r := &Request{Method: "GET", Host: testHost, Target: target, Fields: fields, Whole: true, Presign: presign}
		proof, err := prove(newTestSigner(t, "sigv4"), testID+":"+testSecret, r)
		if err != nil {
			return
		}
		fieldsNow := fieldsOf(proof)
		if target, ok := fieldsNow[Target]; ok && (!presign || !protocol.IsPath(target) || len(fieldsNow) > 1) {
			t.Fatalf("target %q beside %d fields", target, len(fieldsNow)-1)
		}
		delete(fieldsNow, Target)
		for name, value := range fieldsNow {
			if !protocol.IsToken(name) || !protocol.IsFieldValue(value) {
				t.Fatalf("field %q: %q", name, value)
			}
		}
	})
}
