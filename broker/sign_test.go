package broker

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const (
	awsID     = "AKIATESTBROKER000001"
	awsSecret = "Mw3xQ9vB5kT7nR2yH8jL4cZ6pF1sD0gEaUoIyAkW"
	awsToken  = "IQoJb3JpZ2luX2VjEJ3aZKwPrXtYvBnMqLsDfGhJkl+/=="
)

// verifyAWS reports whether r, as it arrived, is signed with the right keys by what AWS's own SDK says.
func verifyAWS(r *http.Request) error {
	return verifyKeys(r, aws.Credentials{AccessKeyID: awsID, SecretAccessKey: awsSecret, SessionToken: awsToken})
}

// verifyKeys is verifyAWS with any keys.
func verifyKeys(r *http.Request, keys aws.Credentials) error {
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(date).Abs() > 5*time.Minute {
		return fmt.Errorf("date %q", r.Header.Get("X-Amz-Date"))
	}
	return verifyKeysAt(r, keys, date)
}

// verifyKeysAt is verifyKeys for a date that was looked at.
func verifyKeysAt(r *http.Request, keys aws.Credentials, date time.Time) error {
	auth := r.Header.Get("Authorization")
	_, after, _ := strings.Cut(auth, "SignedHeaders=")
	covered, _, _ := strings.Cut(after, ",")
	_, after, _ = strings.Cut(auth, "Credential=")
	credential, _, _ := strings.Cut(after, ",")
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || len(r.Header.Values("Authorization")) != 1 {
		return fmt.Errorf("authorization %q", auth)
	}
	again := &http.Request{Method: r.Method, URL: r.URL, Host: r.Host, Header: http.Header{}}
	again.URL.Scheme, again.URL.Host = "https", r.Host
	for _, name := range strings.Split(covered, ";") {
		if values := r.Header.Values(name); len(values) > 0 {
			again.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	for name := range r.Header {
		if strings.HasPrefix(name, "X-Amz-") && again.Header[name] == nil {
			return fmt.Errorf("field %s is not covered", name)
		}
	}
	err := v4.NewSigner().SignHTTP(r.Context(), keys, again, r.Header.Get("X-Amz-Content-Sha256"), scope[3], scope[2], date,
		func(o *v4.SignerOptions) { o.DisableURIPathEscaping = scope[3] == "s3" })
	if want := again.Header.Get("Authorization"); err != nil || auth != want {
		return fmt.Errorf("%v: authorization %q, want %q", err, auth, want)
	}
	return nil
}

// A signingDesk is a broker with a session whose secret signs for example.com.
type signingDesk struct {
	*desk
	session string
	env     []string
	token   []byte
	addr    string
	whole   atomic.Int64 // requests that arrived whole
}

// newSigningDesk makes one. The upstream answers with what verifying said, and the digest of the content.
func newSigningDesk(t *testing.T, scheme string, presign bool) *signingDesk {
	t.Helper()
	d := &signingDesk{}
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		d.whole.Add(1)
		if r.URL.Path == "/echo" {
			fmt.Fprintf(w, "id=%s secret=%s token=%s", awsID, awsSecret, r.Header.Get("X-Amz-Security-Token"))
			return
		}
		verdict := "verified"
		if r.URL.Query().Has("X-Amz-Signature") {
			verdict = "presigned for " + r.URL.Query().Get("X-Amz-Expires")
		} else if err := verifyAWS(r); err != nil {
			verdict = err.Error()
		}
		if sum := sha256.Sum256(b); len(r.Header.Get("X-Amz-Content-Sha256")) == 64 && r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
			verdict = "wrong digest"
		}
		fmt.Fprintf(w, "%s %d %s", verdict, len(b), r.Header.Get("Range"))
	}))
	t.Cleanup(up.Close)
	d.desk = newDesk(t, up)
	d.stop()
	d.cfg.Operator.Agents = map[string]control.Ceiling{"a": {Presign: presign}}
	d.start()
	in, err := control.ParseScheme(scheme)
	d.must(err)
	d.must(d.importing("a", d.elsewhere("a", "AWS_PROD", awsID+":"+awsSecret+":"+awsToken, func(m *control.Meta) { m.Inject = in })))
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("x"), Policy: control.AgentPolicy{
		Name: "a", Secrets: []string{"AWS_PROD"}, Secret: map[string]control.Assertion{"AWS_PROD": {Placeholder: true}}, Egress: control.Egress{Default: "allow"},
	}}, nil))
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, control.SessionRequest{
		Agent: "a", Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("x"),
	}, &s))
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	d.session, d.addr, d.env, d.token = s.ID, s.Broker, h.Env, h.Token
	return d
}

