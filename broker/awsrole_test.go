package broker

import (
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"torno.internal/protocol"
)

const (
	agentRole = "arn:aws:iam::123456789012:role/agent"
	roleAs    = "aws-role:external-id=torno-1,region=eu-central-1,role=" + agentRole + ",sts=" + idServer + "/"
)

// An sts is a stand-in of AWS's token service, which verifies who asks by what AWS's own SDK says.
type sts struct {
	mu     sync.Mutex
	base   aws.Credentials
	calls  int
	faults []string // what was wrong with calls
	issued []aws.Credentials
	answer func(w http.ResponseWriter, r *http.Request) bool // whether it has answered; nil: as it should
	web    func(token string) error                          // judges a web identity
}

func (s *sts) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	b, _ := io.ReadAll(r.Body)
	if s.answer != nil && s.answer(w, r) {
		return
	}
	form, _ := url.ParseQuery(string(b))
	if err := s.judge(r, b, form); err != nil {
		s.faults = append(s.faults, err.Error())
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>`)
		return
	}
	keys := aws.Credentials{AccessKeyID: "ASIA" + rand.Text()[:16], SecretAccessKey: rand.Text() + rand.Text()[:14], SessionToken: "IQoJb3JpZ2luX2Vj" + rand.Text() + rand.Text() + rand.Text()}
	s.issued = append(s.issued, keys)
	action := form.Get("Action")
	fmt.Fprintf(w, `<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><%sResult><Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey>
<SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials></%sResult></%sResponse>`,
		action, action, keys.AccessKeyID, keys.SecretAccessKey, keys.SessionToken, time.Now().Add(time.Hour).UTC().Format(time.RFC3339), action, action)
}

func (s *sts) judge(r *http.Request, content []byte, form url.Values) error {
	if form.Get("RoleArn") != agentRole || form.Get("RoleSessionName") != "torno-a" || form.Get("DurationSeconds") != "3600" {
		return fmt.Errorf("asked for %v", form)
	}
	if s.web != nil {
		if r.Header.Get("Authorization") != "" || form.Get("Action") != "AssumeRoleWithWebIdentity" {
			return fmt.Errorf("%s with %q", form.Get("Action"), r.Header.Get("Authorization"))
		}
		return s.web(form.Get("WebIdentityToken"))
	}
	if sum := sha256.Sum256(content); r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		return fmt.Errorf("the digest is of other content")
	}
	if form.Get("Action") != "AssumeRole" || form.Get("ExternalId") != "torno-1" {
		return fmt.Errorf("asked for %v", form)
	}
	return verifyKeys(r, s.base)
}

// keys are the last ones that were issued.
func (s *sts) keys() aws.Credentials {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.issued) == 0 {
		return aws.Credentials{}
	}
	return s.issued[len(s.issued)-1]
}

// verified answers whether the request is signed with the keys that s issued last, and with the keys themselves.
func (s *sts) verified(w http.ResponseWriter, r *http.Request) {
	keys, b := s.keys(), new(bytes.Buffer)
	if _, err := b.ReadFrom(r.Body); err != nil {
		return
	}
	if err := verifyKeys(r, keys); err != nil {
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	w.Header().Set("X-Echo", r.Header.Get("X-Amz-Security-Token"))
	for _, part := range []string{keys.SecretAccessKey, keys.SessionToken} {
		fmt.Fprintf(w, "%s\n%s\n%s\n", part, base64.StdEncoding.EncodeToString([]byte("x:"+part)), spell(part, "%%%02X"))
	}
	fmt.Fprintf(w, "id %s, %d bytes", keys.AccessKeyID, b.Len())
}

// auditWith is auditText once there is an event of a kind in it, which may come after the answer.
func (d *desk) auditWith(event string) string {
	d.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if log := d.auditText(); strings.Contains(log, `"event":"`+event+`"`) {
			return log
		}
	}
	d.t.Fatalf("no event %s", event)
	return ""
}

func newSTS() *sts {
	return &sts{base: aws.Credentials{AccessKeyID: awsID, SecretAccessKey: awsSecret}}
}

// TestAttack42AssumedRole assumes a role with keys that never go to the host: it gets what temporary keys sign, and what it
// repeats of them is masked.
func TestAttack42AssumedRole(t *testing.T) {
	s := newSTS()
	d, stream := openedMinting(t, http.HandlerFunc(s.verified), s, roleAs, awsID+":"+awsSecret)
	claim := protocol.Field{Name: "authorization", Value: "AWS4-HMAC-SHA256 Credential=own/20260102/eu-central-1/dynamodb/aws4_request, SignedHeaders=host, Signature=" + strings.Repeat("0", 64)}
	p := stream()
	for _, body := range []string{"", "content", "more"} {
		req := get("/table?a=b", claim)
		if body != "" {
			req.Method = "POST"
			req.Fields = append(req.Fields, protocol.Field{Name: "content-length", Value: fmt.Sprint(len(body))})
		}
		resp, got, err := p.ask(req, body)
		keys := s.keys()
		if err != nil || resp.Status != 200 || !strings.Contains(got, fmt.Sprintf("id %s, %d bytes", keys.AccessKeyID, len(body))) {
			t.Fatalf("%v, %q, %v; STS: %q", resp, got, err, s.faults)
		}
		for _, part := range []string{keys.SecretAccessKey, keys.SessionToken[len("IQoJb3JpZ2luX2Vj"):]} {
			if all := got + resp.Fields.Get("x-echo"); tokenLeaks(part, all) || len(maskedRun.FindAllString(all, -1)) < 5 {
				t.Errorf("came back: %q", all)
			}
		}
	}
	if s.calls != 1 {
		t.Errorf("%d calls for three requests", s.calls)
	}
	log := d.auditWith(eventMinted)
	if keys := s.keys(); tokenLeaks(keys.SecretAccessKey, log) || tokenLeaks(keys.SessionToken, log) || tokenLeaks(awsSecret, log) {
		t.Errorf("audit: %s", log)
	}
}

// A host that says 401 gets no second request with a signature of the first.
func TestAssumedRoleRefused(t *testing.T) {
	s, arrived := newSTS(), 0
	_, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		arrived++
		w.WriteHeader(http.StatusUnauthorized)
	}), s, "aws-role:external-id=torno-1,region=eu-central-1,role="+agentRole+",service=dynamodb,sts="+idServer+"/", awsID+":"+awsSecret)
	if resp, _, err := stream().ask(get("/"), ""); err != nil || resp.Status != 401 || arrived != 1 || s.calls != 1 {
		t.Errorf("%v, %v; %d requests, %d calls of STS", resp, err, arrived, s.calls)
	}
}

// TestAttack32STSEndpoints has STS lead elsewhere, flood, and declare entities: nothing is sent to the host, nothing secret is
// logged, and the session goes on once STS is well.
func TestAttack32STSEndpoints(t *testing.T) {
	elsewhere := 0
	evil := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere++ }))
	defer evil.Close()
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"redirect": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, evil.URL, http.StatusTemporaryRedirect)
			return true
		},
		"flood": func(w http.ResponseWriter, r *http.Request) bool {
			for range 1000 {
				if _, err := w.Write(bytes.Repeat([]byte("<a>"), 1000)); err != nil {
					break
				}
			}
			return true
		},
		"entities": func(w http.ResponseWriter, r *http.Request) bool {
			fmt.Fprint(w, `<!DOCTYPE a [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><AssumeRoleResponse>&b;</AssumeRoleResponse>`)
			return true
		},
		"echo": func(w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprintf(w, `<ErrorResponse><Error><Code>%s</Code><Message>%s</Message></Error></ErrorResponse>`, awsSecret, r.Header.Get("Authorization"))
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, arrived := newSTS(), 0
			s.answer = answer
			d, stream := openedMinting(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				arrived++
				s.verified(w, r)
			}), s, "aws-role:external-id=torno-1,region=eu-central-1,role="+agentRole+",service=dynamodb,sts="+idServer+"/", awsID+":"+awsSecret)
			p := stream()
			if resp, _, err := p.ask(get("/"), ""); err != nil || resp.Status != 502 || resp.Fields.Get("torno-reason") != "credential_unavailable" || arrived+elsewhere != 0 {
				t.Errorf("%v, %v; %d arrived, %d elsewhere", resp, err, arrived, elsewhere)
			}
			if log := d.auditWith(eventNotMinted); tokenLeaks(awsSecret, log) {
				t.Errorf("audit: %s", log)
			}
			s.mu.Lock()
			s.answer = nil
			s.mu.Unlock()
			status := 0
			for deadline := time.Now().Add(20 * time.Second); status != 200 && time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
				resp, _, err := p.ask(get("/"), "")
				d.must(err)
				status = resp.Status
			}
			if status != 200 {
				t.Errorf("the session is of no use any more: %d; %q", status, s.faults)
			}
		})
	}
}

// TestAttack42WebIdentity assumes a role with a token that a key signs anew for each call, and STS verifies.
func TestAttack42WebIdentity(t *testing.T) {
	key, pemKey := ecKey(t)
	s := newSTS()
	s.web = func(token string) error { return verifyES256(&key.PublicKey, token) }
	d, stream := openedMinting(t, http.HandlerFunc(s.verified), s,
		"aws-web-identity:iss=https://torno.example.org,region=eu-central-1,role="+agentRole+",service=dynamodb,sts="+idServer+"/,sub=agent", pemKey)
	resp, got, err := stream().ask(get("/"), "")
	if keys := s.keys(); err != nil || resp.Status != 200 || keys.SecretAccessKey == "" || tokenLeaks(keys.SecretAccessKey, got) {
		t.Errorf("%v, %q, %v; STS: %q", resp, got, err, s.faults)
	}
	block, _ := pem.Decode([]byte(pemKey))
	if log := d.auditWith(eventMinted); strings.Contains(log, base64.StdEncoding.EncodeToString(block.Bytes)[:24]) {
		t.Errorf("audit: %s", log)
	}
}

// verifyES256 reports whether token is a JWT for STS, signed by key (RFC 7518 §3.4).
func verifyES256(key *ecdsa.PublicKey, token string) error {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%d parts", len(parts))
	}
	sum := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || len(signature) != 64 || !ecdsa.Verify(key, sum[:], new(big.Int).SetBytes(signature[:32]), new(big.Int).SetBytes(signature[32:])) {
		return fmt.Errorf("the signature is wrong (%v)", err)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c struct {
		Iss, Sub, Aud string
		Exp           int64
	}
	if err != nil || json.Unmarshal(payload, &c) != nil {
		return fmt.Errorf("the claims are not JSON")
	}
	if c.Iss != "https://torno.example.org" || c.Sub != "agent" || c.Aud != "sts.amazonaws.com" || time.Until(time.Unix(c.Exp, 0)) <= 0 {
		return fmt.Errorf("claims %+v", c)
	}
	return nil
}

// A part of coded content can't be decoded. It passes from hosts that were never given anything of the secret, searched as it is;
// where the host gets a session token it does not.
func TestCodedParts(t *testing.T) {
	var coded bytes.Buffer
	z := gzip.NewWriter(&coded)
	_, _ = z.Write([]byte(rand.Text() + rand.Text() + rand.Text()))
	_ = z.Close()
	part := coded.Bytes()[10:40]
	host := func(answer []byte) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 10-%d/%d", 9+len(answer), coded.Len()))
			w.Header().Set("ETag", `"e"`)
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(answer)
		})
	}
	const as = "sigv4:region=eu-central-1,service=s3"
	for name, tt := range map[string]struct {
		as, value, reason string
		answer, want      []byte
	}{
		"a key that signs":        {as, awsID + ":" + awsSecret, "", part, part},
		"a key that is in it":     {as, awsID + ":" + awsSecret, "", []byte(awsSecret), []byte(strings.Repeat("*", len(awsSecret)))},
		"a session token":         {as, awsID + ":" + awsSecret + ":" + awsToken, "coded_content", part, nil},
		"keys that are got":       {roleAs[:strings.Index(roleAs, ",role=")] + ",role=" + agentRole + ",service=s3,sts=" + idServer + "/", awsID + ":" + awsSecret, "coded_content", part, nil},
		"a token that is sent":    {"bearer", testKey, "coded_content", part, nil},
		"a secret in a signature": {"rfc9421:alg=hmac-sha256,keyid=k", testKey, "", part, part},
	} {
		t.Run(name, func(t *testing.T) {
			_, stream := openedMinting(t, host(tt.answer), newSTS(), tt.as, tt.value)
			resp, body, err := stream().ask(get("/", protocol.Field{Name: "range", Value: "bytes=10-39"}), "")
			if err != nil || resp.Fields.Get("torno-reason") != tt.reason {
				t.Fatalf("%v, %v", resp, err)
			}
			if tt.reason == "" && (resp.Status != 206 || body != string(tt.want) || resp.Fields.Get("content-encoding") != "gzip" || resp.Fields.Get("etag") != `"e"`) {
				t.Errorf("%v, %q", resp, body)
			}
		})
	}
}
