package broker

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// local is a request to a metadata service, with fields as "name: value".
func local(request string, fields ...string) *protocol.Request {
	method, rest, _ := strings.Cut(request, " ")
	host, path, _ := strings.Cut(rest, "/")
	r := &protocol.Request{Method: method, Scheme: "http", Authority: host, Path: "/" + path}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		r.Fields = append(r.Fields, protocol.Field{Name: name, Value: value})
	}
	return r
}

const (
	imdsToken = "PUT 169.254.169.254/latest/api/token"
	imdsTTL   = "x-aws-ec2-metadata-token-ttl-seconds: 300"
	imdsRole  = "GET 169.254.169.254/latest/meta-data/iam/security-credentials/torno"
)

// imds returns what AWS's service gives out on a stream.
func imds(t *testing.T, stream func() *peer) (token string, keys map[string]string) {
	t.Helper()
	_, token, err := stream().ask(local(imdsToken, imdsTTL), "")
	if err != nil {
		t.Fatal(err)
	}
	token = "x-aws-ec2-metadata-token: " + token
	resp, body, err := stream().ask(local(imdsRole, token), "")
	if err != nil || resp.Status != 200 || json.Unmarshal([]byte(body), &keys) != nil {
		t.Fatalf("%v %q, %v", resp, body, err)
	}
	return token, keys
}

// Keys that the metadata service gave out are inert, and what they sign arrives signed with the secret's.
func TestMetadataAWS(t *testing.T) {
	var verdict string
	d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		verdict = "verified"
		if err := verifyAWS(r); err != nil {
			verdict = err.Error()
		}
		fmt.Fprint(w, r.Header)
	}), "sigv4:region=eu-central-1", awsID+":"+awsSecret+":"+awsToken)
	_, keys := imds(t, stream)
	for _, k := range []string{"AccessKeyId", "SecretAccessKey", "Token"} {
		if !strings.HasPrefix(keys[k], control.PlaceholderMark) {
			t.Errorf("%s is %q", k, keys[k])
		}
	}
	date := "20260102T030405Z"
	req := get("/x", protocol.Field{Name: "authorization", Value: "AWS4-HMAC-SHA256 Credential=" + keys["AccessKeyId"] +
		"/20260102/eu-central-1/s3/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=" + strings.Repeat("0", 64)},
		protocol.Field{Name: "x-amz-date", Value: date}, protocol.Field{Name: "x-amz-security-token", Value: keys["Token"]},
		protocol.Field{Name: "x-amz-content-sha256", Value: digestOf("")})
	resp, body, err := stream().ask(req, "")
	if err != nil || resp.Status != 200 || verdict != "verified" || strings.Contains(body, keys["Token"]) {
		t.Errorf("%v, %s, %s, %v", resp, verdict, body, err)
	}
	log := d.auditText()
	if !strings.Contains(log, `"rule":"http://169.254.169.254/latest/**"`) || strings.Contains(log, awsSecret) || strings.Contains(log, `"event":"token_minted"`) {
		t.Errorf("audit: %s", log)
	}
	// Once the secret is revoked there is nothing left to ask.
	d.must(d.call("POST", control.PathRevoke+"?agent=a&name=KEY", nil, nil))
	token, _, err := stream().ask(local(imdsToken, imdsTTL), "")
	if err != nil || token.Fields.Get("torno-reason") != "revoked" {
		t.Errorf("after the revocation: %v, %v", token, err)
	}
}

// A token that Google's server gave out is replaced by one that the broker mints with the key; the id token of an audience as well.
func TestMetadataGoogle(t *testing.T) {
	_, pem := rsaKey(t)
	key, _ := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "me@p.iam.gserviceaccount.com", "project_id": "p", "private_key": pem, "token_uri": idServer + "/token",
	})
	var arrived string
	id := &issuer{}
	_, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived = strings.Join(r.Header.Values("Authorization"), "|")
		echoToken(w, r)
	}), id, "google:token="+idServer+"/token", string(key))
	const flavored, root = "metadata-flavor: Google", "GET metadata.google.internal/computeMetadata/v1/"
	for path, want := range map[string]string{"project/project-id": "p", "instance/service-accounts/default/email": "me@p.iam.gserviceaccount.com"} {
		if resp, body, err := stream().ask(local(root+path, flavored), ""); err != nil || body != want || resp.Fields.Get("metadata-flavor") != "Google" {
			t.Errorf("%s: %v %q, %v", path, resp, body, err)
		}
	}
	_, body, err := stream().ask(local(root+"instance/service-accounts/default/token", flavored), "")
	var got struct {
		Token string `json:"access_token"`
	}
	if err != nil || json.Unmarshal([]byte(body), &got) != nil || !strings.HasPrefix(got.Token, "ya29."+control.PlaceholderMark) || id.count() != 0 {
		t.Fatalf("%q, %v; %d minted", body, err, id.count())
	}
	resp, body, err := stream().ask(get("/", protocol.Field{Name: "authorization", Value: "Bearer " + got.Token}), "")
	_, _, minted := id.last()
	if err != nil || resp.Status != 200 || arrived != "Bearer "+minted || tokenLeaks(minted, body) {
		t.Errorf("%v, %v: arrived %q, minted %q, came back %q", resp, err, arrived, minted, body)
	}
	if resp, _, err := stream().ask(local(root+"instance/service-accounts/default/identity?audience="+url.QueryEscape("https://example.com"), flavored), ""); err != nil || resp.Status != 404 {
		t.Errorf("an id token that no secret is for: %v, %v", resp, err)
	}
}