func (d *signingDesk) stream() *peer {
	d.t.Helper()
	p, err := d.dial(d.addr, protocol.KindForward, d.token)
	d.must(err)
	return p
}

// held is how many bytes of content are held to be signed, once exchanges have had the time to end.
func (d *signingDesk) held() int64 {
	d.broker.mu.Lock()
	s := d.broker.live[d.session]
	d.broker.mu.Unlock()
	for deadline := time.Now().Add(20 * time.Second); s.signing.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	return s.signing.Load()
}

// variable returns one of the session's variables.
func (d *signingDesk) variable(name string) string {
	for _, v := range d.env {
		if value, ok := strings.CutPrefix(v, name+"="); ok {
			return value
		}
	}
	return ""
}

// put is a PUT as an SDK signs it with the session's placeholders, its clock hours off.
func (d *signingDesk) put(service, payload string, fields ...protocol.Field) *protocol.Request {
	date := time.Now().Add(-9 * time.Hour).UTC().Format("20060102T150405Z")
	req := get("/things/a%20b?x-id=PutObject", append(fields,
		protocol.Field{Name: "authorization", Value: "AWS4-HMAC-SHA256 Credential=" + d.variable("AWS_ACCESS_KEY_ID") + "/" + date[:8] + "/eu-central-1/" + service +
			"/aws4_request, SignedHeaders=host;x-amz-date, Signature=" + strings.Repeat("0", 64)},
		protocol.Field{Name: "x-amz-date", Value: date}, protocol.Field{Name: "x-amz-security-token", Value: "inert"}, protocol.Field{Name: "x-amz-acl", Value: "private"})...)
	if payload != "" {
		req.Fields = append(req.Fields, protocol.Field{Name: "x-amz-content-sha256", Value: payload})
	}
	req.Method = "PUT"
	return req
}

func digestOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return hex.EncodeToString(sum[:])
}

