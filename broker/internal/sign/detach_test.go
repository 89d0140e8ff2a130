package sign

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// apart is a request that somebody else sends: its content is known by its digest alone.
func apart(fields ...protocol.Field) *Request {
	sum := sha256.Sum256([]byte("content"))
	return &Request{Method: "PUT", Host: "api.example.org", Target: "/v1/a%20b?c=d", Fields: fields, Digest: sum[:], Length: -1}
}

// A detachable is a scheme whose proofs may be handed out, and how its verifier tells one.
type detachable struct {
	as, value string
	fields    []control.FieldTemplate
	// verify checks what arrives, with content and at a time; fields are all that the request has.
	verify func(r *Request, fields protocol.Fields, content string, now time.Time) error
}

func detachables(t *testing.T) map[string]detachable {
	t.Helper()
	edValue, edPublic := testKey(t, "ed25519")
	jwtValue, jwtPublic := testKey(t, "ES256")
	return map[string]detachable{
		"sigv4":     {"sigv4:service=s3,region=eu-central-1", testID + ":" + testSecret, nil, verifyApartAWS},
		"sigv4 sqs": {"sigv4:service=sqs,region=eu-central-1", testID + ":" + testSecret, nil, verifyApartAWS},
		"rfc9421": {"rfc9421:alg=ed25519,keyid=k1,expires=3600", edValue, nil, func(r *Request, fields protocol.Fields, content string, now time.Time) error {
			signed := *r
			signed.Content, signed.Fields = []byte(content), fields
			input := fields.Get("signature-input")
			_, after, _ := strings.Cut(input, ";expires=")
			expires, _, _ := strings.Cut(after, ";")
			if until, err := time.ParseDuration(expires + "s"); err != nil || now.Unix() > int64(until.Seconds()) || int64(until.Seconds())-now.Unix() > 300 {
				return errors.New("expired, or too long")
			}
			return verifyMessage(&signed, fields, edPublic, "ed25519")
		}},
		"hmac": {"hmac:sign={time:s}{lf}{method} {url}{lf}{body:sha256:hex}", hookKey, []control.FieldTemplate{{Name: "x-time", Value: "{time:s}"}, {Name: "x-signature", Value: "{signature}"}},
			func(r *Request, fields protocol.Fields, content string, now time.Time) error {
				sum := sha256.Sum256([]byte(content))
				text := fields.Get("x-time") + "\n" + r.Method + " https://" + r.Host + r.Target + "\n" + hex.EncodeToString(sum[:])
				d := delivery{now: now}
				if !d.fresh(fields.Get("x-time"), time.Second) || fields.Get("x-signature") != hex.EncodeToString([]byte(mac(sha256.New, hookKey, text))) {
					return errors.New("wrong signature")
				}
				return nil
			}},
		"jwt-request": {`jwt-request:alg=ES256,life=3600,claims={"req":"{method} {url}"%2C"digest":"{body:sha256:hex}"}`, jwtValue, nil,
			func(r *Request, fields protocol.Fields, content string, now time.Time) error {
				sum := sha256.Sum256([]byte(content))
				_, claims, err := verifyJWT(strings.TrimPrefix(fields.Get("authorization"), "Bearer "), "ES256", jwtPublic)
				if err != nil || claims["req"] != r.Method+" https://"+r.Host+r.Target || claims["digest"] != hex.EncodeToString(sum[:]) ||
					float64(now.Unix()) > claims["exp"].(float64) || claims["exp"].(float64)-claims["iat"].(float64) > 300 {
					return errors.New("wrong token")
				}
				return nil
			}},
	}
}

// verifyApartAWS verifies a request by AWS's own SDK, within the window that the service takes.
func verifyApartAWS(r *Request, fields protocol.Fields, content string, now time.Time) error {
	date, err := time.Parse(awsTime, fields.Get("x-amz-date"))
	scope := strings.Split(fields.Get("authorization"), "/")
	if err != nil || len(scope) != 5 {
		return errors.New("not signed")
	}
	window := 5 * time.Minute
	if scope[3] == "s3" {
		window = 15 * time.Minute
	}
	if now.Sub(date).Abs() > window {
		return errors.New("out of the window")
	}
	u, err := url.Parse("https://" + r.Host + r.Target)
	if err != nil {
		return err
	}
	sum := sha256.Sum256([]byte(content))
	again := &http.Request{Method: r.Method, URL: u, Host: r.Host, Header: http.Header{"X-Amz-Content-Sha256": {hex.EncodeToString(sum[:])}}}
	for _, f := range fields {
		if f.Name != "authorization" && f.Name != "x-amz-content-sha256" && f.Name != "user-agent" {
			again.Header.Add(f.Name, f.Value)
		}
	}
	keys := aws.Credentials{AccessKeyID: testID, SecretAccessKey: testSecret}
	err = v4.NewSigner().SignHTTP(context.Background(), keys, again, hex.EncodeToString(sum[:]), scope[3], scope[2], date,
		func(o *v4.SignerOptions) { o.DisableURIPathEscaping = scope[3] == "s3" })
	if err != nil || again.Header.Get("Authorization") != fields.Get("authorization") {
		return errors.New("wrong signature")
	}
	return nil
}

// held makes a scheme's secret one whose proofs may be handed out.
func held(t *testing.T, d detachable) *Held {
	t.Helper()
	in, err := control.ParseScheme(d.as)
	if err != nil {
		t.Fatal(err)
	}
	in.Fields = d.fields
	h, ok := Hold(New(control.Meta{Name: "KEY", Inject: in}), secret.New([]byte(d.value)))
	if !ok {
		t.Fatalf("%s: its proofs may not be handed out", d.as)
	}
	return h
}

