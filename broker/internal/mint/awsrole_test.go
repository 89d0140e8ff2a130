package mint

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

const (
	someRole = "arn:aws:iam::123456789012:role/agent"
	baseKeys = "AKIATESTBASE00000001:b7Rw2mXz9Lk4Tv8Yb3Nc6Hj1Ds5Fg0PaEuIoKiMn"
	plainSTS = "aws-role:region=eu-central-1,role=" + someRole
)

// stsKeysXML is an answer of STS, with the secret and the token that it gives.
func stsKeysXML(action, id, key, token, until string) string {
	return fmt.Sprintf(`<%sResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <%sResult>
    <AssumedRoleUser><AssumedRoleId>AROAEXAMPLE:torno-a</AssumedRoleId><Arn>arn:aws:sts::123456789012:assumed-role/agent/torno-a</Arn></AssumedRoleUser>
    <Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>%s</SecretAccessKey><SessionToken>%s</SessionToken><Expiration>%s</Expiration></Credentials>
    <PackedPolicySize>6</PackedPolicySize>
  </%sResult>
  <ResponseMetadata><RequestId>c6104cbe-af31-11e0-8154-cbc7ccf896c7</RequestId></ResponseMetadata>
</%sResponse>`, action, action, id, key, token, until, action, action)
}

// assumed answers with keys that are good for an hour.
func assumed(n int) (*Answer, error) {
	return ok(stsKeysXML("AssumeRole", fmt.Sprintf("ASIA%d", n), fmt.Sprintf("secret-%d", n), fmt.Sprintf("token-%d", n), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))), nil
}

// TestAssumeRole has what AWS's own SDK would send compared with what is sent.
func TestAssumeRole(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		as, value, region, host string
		form                    url.Values
	}{
		{plainSTS, baseKeys, "eu-central-1", "sts.eu-central-1.amazonaws.com", url.Values{"RoleSessionName": {"torno-a"}, "DurationSeconds": {"3600"}}},
		{"aws-role:duration=900,external-id=a:b/c,policy={\"a\":1},region=us-east-1,role=" + someRole + ",session=me@x,sts=https://sts.example.org:8443/x/y", baseKeys + ":token/+==",
			"us-east-1", "sts.example.org:8443", url.Values{"RoleSessionName": {"me@x"}, "DurationSeconds": {"900"}, "ExternalId": {"a:b/c"}, "Policy": {`{"a":1}`}}},
		{"aws-role:policy-arns=arn:aws:iam::aws:policy/A arn:aws:iam::aws:policy/B,role=" + someRole + ",sts=https://sts-fips.us-gov-east-1.amazonaws.com", baseKeys,
			"us-gov-east-1", "sts-fips.us-gov-east-1.amazonaws.com", url.Values{"RoleSessionName": {"torno-a"}, "DurationSeconds": {"3600"},
				"PolicyArns.member.1.arn": {"arn:aws:iam::aws:policy/A"}, "PolicyArns.member.2.arn": {"arn:aws:iam::aws:policy/B"}}},
		{"aws-role:region=eu-west-1,role=" + someRole + ",sts=https://sts.amazonaws.com", baseKeys, "us-east-1", "sts.amazonaws.com",
			url.Values{"RoleSessionName": {"torno-a"}, "DurationSeconds": {"3600"}}},
	} {
		src := source(t, tt.as, tt.value)
		g, err := newGrant(&src.Meta)
		if err != nil {
			t.Fatal(err)
		}
		req, err := g.request([]byte(tt.value), "", now)
		if err != nil {
			t.Fatal(err)
		}
		form, err := url.ParseQuery(string(req.Content))
		tt.form["Action"], tt.form["Version"], tt.form["RoleArn"] = []string{"AssumeRole"}, []string{"2011-06-15"}, []string{someRole}
		if err != nil || form.Encode() != tt.form.Encode() {
			t.Errorf("asks %q, want %q", form.Encode(), tt.form.Encode())
		}
		got := map[string]string{}
		for _, f := range req.Proof {
			_ = f.Value.Use(func(b []byte) error { got[f.Name] = string(b); return nil })
		}
		parts := strings.Split(tt.value, ":")
		keys := aws.Credentials{AccessKeyID: parts[0], SecretAccessKey: parts[1]}
		if len(parts) > 2 {
			keys.SessionToken = parts[2]
		}
		again, _ := http.NewRequestWithContext(t.Context(), req.Method, "https://"+tt.host+req.Path, nil)
		again.Header.Set("Content-Type", formType)
		sum := sha256.Sum256(req.Content)
		again.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
		err = v4.NewSigner().SignHTTP(t.Context(), keys, again, hex.EncodeToString(sum[:]), "sts", tt.region, now)
		if want := again.Header.Get("Authorization"); err != nil || got["authorization"] != want || got["x-amz-security-token"] != keys.SessionToken {
			t.Errorf("%s: signed as %q, want %q (%v)", tt.as, got["authorization"], want, err)
		}
		if strings.Contains(string(req.Content), parts[1]) {
			t.Error("the key itself is sent")
		}
	}
}

