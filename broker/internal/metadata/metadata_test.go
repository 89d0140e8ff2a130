package metadata

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

const placeholder = "tornoInertForTestsAloneForTestsAloneForTestsAloneForTestsAlone00"

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func service() *Service {
	return &Service{
		Key: [32]byte{1}, AWS: &AWS{placeholder, "eu-central-1"},
		Google: &Google{placeholder, "me@p.iam.gserviceaccount.com", "p", []string{control.DefaultGoogleScope}, []string{"https://run.example.org"}},
		Azure:  &Azure{placeholder, []Identity{{"t", "c", "https://vault.azure.net/.default"}, {"t", "d", control.DefaultAzureScope}}},
	}
}

// ask asks s for METHOD http://host/path, with fields as "name: value".
func ask(t *testing.T, s *Service, when time.Time, request string, fields ...string) (Answer, bool) {
	t.Helper()
	method, rest, _ := strings.Cut(request, " ")
	host, path, _ := strings.Cut(rest, "/")
	a, err := protocol.ParseAuthority(host, 80)
	if err != nil {
		t.Fatal(err)
	}
	req := &protocol.Request{Method: method, Scheme: "http", Authority: a.String(), Path: "/" + path}
	for _, f := range fields {
		name, value, _ := strings.Cut(f, ": ")
		req.Fields = append(req.Fields, protocol.Field{Name: name, Value: value})
	}
	return s.Answer(CloudOf(a, req.Path), req, when)
}

func TestAWS(t *testing.T) {
	s := service()
	issued, _ := ask(t, s, now, "PUT 169.254.169.254/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: 60")
	token := "x-aws-ec2-metadata-token: " + string(issued.Content)
	if issued.Status != 200 || issued.Fields.Get("x-aws-ec2-metadata-token-ttl-seconds") != "60" {
		t.Fatalf("%+v", issued)
	}
	list, _ := ask(t, s, now, "GET 169.254.169.254/latest/meta-data/iam/security-credentials/", token)
	for _, at := range []string{"169.254.169.254/latest/meta-data/iam/security-credentials/" + string(list.Content), "169.254.170.2/v2/credentials/4711", "169.254.170.23/v1/credentials", "[fd00:ec2::23]/v1/credentials"} {
		a, _ := ask(t, s, now, "GET "+at, token)
		var c map[string]string
		if err := json.Unmarshal(a.Content, &c); err != nil || a.Status != 200 || c["Code"] != "Success" || c["Expiration"] != "2026-01-02T04:04:05Z" ||
			c["AccessKeyId"] != placeholder || c["SecretAccessKey"] != placeholder || c["Token"] != placeholder {
			t.Errorf("%s: %s, %v", at, a.Content, err)
		}
	}
	for path, want := range map[string]string{
		"meta-data/placement/region": "eu-central-1", "meta-data/placement/availability-zone": "eu-central-1a", "dynamic/instance-identity/document": `{"region":"eu-central-1"}`,
	} {
		if a, _ := ask(t, s, now, "GET [fd00:ec2::254]/latest/"+path, token); string(a.Content) != want {
			t.Errorf("%s: %d %s", path, a.Status, a.Content)
		}
	}
}

