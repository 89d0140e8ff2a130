package control

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

const someRole = "arn:aws:iam::123456789012:role/path/agent"

func TestCheckRole(t *testing.T) {
	for as, endpoint := range map[string]string{
		"aws-role:role=" + someRole + ",region=eu-central-1":                                                                               "sts.eu-central-1.amazonaws.com:443/",
		"aws-role:role=arn:aws-cn:iam::123456789012:role/a,region=cn-north-1":                                                              "sts.cn-north-1.amazonaws.com.cn:443/",
		"aws-role:role=arn:aws-us-gov:iam::123456789012:role/a,region=us-gov-east-1":                                                       "sts.us-gov-east-1.amazonaws.com:443/",
		"aws-role:role=" + someRole + ",sts=https://sts.example.org:8443/sts":                                                              "sts.example.org:8443/sts",
		"aws-role:duration=900,external-id=a:b/c,region=us-east-1,role=" + someRole + ",session=me@x":                                      "sts.us-east-1.amazonaws.com:443/",
		"aws-role:policy={\"Statement\":[{\"Effect\":\"Allow\"%2C\"Action\":\"s3:*\"}]},region=us-east-1,role=" + someRole:                 "sts.us-east-1.amazonaws.com:443/",
		"aws-role:policy-arns=arn:aws:iam::aws:policy/ReadOnlyAccess arn:aws:iam::123456789012:policy/x,region=us-east-1,role=" + someRole: "sts.us-east-1.amazonaws.com:443/",
		"aws-web-identity:role=" + someRole + ",region=eu-central-1":                                                                       "sts.eu-central-1.amazonaws.com:443/",
	} {
		m := schemeMeta(t, as)
		if err := CheckMeta(m); err != nil {
			t.Errorf("%s: %v", as, err)
		}
		if a, path, ok := m.Inject.TokenEndpoint(); !ok || a.String()+path != endpoint {
			t.Errorf("%s: endpoint %s%s, %v; want %s", as, a, path, ok, endpoint)
		}
		if !m.Signs() || !m.Inject.Mints() {
			t.Errorf("%s: signs %v, mints %v", as, m.Signs(), m.Inject.Mints())
		}
	}
	for _, tt := range []struct{ as, want string }{
		{"aws-role:region=us-east-1", "needs role"}, {"aws-role:role=" + someRole, "needs region"},
		{"aws-role:role=arn:aws-iso:iam::123456789012:role/a,region=us-iso-east-1", "needs region"},
		{"aws-role:role=arn:aws:iam::12345678901:role/a,region=r", "ARN"}, {"aws-role:role=arn:aws:sts::123456789012:role/a,region=r", "ARN"},
		{"aws-role:role=arn:aws:iam::123456789012:user/a,region=r", "ARN"}, {"aws-role:role=arn:aws:iam::123456789012:role/a b,region=r", "ARN"},
		{"aws-role:role=" + someRole + ",sts=http://sts.example.org", "https"}, {"aws-role:role=" + someRole + ",sts=https://sts.example.org/?a", "plain path"},
		{"aws-role:duration=899,region=r,role=" + someRole, "seconds"}, {"aws-role:duration=43201,region=r,role=" + someRole, "seconds"},
		{"aws-role:duration=0900,region=r,role=" + someRole, "seconds"}, {"aws-role:region=r,role=" + someRole + ",session=a", "letters"},
		{"aws-role:region=r,role=" + someRole + ",session=" + strings.Repeat("s", 65), "letters"}, {"aws-role:external-id=a b,region=r,role=" + someRole, "letters"},
		{"aws-role:policy=x,region=r,role=" + someRole, "JSON"}, {"aws-role:policy={,region=r,role=" + someRole, "JSON"},
		{"aws-role:policy-arns=x,region=r,role=" + someRole, "ARN"},
		{"aws-role:iss=me,region=r,role=" + someRole, "no parameter"}, {"aws-web-identity:external-id=ab,region=r,role=" + someRole, "no parameter"},
	} {
		if err := CheckMeta(schemeMeta(t, tt.as)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.as, err, tt.want)
		}
	}
}