// Temporary keys are kept, renewed while they are still used, and one call serves all who wait; each secret has its own.
func TestAssumeRoleOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: assumed, delay: time.Second}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainSTS, baseKeys)
		want := func(keys string, calls int) {
			t.Helper()
			for range 20 {
				go func() {
					got, err := m.Token(t.Context(), src, "")
					if s := text62(t, got, err); s != keys {
						t.Errorf("got %s, want %s", s, keys)
					}
				}()
			}
			time.Sleep(2 * time.Second)
			synctest.Wait()
			if f.count() != calls {
				t.Errorf("%d calls, want %d", f.count(), calls)
			}
		}
		want("ASIA1:secret-1:token-1", 1)
		time.Sleep(50 * time.Minute)
		want("ASIA1:secret-1:token-1", 1)
		time.Sleep(6 * time.Minute)
		want("ASIA1:secret-1:token-1", 2) // ahead of their end
		want("ASIA2:secret-2:token-2", 2)
		other := *src
		other.Meta.Inject = source(t, strings.Replace(plainSTS, "role/agent", "role/other", 1), baseKeys).Meta.Inject
		other.Meta.Name, src = "OTHER", &other
		want("ASIA3:secret-3:token-3", 3)
		parts := 0
		live, _ := m.Live(&other.Meta)
		for _, token := range live {
			for _, p := range token.Parts() {
				_ = p.Value.Use(func(b []byte) error {
					if s := string(b); s == "secret-3" || s == "token-3" {
						parts++
					}
					return nil
				})
			}
		}
		if parts != 2 {
			t.Errorf("%d parts are searched for", parts)
		}
	})
}