// TestAttackMetadataTokens asks AWS's service without what only its own machine can have.
func TestAttackMetadataTokens(t *testing.T) {
	s, other := service(), service()
	other.Key[0] = 2
	issue := func(s *Service, seconds string) string {
		a, _ := ask(t, s, now, "PUT 169.254.169.254/latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: "+seconds)
		return "x-aws-ec2-metadata-token: " + string(a.Content)
	}
	good := issue(s, "60")
	forged := []byte(good)
	forged[len(forged)-10] ^= 1
	const path = "GET 169.254.169.254/latest/meta-data/iam/security-credentials/torno"
	for name, tt := range map[string]struct {
		request string
		fields  []string
		after   time.Duration
		want    int
	}{
		"the control":         {path, []string{good}, 59 * time.Second, 200},
		"version 1":           {path, nil, 0, 401},
		"empty":               {path, []string{"x-aws-ec2-metadata-token: "}, 0, 401},
		"expired":             {path, []string{good}, 60 * time.Second, 401},
		"of another session":  {path, []string{issue(other, "60")}, 0, 401},
		"forged":              {path, []string{string(forged)}, 0, 401},
		"two":                 {path, []string{good, good}, 0, 401},
		"huge":                {path, []string{"x-aws-ec2-metadata-token: " + strings.Repeat("A", 64<<10)}, 0, 401},
		"a role of others":    {path + "2", []string{good}, 0, 404},
		"user data":           {"GET 169.254.169.254/latest/user-data", []string{good}, 0, 404},
		"a method that sends": {"POST 169.254.169.254/latest/meta-data/", []string{good}, 0, 405},
		"no lifetime":         {"PUT 169.254.169.254/latest/api/token", nil, 0, 400},
		"two lifetimes":       {"PUT 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: 60", "x-aws-ec2-metadata-token-ttl-seconds: 60"}, 0, 400},
		"none":                {"PUT 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: 0"}, 0, 400},
		"for ever":            {"PUT 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: 21601"}, 0, 400},
		"beyond numbers":      {"PUT 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: " + strings.Repeat("9", 40)}, 0, 400},
		"through a proxy":     {"PUT 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: 60", "x-forwarded-for: 192.0.2.7"}, 0, 403},
		"GET for PUT":         {"GET 169.254.169.254/latest/api/token", []string{"x-aws-ec2-metadata-token-ttl-seconds: 60"}, 0, 405},
	} {
		if a, ok := ask(t, s, now.Add(tt.after), tt.request, tt.fields...); !ok || a.Status != tt.want || a.Status != 200 && strings.Contains(string(a.Content), "tornoInert") {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Content, tt.want)
		}
	}
}

// claimsOf reads what a client reads of a token.
func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] != placeholder {
		t.Fatalf("token %q", token)
	}
	if _, err := base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		t.Errorf("the signature: %v", err)
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	var c map[string]any
	if err != nil || json.Unmarshal(b, &c) != nil {
		t.Fatalf("claims %q", b)
	}
	return c
}

func TestGoogle(t *testing.T) {
	s := service()
	const flavored, root = "metadata-flavor: Google", "GET metadata.google.internal/computeMetadata/v1/"
	for path, want := range map[string]string{
		"":          "instance/\nproject/\nuniverse/\n",
		"instance":  "service-accounts/\n",
		"instance/": "service-accounts/\n",
		"instance/service-accounts/default/email":           "me@p.iam.gserviceaccount.com",
		"instance/service-accounts/default/scopes":          control.DefaultGoogleScope + "\n",
		"instance/service-accounts/default/scopes?alt=json": `["` + control.DefaultGoogleScope + `"]`,
		"instance/service-accounts/default/?recursive=true": `{"aliases":["default"],"email":"me@p.iam.gserviceaccount.com","scopes":["` + control.DefaultGoogleScope + `"]}`,
		"project/project-id":                                "p",
		"project/?recursive=true":                           `{"projectId":"p"}`,
		"universe/universe-domain":                          "googleapis.com",
	} {
		if a, _ := ask(t, s, now, root+path, flavored); string(a.Content) != want || a.Fields.Get("metadata-flavor") != "Google" {
			t.Errorf("%s: %d %q", path, a.Status, a.Content)
		}
	}
	for _, account := range []string{"default", "me@p.iam.gserviceaccount.com"} {
		a, _ := ask(t, s, now, root+"instance/service-accounts/"+account+"/token?scopes=a,b", flavored)
		if want := `{"access_token":"ya29.` + placeholder + `","expires_in":3600,"token_type":"Bearer"}`; string(a.Content) != want {
			t.Errorf("%s: %s", account, a.Content)
		}
	}
	a, _ := ask(t, s, now, root+"instance/service-accounts/default/identity?audience=https://run.example.org&format=full", flavored)
	if c := claimsOf(t, string(a.Content)); c["aud"] != "https://run.example.org" || c["exp"] != float64(now.Add(time.Hour).Unix()) {
		t.Errorf("%v", c)
	}
	all, _ := ask(t, s, now, root+"?recursive=true", flavored)
	if strings.Contains(string(all.Content), "tornoInert") || !strings.Contains(string(all.Content), `"serviceAccounts":{"default":{`) {
		t.Errorf("%s", all.Content)
	}
	if a, _ := ask(t, s, now, "GET 169.254.169.254/"); a.Status != 200 || a.Fields.Get("metadata-flavor") != "Google" {
		t.Errorf("where clients look first: %+v", a)
	}
}