// TestAttack23Metadata asks for metadata services where the session has no secret for them, or not as their own clients do: what
// there is of an answer has nothing in it, and the host's own metadata service is never asked.
func TestAttack23Metadata(t *testing.T) {
	d, stream := openedAs(t, http.NotFoundHandler(), "sigv4:region=eu-central-1", awsID+":"+awsSecret)
	d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: "b", File: []byte("x"), Policy: control.AgentPolicy{
		Name: "b", Egress: control.Egress{Default: "allow"},
	}}, nil))
	open := func(r control.SessionRequest) func() *peer {
		r.Isolation, r.Workload = protocol.IsolationNamespace, protocol.Workload{Argv: []string{"true"}}
		var s control.SessionCreated
		d.must(d.call("POST", control.PathSessions, r, &s))
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		return func() *peer {
			p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
			d.must(err)
			return p
		}
	}
	plain := open(control.SessionRequest{Agent: "b", File: []byte("x")}) // all is allowed, but there is no secret
	other := open(control.SessionRequest{Agent: "a"})
	token, _ := imds(t, stream)
	long := strings.Repeat("a", protocol.MaxPath-len("/latest/"))
	for name, tt := range map[string]struct {
		stream func() *peer
		req    *protocol.Request
		want   string // a reason, or a status
	}{
		"no secret":                  {plain, local(imdsToken, imdsTTL), "forbidden_address"},
		"no secret, Google":          {plain, local("GET 169.254.169.254/computeMetadata/v1/", "metadata-flavor: Google"), "forbidden_address"},
		"no secret, beside a task":   {plain, local("GET 169.254.170.2/v2/credentials"), "forbidden_address"},
		"another cloud's":            {stream, local("GET 169.254.169.254/computeMetadata/v1/", "metadata-flavor: Google"), "denied"},
		"another cloud's name":       {stream, local("GET metadata.google.internal/computeMetadata/v1/", "metadata-flavor: Google"), "denied"},
		"Azure's":                    {stream, local("GET 169.254.169.254/metadata/identity/oauth2/token", "metadata: true"), "denied"},
		"over https":                 {stream, &protocol.Request{Method: "GET", Scheme: "https", Authority: "169.254.169.254", Path: "/latest/meta-data/"}, "denied"},
		"another port":               {stream, local("GET 169.254.169.254:8080/latest/meta-data/"), "denied"},
		"mapped":                     {stream, local("GET [::ffff:169.254.169.254]/latest/meta-data/"), "401"},
		"a number":                   {stream, local("GET 2852039166/latest/meta-data/"), "bad_authority"},
		"octal":                      {stream, local("GET 0251.0376.0251.0376/latest/meta-data/"), "bad_authority"},
		"hexadecimal":                {stream, local("GET 0xa9fea9fe/latest/meta-data/"), "bad_authority"},
		"a name for it":              {stream, local("GET 169.254.169.254.nip.io/latest/meta-data/"), "denied"},
		"dialled it, asks another":   {stream, local("GET evil.example.net/latest/meta-data/", "torno-dialled: 169.254.169.254:80"), "denied"},
		"says that it was forwarded": {stream, local(imdsToken, imdsTTL, "x-forwarded-for: 192.0.2.7"), "403"},
		"version 1":                  {stream, local(imdsRole), "401"},
		"another session's token":    {other, local(imdsRole, token), "401"},
		"huge path":                  {stream, local("GET 169.254.169.254/latest/"+long, token), "404"},
		"dots":                       {stream, local("GET 169.254.169.254/latest/../computeMetadata/v1/", token), "ambiguous_path"},
		"encoded":                    {stream, local("GET 169.254.169.254/latest/%2e%2e/x", token), "ambiguous_path"},
		"two paths":                  {stream, local("GET 169.254.169.254/latest/meta-data/", token, "x-original-url: /computeMetadata/v1/"), "denied"},
		"a WebSocket":                {stream, &protocol.Request{Method: "CONNECT", Protocol: "websocket", Scheme: "http", Authority: "169.254.169.254", Path: "/latest/meta-data/"}, "forbidden_address"},
	} {
		resp, body, err := tt.stream().ask(tt.req, "")
		got := resp.Fields.Get("torno-reason")
		if got == "" {
			got = fmt.Sprint(resp.Status)
		}
		if err != nil || got != tt.want || strings.Contains(body, control.PlaceholderMark) {
			t.Errorf("%s: %s %q (%v), want %s", name, got, body, err, tt.want)
		}
	}
	// Content that nobody asked for does not stay in the stream's way.
	p := stream()
	if resp, _, err := p.ask(local(imdsToken, imdsTTL), strings.Repeat("x", 32<<10)); err != nil || resp.Status != 200 {
		t.Errorf("with content: %v, %v", resp, err)
	}
	if resp, _, err := p.ask(local(imdsRole, token), ""); err != nil || resp.Status != 200 {
		t.Errorf("the same stream: %v, %v", resp, err)
	}
}