// TestAttack32STS has STS say what it must not: there are no keys, and the error quotes nothing of it.
func TestAttack32STS(t *testing.T) {
	const canary = "canary-7f3a9b2c"
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	good := stsKeysXML("AssumeRole", "ASIA1", canary, canary+"-token", until)
	bomb := `<!DOCTYPE x [<!ENTITY a "` + canary + `">` + strings.Repeat(`<!ENTITY b "&a;&a;&a;&a;">`, 9) + `]>`
	failed := `<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>` + canary + `</Message></Error></ErrorResponse>`
	for name, tt := range map[string]struct {
		answer *Answer
		want   string
	}{
		"redirect":      {&Answer{Status: 307, Fields: protocol.Fields{{Name: "location", Value: "https://evil.example/" + canary}}, Content: []byte(good)}, "no redirect"},
		"denied":        {&Answer{Status: 403, Content: fmt.Appendf(nil, failed, "AccessDenied")}, "403, AccessDenied"},
		"no code":       {&Answer{Status: 400, Content: fmt.Appendf(nil, failed, canary)}, "answers 400"},
		"accepted":      {&Answer{Status: 201, Content: []byte(good)}, "answers 201"},
		"huge":          {ok(good + strings.Repeat(" ", MaxAnswer)), "more than"},
		"JSON":          {ok(`{"AssumeRoleResponse":{"x":"` + canary + `"}}`), "not XML"},
		"empty":         {ok(""), "not XML"},
		"HTML":          {ok("<html><body>" + canary), "not XML"},
		"entities":      {ok(bomb + strings.Replace(good, "ASIA1", "&b;", 1)), "not XML"},
		"no DTD":        {ok(strings.Replace(good, "ASIA1", "&b;", 1)), "not XML"},
		"deep":          {ok(strings.Replace(good, "<Credentials>", strings.Repeat("<a>", 9000), 1)), "not XML"},
		"deep and even": {ok(strings.Replace(good, "<Credentials>", strings.Repeat("<a>", 20)+strings.Repeat("</a>", 20)+"<Credentials>", 1)), "not XML"},
		"charset":       {ok(`<?xml version="1.0" encoding="utf-7"?>` + good), "not XML"},
		"other action":  {ok(strings.ReplaceAll(good, "AssumeRole", "GetSessionToken")), "not one to"},
		"other root":    {ok(strings.ReplaceAll(good, "AssumeRoleResponse", "Evil")), "not one to"},
		"two sets":      {ok(strings.Replace(good, "<PackedPolicySize>6</PackedPolicySize>", good[strings.Index(good, "<Credentials>"):strings.Index(good, "<PackedPolicySize>")], 1)), "not one to"},
		"no keys":       {ok(strings.ReplaceAll(good, "Credentials", "Credential")), "not one to"},
		"no secret":     {ok(strings.Replace(good, canary+"<", "<", 1)), "incomplete"},
		"no token":      {ok(strings.Replace(good, canary+"-token", "", 1)), "incomplete"},
		"no id":         {ok(strings.Replace(good, "ASIA1", "", 1)), "incomplete"},
		"line break":    {ok(strings.Replace(good, canary+"-token", canary+"&#13;&#10;host: evil.example", 1)), "incomplete"},
		"NUL":           {ok(strings.Replace(good, canary+"-token", canary+"\x00", 1)), "not XML"},
		"space":         {ok(strings.Replace(good, canary+"-token", canary+" x", 1)), "incomplete"},
		"colon":         {ok(strings.Replace(good, canary+"-token", canary+":x", 1)), "incomplete"},
		"slash":         {ok(strings.Replace(good, "ASIA1", "ASIA/1", 1)), "incomplete"},
		"not ASCII":     {ok(strings.Replace(good, canary+"-token", canary+"é", 1)), "incomplete"},
		"long":          {ok(strings.Replace(good, canary+"-token", strings.Repeat("t", maxToken), 1)), "too long"},
		"expiry":        {ok(strings.Replace(good, until, canary, 1)), "expiry"},
	} {
		m := newMinter(t, &fake{answer: func(int) (*Answer, error) { return tt.answer, nil }})
		token, err := m.Token(t.Context(), source(t, plainSTS, baseKeys), "")
		if err == nil || token != nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v, %v; want %q", name, token, err, tt.want)
		}
	}
	for _, control := range []string{good, `<?xml version="1.0" encoding="UTF-8"?>` + "\n<!-- a comment -->" + good, strings.Replace(good, "ASIA1", "<![CDATA[ASIA1]]>", 1)} {
		m := newMinter(t, &fake{answer: func(int) (*Answer, error) { return ok(control), nil }})
		token, err := m.Token(t.Context(), source(t, plainSTS, baseKeys), "")
		if got := text62(t, token, err); got != "ASIA1:"+canary+":"+canary+"-token" {
			t.Errorf("the control: %q", got)
		}
	}
}