// TestAttackMetadataGoogle asks Google's server as somebody who was talked into it would.
func TestAttackMetadataGoogle(t *testing.T) {
	const token, flavored = "GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/token", "metadata-flavor: Google"
	for name, tt := range map[string]struct {
		request string
		fields  []string
		want    int
	}{
		"the control":         {token, []string{flavored}, 200},
		"without the field":   {token, nil, 403},
		"through a proxy":     {token, []string{flavored, "x-forwarded-for: 192.0.2.7"}, 403},
		"an older version":    {"GET metadata.google.internal/computeMetadata/v1beta1/instance/service-accounts/default/token", nil, 403},
		"and with the field":  {"GET metadata.google.internal/computeMetadata/v1beta1/instance/service-accounts/default/token", []string{flavored}, 404},
		"another account":     {"GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/you@p.iam.gserviceaccount.com/token", []string{flavored}, 404},
		"another audience":    {"GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity?audience=https://evil.example.net", []string{flavored}, 404},
		"no audience":         {"GET metadata.google.internal/computeMetadata/v1/instance/service-accounts/default/identity", []string{flavored}, 400},
		"keys of the machine": {"GET metadata.google.internal/computeMetadata/v1/instance/attributes/ssh-keys", []string{flavored}, 404},
		"slashes":             {"GET metadata.google.internal/computeMetadata/v1//instance", []string{flavored}, 404},
		"deep":                {"GET metadata.google.internal/computeMetadata/v1/" + strings.Repeat("instance/", 1000), []string{flavored}, 404},
		"for ever":            {token + "?wait_for_change=true", []string{flavored}, 400},
		"a query that is bad": {token + "?%zz", []string{flavored}, 400},
		"a method that sends": {"POST" + token[3:], []string{flavored}, 405},
	} {
		if a, ok := ask(t, service(), now, tt.request, tt.fields...); !ok || a.Status != tt.want || tt.want != 200 && strings.Contains(string(a.Content), "tornoInert") {
			t.Errorf("%s: %d %s, want %d", name, a.Status, a.Content, tt.want)
		}
	}
}

func TestAzure(t *testing.T) {
	const path, good = "GET 169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01", "metadata: true"
	for name, tt := range map[string]struct {
		request string
		fields  []string
		want    int
		client  string
	}{
		"management":          {path + "&resource=https://management.azure.com", []string{good}, 200, "d"},
		"with a slash":        {path + "&resource=https%3A%2F%2Fvault.azure.net%2F", []string{good}, 200, "c"},
		"one of two":          {path + "&resource=https://vault.azure.net&client_id=c", []string{good}, 200, "c"},
		"the other":           {path + "&resource=https://vault.azure.net&client_id=d", []string{good}, 400, ""},
		"nobody":              {path + "&resource=https://vault.azure.net&client_id=e", []string{good}, 400, ""},
		"another resource":    {path + "&resource=https://graph.microsoft.com", []string{good}, 400, ""},
		"no resource":         {path, []string{good}, 400, ""},
		"without the field":   {path + "&resource=https://management.azure.com", nil, 400, ""},
		"through a proxy":     {path + "&resource=https://management.azure.com", []string{good, "x-forwarded-for: 192.0.2.7"}, 400, ""},
		"no version":          {"GET 169.254.169.254/metadata/identity/oauth2/token?resource=https://management.azure.com", []string{good}, 400, ""},
		"about the machine":   {"GET 169.254.169.254/metadata/instance?api-version=2021-02-01", []string{good}, 404, ""},
		"a method that sends": {"POST" + path[3:] + "&resource=https://management.azure.com", []string{good}, 405, ""},
	} {
		a, ok := ask(t, service(), now, tt.request, tt.fields...)
		var got map[string]string
		if err := json.Unmarshal(a.Content, &got); err != nil || !ok || a.Status != tt.want || got["client_id"] != tt.client {
			t.Errorf("%s: %d %s (%v)", name, a.Status, a.Content, err)
		}
		if a.Status != 200 {
			continue
		}
		if c := claimsOf(t, got["access_token"]); c["appid"] != tt.client || c["tid"] != "t" || got["expires_in"] != "3600" || got["expires_on"] != "1767326645" {
			t.Errorf("%s: %v, %v", name, c, got)
		}
	}
}

