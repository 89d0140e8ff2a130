package challenge

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
)

func fields(values ...string) protocol.Fields {
	f := protocol.Fields{{Name: "other", Value: "Basic realm=x"}}
	for _, v := range values {
		f = append(f, protocol.Field{Name: "www-authenticate", Value: v})
	}
	return f
}

func TestParse(t *testing.T) {
	realm := Challenge{Scheme: "Bearer", Params: map[string]string{"realm": "https://auth.example.org/token", "service": "registry.example.org", "scope": "repository:a/b:pull,push"}}
	for name, tt := range map[string]struct {
		values []string
		want   []Challenge
	}{
		"none":            {nil, nil},
		"a registry":      {[]string{`Bearer realm="https://auth.example.org/token",service="registry.example.org",scope="repository:a/b:pull,push"`}, []Challenge{realm}},
		"with spaces":     {[]string{`Bearer realm = "https://auth.example.org/token" , SERVICE="registry.example.org",` + "\t" + `scope="repository:a/b:pull,push"`}, []Challenge{realm}},
		"a nonce":         {[]string{`DPoP error="use_dpop_nonce", error_description="say \"it\""`}, []Challenge{{Scheme: "DPoP", Params: map[string]string{"error": "use_dpop_nonce", "error_description": `say "it"`}}}},
		"two in a field":  {[]string{`Negotiate, DPoP algs="ES256 PS256", Basic realm=x`}, []Challenge{{Scheme: "Negotiate", Params: map[string]string{}}, {Scheme: "DPoP", Params: map[string]string{"algs": "ES256 PS256"}}, {Scheme: "Basic", Params: map[string]string{"realm": "x"}}}},
		"two fields":      {[]string{"Basic", "Bearer"}, []Challenge{{Scheme: "Basic", Params: map[string]string{}}, {Scheme: "Bearer", Params: map[string]string{}}}},
		"token68":         {[]string{"Negotiate YII=, NTLM a/b+c==, Basic realm=x"}, []Challenge{{Scheme: "Negotiate", Token: "YII=", Params: map[string]string{}}, {Scheme: "NTLM", Token: "a/b+c==", Params: map[string]string{}}, {Scheme: "Basic", Params: map[string]string{"realm": "x"}}}},
		"empty elements":  {[]string{", ,Basic realm=x,,"}, []Challenge{{Scheme: "Basic", Params: map[string]string{"realm": "x"}}}},
		"a comma inside":  {[]string{`Basic realm="a, Bearer realm=b"`}, []Challenge{{Scheme: "Basic", Params: map[string]string{"realm": "a, Bearer realm=b"}}}},
		"an empty string": {[]string{`Basic realm=""`}, []Challenge{{Scheme: "Basic", Params: map[string]string{"realm": ""}}}},
	} {
		got, err := Parse(fields(tt.values...), "www-authenticate")
		if diff := cmp.Diff(tt.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v\n%s", name, err, diff)
		}
	}
	var many []string
	for i := range maxParams + 1 {
		many = append(many, fmt.Sprintf("p%d=x", i))
	}
	for _, bad := range []string{
		"=", `"Basic"`, "Basic realm", "Basic realm=", "Basic realm=,", `Basic realm="x`, `Basic realm="x\`, "Basic realm=\"\x01\"", "Basic realm=x y=z", "Basic realm=x, realm=y", "Basic realm=x Bearer",
		"NTLM abc=, realm=x", strings.Repeat("Basic,", maxChallenges+1), "Basic " + strings.Join(many, ","), "Ba sic", "Basic;realm=x",
	} {
		if got, err := Parse(fields(bad), "www-authenticate"); err == nil && len(got) > 0 && got[0].Token == "" || got != nil && err != nil {
			t.Errorf("%q: %+v, %v", bad, got, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`Bearer realm="https://auth.example.org/token",service="s",scope="repository:a/b:pull"`)
	f.Add(`Negotiate YII=, DPoP error="use_dpop_nonce", Basic realm=x`)
	f.Fuzz(func(t *testing.T, value string) {
		all, err := Parse(fields(value), "www-authenticate")
		if err != nil && all != nil || len(all) > maxChallenges {
			t.Fatalf("%d challenges and %v", len(all), err)
		}
		for _, c := range all {
			if !protocol.IsToken(c.Scheme) || len(c.Params) > maxParams || c.Token != "" && len(c.Params) > 0 {
				t.Errorf("%q: %+v", value, c)
			}
			for name, v := range c.Params {
				if !protocol.IsToken(name) || strings.ContainsAny(v, "\r\n\x00") {
					t.Errorf("%q: %q=%q", value, name, v)
				}
			}
		}
	})
}