// TestAttack32STSExpiry has STS lie about how long keys live: never longer than was asked for, and not anew at every request.
func TestAttack32STSExpiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tt := range []struct {
		until, date string
		want        time.Duration
	}{
		{"2026-01-02T04:04:05Z", "", time.Hour}, {"2026-01-02T03:20:05Z", "", 16 * time.Minute}, {"2026-01-02T04:04:05.123Z", "", time.Hour},
		{"2099-01-02T04:04:05Z", "", time.Hour}, {"1999-01-02T04:04:05Z", "", minLifetime}, {"", "", lifetime},
		{"2026-01-02T10:04:05Z", now.Add(6 * time.Hour).Format(http.TimeFormat), time.Hour},
	} {
		src := source(t, plainSTS, baseKeys)
		g, err := newGrant(&src.Meta)
		if err != nil {
			t.Fatal(err)
		}
		a := ok(stsKeysXML("AssumeRole", "ASIA1", "secret", "token", tt.until))
		a.Fields = protocol.Fields{{Name: "date", Value: tt.date}}
		got, err := readAnswer(g, a, now)
		if err != nil || got.life != tt.want || got.worth < got.life {
			t.Errorf("%s: %+v, %v; want %v", tt.until, got, err, tt.want)
		}
	}
}

// A web identity is a token that is there, or one that its issuer's key signs for each call.
func TestWebIdentity(t *testing.T) {
	now := time.Now()
	const as = "aws-web-identity:region=eu-central-1,role=" + someRole
	src := source(t, as, "eyJh.eyJi.c2ln")
	g, err := newGrant(&src.Meta)
	if err != nil {
		t.Fatal(err)
	}
	req, err := g.request([]byte("eyJh.eyJi.c2ln"), "", now)
	if err != nil {
		t.Fatal(err)
	}
	form, err := url.ParseQuery(string(req.Content))
	if err != nil || form.Get("WebIdentityToken") != "eyJh.eyJi.c2ln" || form.Get("Action") != "AssumeRoleWithWebIdentity" || len(req.Proof) != 0 || req.Authorization.Len() != 0 {
		t.Errorf("%q, %d fields", form, len(req.Proof))
	}
	f := &fake{answer: func(int) (*Answer, error) {
		return ok(stsKeysXML("AssumeRoleWithWebIdentity", "ASIA1", "secret", "token", now.Add(time.Hour).UTC().Format(time.RFC3339))), nil
	}}
	token, err := newMinter(t, f).Token(t.Context(), src, "")
	if got := text62(t, token, err); got != "ASIA1:secret:token" {
		t.Errorf("got %q", got)
	}
	f.answer = assumed // the answer to another question
	if _, err := newMinter(t, f).Token(t.Context(), src, ""); err == nil {
		t.Error("the answer to AssumeRole is taken")
	}
}

func FuzzSTSAnswer(f *testing.F) {
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	f.Add([]byte(stsKeysXML("AssumeRole", "ASIA1", "secret", "token", until)))
	f.Add([]byte(`<!DOCTYPE a [<!ENTITY b "c">]><AssumeRoleResponse>&b;</AssumeRoleResponse>`))
	in, err := control.ParseScheme(plainSTS)
	if err != nil {
		f.Fatal(err)
	}
	g := role{meta: control.Meta{Agent: "a", Inject: in}}
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := readAnswer(g, ok(string(content)), time.Now())
		if err != nil {
			if got != nil {
				t.Error("something beside an error")
			}
			return
		}
		if _, err := control.ParseAWSKeys(got.access); err != nil || got.life < minLifetime || got.life > time.Hour || len(got.parts) != 2 {
			t.Errorf("%q: %v, %v", content, got.life, err)
		}
		for _, p := range got.parts {
			if p.Value.Len() == 0 || secret.New(got.access).Len() <= p.Value.Len() {
				t.Errorf("%q: a part of %d bytes", content, p.Value.Len())
			}
		}
	})
}