// A placeholder of the metadata service goes nowhere but to hosts of its cloud's secrets.
func TestAttack16Metadata(t *testing.T) {
	d, stream := openedAs(t, http.NotFoundHandler(), "sigv4:region=eu-central-1,service=s3", awsID+":"+awsSecret)
	d.must(d.setFor("a", "OTHER", testKey, 1, "https://other.example.org"))
	s := d.session("a")
	h, err := d.hello(s.Broker, 1)
	d.must(err)
	own := func() *peer {
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		return p
	}
	_, theirs := imds(t, stream)
	_, keys := imds(t, own)
	ask := func(host, key string) string {
		req := get("/", protocol.Field{Name: "authorization", Value: "AWS4-HMAC-SHA256 Credential=" + key + "/20260102/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature=" + strings.Repeat("0", 64)})
		req.Authority = host
		resp, _, err := own().ask(req, "")
		if err != nil {
			t.Fatal(err)
		}
		return resp.Fields.Get("torno-reason")
	}
	if got := ask("other.example.org", keys["AccessKeyId"]); got != "placeholder_blocked" {
		t.Errorf("at another secret's host: %q", got)
	}
	if got := ask("example.com", theirs["AccessKeyId"]); got != "placeholder_blocked" {
		t.Errorf("another session's: %q", got)
	}
	if got := ask("example.com", keys["AccessKeyId"]); got != "" {
		t.Errorf("the control: %q", got)
	}
}

// Rules close what the broker answers as they close hosts.
func TestMetadataRules(t *testing.T) {
	d := newDesk(t, nil)
	d.stop()
	d.cfg.Operator.Agents = map[string]control.Ceiling{"ceiling": {Egress: &control.Egress{Allow: []string{"example.com"}}}}
	d.start()
	for agent, tt := range map[string]struct {
		egress control.Egress
		want   string
	}{
		"open": {control.Egress{}, ""}, "ceiling": {control.Egress{}, "denied"},
		"closed": {control.Egress{Deny: []string{"http://169.254.169.254"}}, "denied_by_rule"},
	} {
		d.must(d.setAs(agent, "KEY", awsID+":"+awsSecret, "sigv4", 1, "https://example.com"))
		d.must(d.call("PUT", control.PathTrust, control.TrustedFile{Agent: agent, File: []byte("x"), Policy: control.AgentPolicy{
			Name: agent, Secrets: []string{"KEY"}, Egress: tt.egress,
		}}, nil))
		var s control.SessionCreated
		d.must(d.call("POST", control.PathSessions, control.SessionRequest{
			Agent: agent, Isolation: protocol.IsolationNamespace, Workload: protocol.Workload{Argv: []string{"true"}}, File: []byte("x"),
		}, &s))
		h, err := d.hello(s.Broker, 1)
		d.must(err)
		p, err := d.dial(s.Broker, protocol.KindForward, h.Token)
		d.must(err)
		if resp, _, err := p.ask(local(imdsToken, imdsTTL), ""); err != nil || resp.Fields.Get("torno-reason") != tt.want {
			t.Errorf("%s: %v, %v, want %q", agent, resp, err, tt.want)
		}
	}
}