// A session is told of its own clouds alone, at their own addresses alone.
func TestPlaces(t *testing.T) {
	for cloud, s := range map[control.Cloud]*Service{control.CloudAWS: {AWS: &AWS{}}, control.CloudGoogle: {Google: &Google{}}, control.CloudAzure: {Azure: &Azure{}}} {
		for _, other := range []control.Cloud{control.CloudAWS, control.CloudGoogle, control.CloudAzure} {
			if _, ok := s.Answer(other, &protocol.Request{Method: "GET", Path: "/"}, now); ok != (cloud == other) {
				t.Errorf("a session of %s, about %s: %v", cloud, other, ok)
			}
		}
	}
	for host, want := range map[string]control.Cloud{
		"169.254.169.254": control.CloudAWS, "[::ffff:169.254.169.254]": control.CloudAWS, "169.254.169.254:80": control.CloudAWS,
		"169.254.169.254:8080": "", "169.254.169.253": "", "metadata.google.internal": "", "[fe80::1]": "", "evil.example.net": "",
	} {
		a, err := protocol.ParseAuthority(host, 80)
		if err != nil || CloudOf(a, "/latest/meta-data/") != want {
			t.Errorf("%s: %q (%v)", host, CloudOf(a, "/latest/meta-data/"), err)
		}
	}
	a := protocol.Authority{Host: "169.254.169.254", Port: 80}
	for path, want := range map[string]control.Cloud{
		"/latest": "", "/latest/": control.CloudAWS, "/%6catest/meta-data/": "", "//latest/meta-data/": "", "/v2/credentials": "", "/": control.CloudGoogle, "/?x=/latest/": control.CloudGoogle,
		"/computeMetadata/v1/": control.CloudGoogle, "/metadata/identity": control.CloudAzure, "/metadataX": "", "/2021-07-15/meta-data/": "",
	} {
		if got := CloudOf(a, path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add("PUT", "/latest/api/token", "60", "")
	f.Add("GET", "/latest/meta-data/iam/security-credentials/torno", "", "AAAA")
	f.Add("GET", "/computeMetadata/v1/instance/?recursive=true&alt=json", "google", "")
	f.Add("GET", "/metadata/identity/oauth2/token?resource=a&api-version=1", "true", "")
	s := service()
	f.Fuzz(func(t *testing.T, method, path, field, token string) {
		for _, host := range []string{linkLocal, tasks, googleHost} {
			cloud := CloudOf(protocol.Authority{Host: host, Port: 80}, path)
			a, ok := s.Answer(cloud, &protocol.Request{Method: method, Path: path, Fields: protocol.Fields{
				{Name: fieldTTL, Value: field}, {Name: googleField, Value: field}, {Name: "metadata", Value: field}, {Name: fieldToken, Value: token},
			}}, now)
			if ok && a.Status != 200 && strings.Contains(string(a.Content), "tornoInert") || len(a.Content) > 8<<10 {
				t.Errorf("%s %s: %d %q", method, path, a.Status, a.Content)
			}
		}
	})
}