func TestCheckRegions(t *testing.T) {
	for regions, good := range map[string]bool{"us-east-1": true, "us-east-1 eu-*": true, "*": true, "": false, "a  b": false, "us-*-1": false, "**": false, "US-east-1": false, "a,b": false} {
		m := schemeMeta(t, "sigv4")
		m.Inject.Params = []Param{{ParamRegions, regions}}
		if err := CheckMeta(m); (err == nil) != good {
			t.Errorf("%q: %v", regions, err)
		}
	}
}

func TestRoleSession(t *testing.T) {
	m := schemeMeta(t, "aws-role:role="+someRole+",region=r")
	if m.Agent = "my-agent"; m.RoleSession() != "torno-my-agent" || m.Inject.RoleDuration() != time.Hour {
		t.Errorf("%q, %v", m.RoleSession(), m.Inject.RoleDuration())
	}
	if m.Agent = strings.Repeat("a", 63); checkRoleSession("", m.RoleSession()) != nil {
		t.Errorf("%q", m.RoleSession())
	}
	if m = schemeMeta(t, "aws-role:duration=900,region=r,role="+someRole+",session=me"); m.RoleSession() != "me" || m.Inject.RoleDuration() != 15*time.Minute {
		t.Errorf("%q, %v", m.RoleSession(), m.Inject.RoleDuration())
	}
}

func TestCheckWebIdentity(t *testing.T) {
	const key = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n"
	const as = "aws-web-identity:region=r,role=" + someRole
	for _, tt := range []struct{ as, value, want string }{
		{as, "eyJh.eyJi.c2ln", ""}, {as, "token", "two dots"}, {as, "a.b.c d", "space"}, {as, "a.b.c\n", "newline"},
		{as, strings.Repeat("a", maxWebIdentity) + "..", "two dots"},
		{as, key, "iss"}, {strings.Replace(as, ":", ":iss=https://me.example,sub=agent,", 1), key, ""},
		{strings.Replace(as, ":", ":iss=https://me.example,", 1), "eyJh.eyJi.c2ln", "iss"},
		{strings.Replace(as, ":", ":iss=https://me.example,sub=agent,", 1), "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n", "PEM"},
	} {
		m := schemeMeta(t, tt.as)
		if err := CheckValue(m, []byte(tt.value)); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %.40q: %v, want %q", tt.as, tt.value, err, tt.want)
		}
	}
}

func TestSessionTokenPrefix(t *testing.T) {
	head := "!\x0a\x09origin_ec\x10\x9a\xff\xff\xff\xff\xff\xff\xff\xff\x01\x1a\x09us-east-1"
	old := "\x15\x0a\x06er/aws\x10\x16"
	rest := "\"E0E\x02!\x00 and what nobody else knows"
	for _, tt := range []struct{ plain, public string }{
		{head + rest, head}, {old + "\x1a\x0c" + rest, old}, {"!\x0a\x09origin", ""}, {head, head}, {"!\x0a\xff" + rest, ""}, {"", ""}, {"!", ""},
		{"!\x0a\x00\x10" + strings.Repeat("\xff", 11) + rest, ""},
	} {
		token := base64.StdEncoding.EncodeToString([]byte(tt.plain))
		got := SessionTokenPrefix([]byte(token))
		if !strings.HasPrefix(token, got) || len(got) != len(tt.public)*8/6 {
			t.Errorf("%q: %q", tt.plain, got)
		}
	}
	if got := SessionTokenPrefix([]byte("no base64, but long enough for one to look")); got != "" {
		t.Errorf("%q", got)
	}
}

func FuzzSessionTokenPrefix(f *testing.F) {
	f.Add("IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJHMEUCIQD")
	f.Add("FQoGZXIvYXdzEBYaDhjOXPxOdMcBuOfAjrSR")
	f.Fuzz(func(t *testing.T, token string) {
		if p := SessionTokenPrefix([]byte(token)); !strings.HasPrefix(token, p) {
			t.Errorf("%q is not how %q begins", p, token)
		}
	})
}