// TestDetached has proofs verified that were handed out, and then with one thing of the request changed at a time, and too late.
func TestDetached(t *testing.T) {
	for name, d := range detachables(t) {
		t.Run(name, func(t *testing.T) {
			r := apart(protocol.Field{Name: "content-type", Value: "text/plain"}, protocol.Field{Name: "authorization", Value: "own"}, protocol.Field{Name: "signature", Value: "own"})
			proof, remove, err := held(t, d).Prove(r, testNow)
			if err != nil {
				t.Fatal(err)
			}
			if proof.Content != nil || proof.Expires.Sub(testNow) > protocol.MaxDetached || !slices.Contains(remove, "authorization") {
				t.Errorf("expires %v, remove %q", proof.Expires, remove)
			}
			fields := r.Fields.Clone().DelFunc(func(f protocol.Field) bool { return slices.Contains(remove, f.Name) || f.Name == "signature" })
			for name, value := range fieldsOf(proof) {
				fields = append(fields, protocol.Field{Name: name, Value: value})
			}
			check := func(change func(*Request, *string), now time.Time) error {
				other, content := *r, "content"
				change(&other, &content)
				return d.verify(&other, fields, content, now)
			}
			nothing := func(*Request, *string) {}
			if err := check(nothing, testNow.Add(4*time.Minute)); err != nil {
				t.Fatalf("%v: %v", err, fields)
			}
			for what, change := range map[string]func(*Request, *string){
				"method": func(r *Request, _ *string) { r.Method = "POST" }, "host": func(r *Request, _ *string) { r.Host = "api.example.net" },
				"path": func(r *Request, _ *string) { r.Target = "/v1/a%20c?c=d" }, "query": func(r *Request, _ *string) { r.Target = "/v1/a%20b?c=e" },
				"another parameter": func(r *Request, _ *string) { r.Target += "&e" }, "content": func(_ *Request, c *string) { *c = "Content" }, "no content": func(_ *Request, c *string) { *c = "" },
			} {
				if check(change, testNow) == nil {
					t.Errorf("with another %s it still holds", what)
				}
			}
			if check(nothing, testNow.Add(protocol.MaxDetached+time.Second)) == nil {
				t.Error("it holds for more than five minutes")
			}
		})
	}
}

// TestDetachRefused asks for proofs that would be good for more than the one request, or would give a part of the secret away.
func TestDetachRefused(t *testing.T) {
	const s3, keys = "sigv4:service=s3,region=eu-central-1", testID + ":" + testSecret
	signature := []control.FieldTemplate{{Name: "x-signature", Value: "{signature}"}}
	field := func(name, value string) protocol.Field { return protocol.Field{Name: name, Value: value} }
	presigned := apart()
	presigned.Target = "/a?" + presignedQuery("")
	long := apart()
	long.Digest = long.Digest[:31]
	for name, c := range map[string]struct {
		d    detachable
		r    *Request
		want string
	}{
		"unsigned content":   {detachable{as: s3, value: keys}, apart(field("x-amz-content-sha256", "UNSIGNED-PAYLOAD")), "UNSIGNED"},
		"content in chunks":  {detachable{as: s3, value: keys}, apart(field("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), field("x-amz-decoded-content-length", "7")), "STREAMING"},
		"another digest":     {detachable{as: s3, value: keys}, apart(field("x-amz-content-sha256", emptyHash)), "not what the request declares"},
		"presigned":          {detachable{as: s3, value: keys}, presigned, "presigned"},
		"a session token":    {detachable{as: s3, value: keys + ":" + "token0123456789abcdef"}, apart(), "session token"},
		"no digest":          {detachable{as: s3, value: keys}, long, "no digest"},
		"a digest of theirs": {detachable{as: "rfc9421:alg=hmac-sha256,keyid=k", value: hookKey}, apart(field("content-digest", "sha-512=:AAAA:")), "sha-256"},
		"a webhook":          {detachable{as: "hmac:preset=stripe", value: hookKey}, apart(), "this request alone"},
		"an exchange":        {detachable{as: "hmac:preset=binance", value: "id:" + hookKey}, apart(), "query"},
		"a passphrase":       {detachable{as: "hmac:preset=coinbase-exchange", value: "id:" + binKey + ":pass"}, apart(), "handed out"},
		"no time":            {detachable{as: "hmac:sign={method} {url}{lf}{body:sha256:hex}", value: hookKey, fields: signature}, apart(), "for ever"},
		"no host":            {detachable{as: "hmac:sign={time:rfc3339}{method}{target}{lf}{body:sha256:hex}", value: hookKey, fields: signature}, apart(), "this request alone"},
		"the content itself": {detachable{as: "hmac:sign={time:rfc3339}{method} {url}{lf}{body}", value: hookKey, fields: signature}, apart(), "more of the content"},
		"another hash":       {detachable{as: "hmac:sign={time:rfc3339}{method} {url}{lf}{body:sha512:hex}", value: hookKey, fields: signature}, apart(), "more of the content"},
		"a loose token":      {detachable{as: `jwt-request:alg=HS256,claims={"req":"{method} {path}"}`, value: hookKey}, apart(), "this request alone"},
		"a placeholder":      {detachable{as: s3, value: testID + ":" + control.PlaceholderMark + "0123456789"}, apart(), "placeholder"},
	} {
		proof, remove, err := held(t, c.d).Prove(c.r, testNow)
		if err == nil || proof != nil || remove != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for _, as := range []string{"azure-storage:account=a"} {
		if _, ok := Hold(newTestSigner(t, as), secret.New([]byte(azureKey))); ok {
			t.Errorf("%s: its proofs may be handed out, and do not bind the content", as)
		}
	}
}