// TestSigned sends what SDKs send, with placeholders and a clock that is off, and has the SDK verify what arrives.
func TestSigned(t *testing.T) {
	d := newSigningDesk(t, "sigv4:region=eu-central-1", false)
	if d.variable("AWS_ACCESS_KEY_ID") == "" || d.variable("AWS_SECRET_ACCESS_KEY") == "" || d.variable("AWS_REGION") != "eu-central-1" ||
		strings.Contains(strings.Join(d.env, " "), awsID) {
		t.Fatalf("environment %q", d.env)
	}
	content := strings.Repeat("content ", 40_000)
	for name, c := range map[string]struct {
		req     *protocol.Request
		content string
	}{
		"digest":          {d.put("s3", digestOf(content)), content},
		"digest, small":   {d.put("s3", digestOf("x")), "x"},
		"digest, length":  {d.put("s3", digestOf(content), protocol.Field{Name: "content-length", Value: strconv.Itoa(len(content))}), content},
		"nothing":         {d.put("s3", digestOf("")), ""},
		"unsigned":        {d.put("s3", "UNSIGNED-PAYLOAD"), content},
		"undeclared":      {d.put("dynamodb", ""), content},
		"undeclared, 100": {d.put("dynamodb", "", protocol.Field{Name: "expect", Value: "100-continue"}), ""},
		"range":           {d.put("s3", digestOf(""), protocol.Field{Name: "range", Value: "bytes=0-1"}), ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, answer, err := d.stream().ask(c.req, c.content)
			want := fmt.Sprintf("verified %d ", len(c.content))
			if r := c.req.Fields.Get("range"); r != "" {
				want += r
			}
			if err != nil || answer != want {
				t.Errorf("%+v %q, %v; want %q", resp, answer, err, want)
			}
		})
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

// TestAttack31ContentSwapped declares a digest and sends other content: the upstream never gets a whole request.
func TestAttack31ContentSwapped(t *testing.T) {
	d := newSigningDesk(t, "sigv4", false)
	long := strings.Repeat("content ", 40_000)
	for name, c := range map[string]struct{ declared, sent string }{
		"there at once": {"content", "Content"},
		"empty":         {"content", ""},
		"long":          {long, "C" + long[1:]},
		"cut":           {long, long[:len(long)-1]},
		"appended":      {long, long + "x"},
	} {
		for _, length := range []bool{false, true} {
			req := d.put("s3", digestOf(c.declared))
			if length {
				req.Fields = append(req.Fields, protocol.Field{Name: "content-length", Value: strconv.Itoa(len(c.sent))})
			}
			resp, _, err := d.stream().ask(req, c.sent)
			if err != nil || resp.Status != 403 || resp.Fields.Get(protocol.FieldReason) != "unsignable" {
				t.Errorf("%s, length %v: %+v, %v", name, length, resp, err)
			}
		}
	}
	if n := d.whole.Load(); n != 0 {
		t.Errorf("%d requests arrived whole", n)
	}
	if _, answer, err := d.stream().ask(d.put("s3", digestOf(long)), long); err != nil || !strings.HasPrefix(answer, "verified") {
		t.Errorf("the control: %q, %v", answer, err)
	}
}

// TestSignedChunks has chunks signed anew on their way, and damaged ones stopped.
func TestSignedChunks(t *testing.T) {
	d := newSigningDesk(t, "sigv4", false)
	content := strings.Repeat("content ", 40_000)
	var framed strings.Builder
	signature := ";chunk-signature=" + strings.Repeat("0", 64) + "\r\n"
	for chunk := range slices.Chunk([]byte(content), 64<<10) {
		fmt.Fprintf(&framed, "%x%s%s\r\n", len(chunk), signature, chunk)
	}
	framed.WriteString("0" + signature + "\r\n")
	chunks := func() *protocol.Request {
		return d.put("s3", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", protocol.Field{Name: "x-amz-decoded-content-length", Value: strconv.Itoa(len(content))},
			protocol.Field{Name: "content-length", Value: strconv.Itoa(framed.Len())}, protocol.Field{Name: "content-encoding", Value: "aws-chunked"})
	}
	if resp, answer, err := d.stream().ask(chunks(), framed.String()); err != nil || answer != fmt.Sprintf("verified %d ", framed.Len()) {
		t.Errorf("%+v %q, %v", resp, answer, err)
	}
	d.whole.Store(0)
	bad := strings.Replace(framed.String(), "10000;", "0ffff;", 1)
	p := d.stream()
	d.must(p.w.WriteRequest(chunks()))
	go func() { _, _ = io.WriteString(p.w, bad); _ = p.w.Close(nil) }()
	var resp protocol.Response
	if err := p.r.ReadResponse(&resp); err != nil || resp.Fields.Get(protocol.FieldReason) != "unsignable" || d.whole.Load() != 0 {
		t.Errorf("damaged: %+v, %v, %d whole", resp, err, d.whole.Load())
	}
	if n := d.held(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

// TestSignedBounds sends content that must be held and is too much: of one request, and of all together.
func TestSignedBounds(t *testing.T) {
	d := newSigningDesk(t, "sigv4", false)
	for name, fields := range map[string][]protocol.Field{
		"declared":   {{Name: "content-length", Value: strconv.Itoa(sign.MaxContent + 1)}},
		"undeclared": nil,
	} {
		p := d.stream()
		if err := p.w.WriteRequest(d.put("dynamodb", "", fields...)); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(p.w, bytes.NewReader(make([]byte, sign.MaxContent+1))); _ = p.w.Close(nil) }()
		var resp protocol.Response
		if err := p.r.ReadResponse(&resp); err != nil || resp.Fields.Get(protocol.FieldReason) != "unsignable" {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
	}
	d.broker.mu.Lock()
	s := d.broker.live[d.session]
	d.broker.mu.Unlock()
	s.signing.Add(maxSigning) // as others would hold it
	if resp, _, err := d.stream().ask(d.put("dynamodb", ""), "content"); err != nil || resp.Status != 503 {
		t.Errorf("all is held: %+v, %v", resp, err)
	}
	s.signing.Add(-maxSigning)
	if _, answer, err := d.stream().ask(d.put("dynamodb", ""), "content"); err != nil || answer != "verified 7 " {
		t.Errorf("the control: %q, %v", answer, err)
	}
}

// TestAttack31Refused asks for what is not to be signed, and counts what arrives.
func TestAttack31Refused(t *testing.T) {
	d := newSigningDesk(t, "sigv4:service=s3,region=eu-central-1", false)
	presigned := get("/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + d.variable("AWS_ACCESS_KEY_ID") + "%2F20261128%2Feu-central-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=20261128T102030Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature=" + digestOf(""))
	smuggled := d.put("s3", digestOf(""))
	smuggled.Path += "&X-Amz-Security-Token=x"
	socket := get("/")
	socket.Method, socket.Protocol = "CONNECT", "websocket"
	elsewhere := d.put("s3", digestOf(""))
	elsewhere.Authority = "other.example"
	for name, c := range map[string]struct {
		req    *protocol.Request
		reason string
	}{
		"another service": {d.put("iam", digestOf("")), "unsignable"},
		"presigned":       {presigned, "unsignable"},
		"smuggled":        {smuggled, "unsignable"},
		"WebSocket":       {socket, "unsupported"},
		"another host":    {elsewhere, "placeholder_blocked"},
	} {
		if resp, _, err := d.stream().ask(c.req, ""); err != nil || resp.Fields.Get(protocol.FieldReason) != c.reason {
			t.Errorf("%s: %+v, %v", name, resp, err)
		}
	}
	if n := d.whole.Load(); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// TestPresignedAllowed signs in the query where the operator says so, for 15 minutes at most.
func TestPresignedAllowed(t *testing.T) {
	d := newSigningDesk(t, "sigv4:service=s3", true)
	now := time.Now().UTC().Format("20060102T150405Z")
	req := get("/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + d.variable("AWS_ACCESS_KEY_ID") + "%2F" + now[:8] + "%2Feu-central-1%2Fs3%2Faws4_request" +
		"&X-Amz-Date=" + now + "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=" + digestOf(""))
	_, answer, err := d.stream().ask(req, "")
	var seconds int
	if _, serr := fmt.Sscanf(answer, "presigned for %d", &seconds); err != nil || serr != nil || seconds > 900 || seconds < 600 {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestSignedEcho has the upstream repeat what it has: the secret and the token are masked, the key's id is no secret.
func TestSignedEcho(t *testing.T) {
	d := newSigningDesk(t, "sigv4:service=s3,region=eu-central-1", false)
	_, answer, err := d.stream().ask(get("/echo"), "")
	if err != nil || !strings.Contains(answer, awsID) || strings.Contains(answer, awsSecret[:12]) || strings.Contains(answer, awsToken[:12]) || !strings.Contains(answer, "token=*") {
		t.Errorf("%q, %v", answer, err)
	}
}

// TestSignedMessage signs by RFC 9421 on the way, and has the signature verified by hand from what arrives.
func TestSignedMessage(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	up := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		content, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		input, signature := r.Header.Get("Signature-Input"), r.Header.Get("Signature")
		digest := sha256.Sum256(content)
		wantDigest := "sha-256=:" + base64.StdEncoding.EncodeToString(digest[:]) + ":"
		base := fmt.Sprintf("\"@method\": %s\n\"@authority\": %s\n\"@path\": %s\n\"@query\": ?%s\n\"content-type\": %s\n\"content-digest\": %s\n\"@signature-params\": %s",
			r.Method, r.Host, r.URL.EscapedPath(), r.URL.RawQuery, r.Header.Get("Content-Type"), wantDigest, strings.TrimPrefix(input, "sig1="))
		b, err := base64.StdEncoding.DecodeString(strings.TrimSuffix(strings.TrimPrefix(signature, "sig1=:"), ":"))
		ok := err == nil && ed25519.Verify(public, []byte(base), b) && r.Header.Get("Content-Digest") == wantDigest && len(r.Header.Values("Signature")) == 1
		fmt.Fprintf(w, "%v %d", ok, len(content))
	}))
	defer up.Close()
	d := newDesk(t, up)
	in, err := control.ParseScheme("rfc9421:alg=ed25519,keyid=k1")
	d.must(err)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	d.must(d.importing("a", d.elsewhere("a", "KEY", key, func(m *control.Meta) { m.Inject = in })))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	for _, size := range []int{0, 10, 300_000} {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		req := get("/a%20b?c=d", protocol.Field{Name: "content-type", Value: "text/plain"}, protocol.Field{Name: "signature", Value: "sig1=:AAAA:"},
			protocol.Field{Name: "signature-input", Value: "sig1=()"})
		req.Method = "POST"
		if _, answer, err := p.ask(req, strings.Repeat("x", size)); err != nil || answer != fmt.Sprintf("true %d", size) {
			t.Errorf("%q, %v", answer, err)
		}
	}
}
