package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/google/go-cmp/cmp"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// A proofDesk is a broker with a session whose machine has a way out of its own. Whatever arrives upstream is counted.
type proofDesk struct {
	*desk
	session string
	addr    string
	token   []byte
	hits    atomic.Int64
}

// newProofDesk makes one with an agent file and secrets for example.com, by name: how each is set, and its value.
func newProofDesk(t *testing.T, file control.AgentPolicy, ownEgress bool, secrets map[string][2]string) *proofDesk {
	t.Helper()
	d := &proofDesk{}
	up := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { d.hits.Add(1) }))
	t.Cleanup(up.Close)
	d.desk = newDesk(t, up)
	for name, s := range secrets {
		d.must(d.setAs("a", name, s[1], s[0], 1, "https://example.com"))
		file.Secrets = append(file.Secrets, name)
	}
	file.Name = "a"
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "a", File: []byte("x"), Policy: file}, nil))
	req := vmOf("a")
	req.Socket, req.Attach, req.OwnEgress, req.Workload.Argv, req.File = "hybrid://"+filepath.Join(d.dir, "v"), true, ownEgress, nil, []byte("x")
	var s control.SessionCreated
	d.must(d.call("POST", control.PathSessions, req, &s))
	d.session, d.addr = s.ID, "unix://"+filepath.Join(d.dir, "v_618")
	h, err := d.hello(d.addr, 1)
	d.must(err)
	d.token = h.Token
	return d
}

// ask asks for a proof, as the guest does. A refusal is its reason.
func (d *proofDesk) ask(ask protocol.SignRequest) (answer protocol.SignResponse, reason string) {
	d.t.Helper()
	body, err := json.Marshal(ask)
	d.must(err)
	resp, text := d.post(protocol.KindChannel, string(body))
	if resp.Status != 200 {
		return answer, resp.Fields.Get(protocol.FieldReason)
	}
	d.must(json.Unmarshal([]byte(text), &answer))
	return answer, ""
}

// post sends a body to /v1/sign on a stream of a kind.
func (d *proofDesk) post(kind protocol.Kind, body string) (protocol.Response, string) {
	d.t.Helper()
	p, err := d.dial(d.addr, kind, d.token)
	d.must(err)
	defer p.Close()
	resp, text, err := p.ask(&protocol.Request{Method: "POST", Scheme: protocol.Scheme, Authority: protocol.BrokerAuthority, Path: protocol.PathSign}, body)
	d.must(err)
	return resp, text
}

func wanted(method, path string, fields ...protocol.SignField) protocol.SignRequest {
	sum := sha256.Sum256([]byte("content"))
	return protocol.SignRequest{Method: method, Authority: "example.com", Path: path, Fields: fields, SHA256: sum[:]}
}

// s3Keys are keys without a session token.
const s3Keys = awsID + ":" + awsSecret

// TestSignOnly has a proof for a request that the machine sends itself, which AWS's own SDK verifies. Nothing is sent by the broker, and
// the audit has one record of it, without the proof.
func TestSignOnly(t *testing.T) {
	d := newProofDesk(t, control.AgentPolicy{Egress: control.Egress{Allow: []string{"example.com"}}}, true, map[string][2]string{"AWS_PROD": {"sigv4:service=s3,region=eu-central-1", s3Keys}})
	ask := wanted("PUT", "/bucket/a%20b?x-id=PutObject", protocol.SignField{Name: "x-amz-acl", Value: "private"}, protocol.SignField{Name: "authorization", Value: "own"})
	answer, reason := d.ask(ask)
	if reason != "" || !slices.Equal(answer.Remove, []string{"authorization"}) || time.Until(answer.Expires) > protocol.MaxDetached {
		t.Fatalf("%s: %+v", reason, answer)
	}
	r := httptest.NewRequest(ask.Method, "https://example.com"+ask.Path, nil)
	r.Header.Set("X-Amz-Acl", "private")
	for _, f := range answer.Fields {
		r.Header.Set(f.Name, f.Value)
	}
	date, err := time.Parse("20060102T150405Z", r.Header.Get("X-Amz-Date"))
	if err != nil || time.Since(date) < 9*time.Minute { // the service takes it for fifteen
		t.Errorf("dated %v, %v", date, err)
	}
	if err := verifyKeysAt(r, aws.Credentials{AccessKeyID: awsID, SecretAccessKey: awsSecret}, date); err != nil {
		t.Error(err)
	}
	if d.hits.Load() != 0 {
		t.Error("the broker sent something")
	}
	text := d.auditText()
	signature := r.Header.Get("Authorization")
	if n := strings.Count(text, `"event":"signed_only"`); n != 1 || strings.Contains(text, signature[len(signature)-20:]) || strings.Contains(text, awsSecret[:12]) {
		t.Errorf("%d records: %s", n, text)
	}
	for _, want := range []string{`"method":"PUT"`, `"path":"/bucket/a%20b?x-id=PutObject"`, `"secret":"AWS_PROD","version":1`, `"verdict":"allow"`, `"sha256":"` + hex.EncodeToString(ask.SHA256) + `"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the audit does not say %s: %s", want, text)
		}
	}
}

// TestAttack31SignOnly asks for proofs that are not to be had: of secrets that are put into requests, of requests that policy would
// not send, of more than one request.
func TestAttack31SignOnly(t *testing.T) {
	file := control.AgentPolicy{Egress: control.Egress{Deny: []string{"DELETE example.com", "example.com/secret/**"}, Allow: []string{"other.example"}}}
	s3 := map[string][2]string{"AWS_PROD": {"sigv4:service=s3,region=eu-central-1", s3Keys}}
	d := newProofDesk(t, file, true, s3)
	field := func(name, value string) protocol.SignField { return protocol.SignField{Name: name, Value: value} }
	elsewhere, unknown, denied := wanted("GET", "/"), wanted("GET", "/"), wanted("GET", "/")
	elsewhere.Authority, unknown.Authority, denied.Authority = "other.example", "exa mple.com", "nobody.example"
	port, short, none := wanted("GET", "/"), wanted("GET", "/"), wanted("GET", "/")
	port.Authority, short.SHA256, none.SHA256 = "example.com:8443", short.SHA256[:31], nil
	for name, c := range map[string]struct {
		ask    protocol.SignRequest
		reason string
	}{
		"a method that is denied":    {wanted("DELETE", "/a"), "denied_by_rule"},
		"a path that is denied":      {wanted("GET", "/secret/x"), "denied_by_rule"},
		"a path that may be":         {wanted("GET", "/a/%2e%2e/secret/x"), "ambiguous_path"},
		"a method by a field":        {wanted("POST", "/a", field("x-http-method-override", "DELETE")), "denied_by_rule"},
		"a path by a field":          {wanted("POST", "/a", field("x-original-url", "/secret/x")), "denied_by_rule"},
		"a host that no rule allows": {denied, "denied"},
		"a host without a secret":    {elsewhere, "no_signer"},
		"a port without a secret":    {port, "denied"},
		"no host":                    {unknown, "bad_authority"},
		"unsigned content":           {wanted("PUT", "/a", field("x-amz-content-sha256", "UNSIGNED-PAYLOAD")), "unsignable"},
		"content of another digest":  {wanted("PUT", "/a", field("x-amz-content-sha256", digestOf(""))), "unsignable"},
		"presigned":                  {wanted("GET", "/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential="+awsID+"%2F20261128%2Feu-central-1%2Fs3%2Faws4_request&X-Amz-Date=20261128T102030Z&X-Amz-Expires=3600&X-Amz-SignedHeaders=host&X-Amz-Signature="+digestOf("")), "unsignable"},
		"smuggled":                   {wanted("GET", "/a?X-Amz-Security-Token=x"), "unsignable"},
		"another service's":          {wanted("GET", "/a", field("authorization", "AWS4-HMAC-SHA256 Credential=x/20261128/eu-central-1/iam/aws4_request, SignedHeaders=host;x-amz-date, Signature="+digestOf("")), field("x-amz-date", "20261128T000000Z")), "unsignable"},
		"a placeholder of nobody's":  {wanted("GET", "/a", field("authorization", "Bearer "+control.PlaceholderMark+"0123456789012345678901")), "placeholder_blocked"},
		"TRACE":                      {wanted("TRACE", "/a"), "bad_request"},
		"CONNECT":                    {wanted("CONNECT", "/a"), "bad_request"},
		"no method":                  {wanted("", "/a"), "bad_request"},
		"no path":                    {wanted("OPTIONS", "*"), "bad_request"},
		"a path that ends a line":    {wanted("GET", "/a\r\nhost: b"), "bad_request"},
		"a field that ends a line":   {wanted("GET", "/a", field("x-a", "b\r\nhost: c")), "bad_request"},
		"another host in a field":    {wanted("GET", "/a", field("host", "other.example")), "bad_request"},
		"a field of the connection":  {wanted("GET", "/a", field("connection", "x-amz-date")), "bad_request"},
		"a field of ours":            {wanted("GET", "/a", field("torno-dialled", "192.0.2.1:443")), "bad_request"},
		"upper case":                 {wanted("GET", "/a", field("X-Amz-Acl", "private")), "bad_request"},
		"a short digest":             {short, "bad_request"},
		"no digest":                  {none, "bad_request"},
		"the name that is always refused": {func() protocol.SignRequest {
			a := wanted("GET", "/")
			a.Authority = protocol.SelfTestAuthority
			return a
		}(), "self_test"},
	} {
		if answer, reason := d.ask(c.ask); reason != c.reason || len(answer.Fields) > 0 {
			t.Errorf("%s: %q, want %q: %+v", name, reason, c.reason, answer)
		}
	}
	if _, reason := d.ask(wanted("GET", "/a")); reason != "" {
		t.Errorf("the control: %s", reason)
	}
	for name, body := range map[string]string{"another key": `{"method":"GET","secret":"AWS_PROD"}`, "no object": `[]`, "two": `{}{}`, "nothing": ``} {
		if resp, _ := d.post(protocol.KindChannel, body); resp.Fields.Get(protocol.FieldReason) != "bad_request" {
			t.Errorf("%s: %+v", name, resp)
		}
	}
	if resp, _ := d.post(protocol.KindForward, `{}`); resp.Fields.Get(protocol.FieldReason) != "bad_request" { // attack 41
		t.Errorf("on a forward stream: %+v", resp)
	}
	if d.hits.Load() != 0 {
		t.Error("the broker sent something")
	}
	if text := d.auditText(); strings.Count(text, `"event":"signed_only"`) != 1 || strings.Count(text, `"event":"sign_refused"`) < 15 || strings.Contains(text, awsSecret[:12]) {
		t.Errorf("the audit: %s", text)
	}
}

// TestAttack31SignOnlyKinds asks of every kind of secret: those that are put into requests, minted from, or looser than one request
// give nothing, whatever their host.
func TestAttack31SignOnlyKinds(t *testing.T) {
	for as, c := range map[string]struct{ value, reason string }{
		"bearer": {testKey, "no_signer"}, "basic:user=me": {testKey, "no_signer"}, "query:name=key": {testKey, "no_signer"}, "path:template=/{KEY}/": {testKey, "no_signer"},
		"cookie:name=sid": {testKey, "no_signer"}, "jwt:alg=HS256": {testKey, "no_signer"}, "azure-storage:account=a": {"a2V5LWluLWJhc2U2NC0wMTIzNDU2Nzg5", "no_signer"},
		"oauth2:token=https://example.com/token,id=c":                        {testKey, "no_signer"},
		"aws-role:role=arn:aws:iam::123456789012:role/x,region=eu-central-1": {s3Keys, "no_signer"},
		"hmac:preset=stripe": {hookSecret, "unsignable"}, "hmac:preset=coinbase-exchange": {"id:a2V5LWluLWJhc2U2NC0wMTIzNDU2Nzg5:pass-phrase-0123456789", "unsignable"},
		"sigv4:service=s3,region=eu-central-1": {s3Keys + ":" + awsToken, "unsignable"},
	} {
		d := newProofDesk(t, control.AgentPolicy{}, true, map[string][2]string{"KEY": {as, c.value}})
		answer, reason := d.ask(wanted("GET", "/KEY/a"))
		if reason != c.reason || len(answer.Fields) > 0 || d.hits.Load() > 0 {
			t.Errorf("%s: %q, want %q: %+v", as, reason, c.reason, answer)
		}
		d.stop()
	}
}

// TestSignOnlyNeedsOwnEgress asks in a session whose machine has no way out of its own: what it sends goes through the broker.
func TestSignOnlyNeedsOwnEgress(t *testing.T) {
	d := newProofDesk(t, control.AgentPolicy{}, false, map[string][2]string{"AWS_PROD": {"sigv4:service=s3,region=eu-central-1", s3Keys}})
	if answer, reason := d.ask(wanted("GET", "/a")); reason != "unsupported" || len(answer.Fields) > 0 {
		t.Errorf("%s: %+v", reason, answer)
	}
}

// TestSignOnlyBounds holds proofs to the session's limits, to a person's word, and to what the audit has room for.
func TestSignOnlyBounds(t *testing.T) {
	s3 := map[string][2]string{"AWS_PROD": {"sigv4:service=s3,region=eu-central-1", s3Keys}}
	d := newProofDesk(t, control.AgentPolicy{Limits: control.AgentLimits{Bounds: control.Bounds{RequestsPerSecond: 0.1, Burst: 1}}}, true, s3)
	if _, reason := d.ask(wanted("GET", "/a")); reason != "" {
		t.Errorf("the first: %s", reason)
	}
	if _, reason := d.ask(wanted("GET", "/a")); reason != "rate_limited" {
		t.Errorf("the second: %q", reason)
	}
	d = newProofDesk(t, control.AgentPolicy{Egress: control.Egress{Ask: []string{"POST example.com/**"}}}, true, s3)
	for _, allow := range []bool{true, false} {
		done := make(chan string, 1)
		go func() { _, reason := d.ask(wanted("POST", "/a")); done <- reason }()
		w := d.waiting(1)[0]
		if w.Secret != "AWS_PROD" {
			t.Errorf("%+v waits", w)
		}
		d.must(d.decide(w.ID, allow, false))
		if reason, want := <-done, map[bool]string{true: "", false: "ask_denied"}[allow]; reason != want {
			t.Errorf("allowed %v: %q", allow, reason)
		}
	}
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=AWS_PROD&version=1", nil, nil))
	if _, reason := d.ask(wanted("GET", "/a")); reason != "revoked" {
		t.Errorf("a secret that is gone: %q", reason)
	}
}

// TestSignOnlyReachesSigners holds by type what attack 31 asks for: nothing that puts a secret into requests is a signer whose proofs may
// be handed out, and the code that answers gets at a secret by Held alone.
func TestSignOnlyReachesSigners(t *testing.T) {
	for _, as := range []string{"bearer", "basic", "git", "query:name=k", "path:template=/{KEY}/", "cookie:name=c", "client-cert", "content", "jwt:alg=HS256", "oauth2:token=https://a.example/t,id=c"} {
		in, err := control.ParseScheme(as)
		if err != nil {
			t.Fatal(err)
		}
		injector, err := credential.NewInjector(control.Meta{Name: "KEY", Inject: in})
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := injector.(sign.Signer); ok {
			t.Errorf("the injector of %s is a signer", as)
		}
	}
	f, err := parser.ParseFile(token.NewFileSet(), "detach.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var of []string // what is asked of the secret
	ast.Inspect(f, func(n ast.Node) bool {
		outer, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if inner, ok := outer.X.(*ast.SelectorExpr); ok && inner.Sel.Name == "use" {
			of = append(of, outer.Sel.Name)
		}
		switch outer.Sel.Name { // what an exchange makes credentials by
		case "authorised", "credentials", "writeHead", "Fields", "TokenFields", "Injector", "Secret", "mint", "proof", "open":
			if x, ok := outer.X.(*ast.Ident); ok && x.Name == "x" {
				t.Errorf("x.%s in detach.go", outer.Sel.Name)
			}
		}
		return true
	})
	slices.Sort(of)
	if diff := cmp.Diff([]string{"Count", "Held"}, of); diff != "" {
		t.Error(diff)
	}
}
