package control

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func schemeMeta(t testing.TB, as string) Meta {
	t.Helper()
	m := bearerMeta()
	var err error
	if m.Inject, err = ParseScheme(as); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestParseScheme(t *testing.T) {
	tests := []struct {
		as, again string // empty: as it was
		want      []Param
	}{
		{"bearer", "", nil},
		{"basic:user=me", "", []Param{{"user", "me"}}},
		{"basic:user=a%2Cb%25", "", []Param{{"user", "a,b%"}}},
		{"basic:user=a=b%2c%20", "basic:user=a=b%2C%2520", []Param{{"user", "a=b,%20"}}},
		{"query:z=1,name=key", "query:name=key,z=1", []Param{{"name", "key"}, {"z", "1"}}},
	}
	for _, tt := range tests {
		in, err := ParseScheme(tt.as)
		if err != nil || !cmp.Equal(in.Params, tt.want) {
			t.Errorf("ParseScheme(%q) = %+v, %v", tt.as, in, err)
		}
		if tt.again == "" {
			tt.again = tt.as
		}
		if in.String() != tt.again {
			t.Errorf("%q is spelled %q", tt.as, in)
		}
	}
	for _, as := range []string{"", "digest", "Bearer", "basic:", "basic:user", "basic:=x", "basic:user=a,,"} {
		if in, err := ParseScheme(as); err == nil || in.Scheme != "" {
			t.Errorf("ParseScheme(%q) = %+v, %v", as, in, err)
		}
	}
}

func TestCheckScheme(t *testing.T) {
	good := []string{"bearer", "basic", "basic:user=me@example.org", "basic:template={KEY}:", "basic:template={KEY}", "git", "git:user=oauth2",
		"query:name=api_key", "path:template=/bot{KEY}/", "path:template=/services/{KEY}", "cookie:name=session",
		"azure-storage:account=my-account1,service=table", "oauth2:token=https://id.example.org/t,id=c,dpop=ES256",
		"refresh-token:token=https://id.example.org/t,dpop=EdDSA"}
	for _, as := range good {
		if err := CheckMeta(schemeMeta(t, as)); err != nil {
			t.Errorf("%s: %v", as, err)
		}
	}
	bad := []struct{ as, want string }{
		{"bearer:user=x", "no parameter"}, {"basic:realm=x", "no parameter"}, {"basic:user=a,user=b", "each once"},
		{"basic:user=a:b", "colon"}, {"basic:user=", "bytes"}, {"basic:user=a,template={KEY}:", "not both"},
		{"basic:template=x:", "lacks {KEY}"}, {"basic:template={OTHER}:{KEY}", "names {OTHER}"},
		{"basic:user=a\r\nb", "visible ASCII"}, {"basic:user=\x00", "visible ASCII"}, {"basic:user=ä", "visible ASCII"},
		{"basic:user=" + strings.Repeat("u", MaxParam+1), "bytes"},
		{"query", "needs name"}, {"query:name=a&b", "parameter's name"}, {"query:name=a b", "parameter's name"}, {"query:name=a%25", "parameter's name"},
		{"path", "needs template"}, {"path:template=bot{KEY}", "slash"}, {"path:template=/{KEY}?x", "several ways"}, {"path:template=/%252e/{KEY}", "several ways"},
		{"path:template=/a//{KEY}", "normal form"}, {"path:template=/a/../{KEY}", "normal form"}, {"path:template=/{KEY}{KEY}", "more than once"},
		{"azure-storage", "needs account"}, {"azure-storage:account=A", "account's name"}, {"azure-storage:account=" + strings.Repeat("a", maxAccount+1), "account's name"},
		{"azure-storage:account=a,service=dfs", "none of blob"},
		{"oauth2:token=https://id.example.org/t,id=c,dpop=none", "none of ES256"}, {"google:dpop=ES256", "no parameter"},
		{"cookie", "needs name"}, {"cookie:name=a b", "cookie's name"}, {"cookie:name=a;b", "cookie's name"},
	}
	for _, tt := range bad {
		if err := CheckMeta(schemeMeta(t, tt.as)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.as, err, tt.want)
		}
	}
	for _, scheme := range Schemes() {
		if schemes[scheme].fields {
			continue
		}
		m := bearerMeta()
		m.Inject = Injector{Scheme: scheme, Fields: headerMeta().Inject.Fields}
		if err := CheckMeta(m); err == nil || !strings.Contains(err.Error(), "takes no headers") {
			t.Errorf("%s with headers: %v", scheme, err)
		}
	}
}

// TestAttack20BytesInSchemes tries in every scheme what would end a line, a parameter or a cookie.
func TestAttack20BytesInSchemes(t *testing.T) {
	const ok = ""
	tests := []struct {
		value                             string
		basic, query, path, cookie, plain string // in the error; plain: bearer and git
	}{
		{"sk-abc_123", ok, ok, ok, ok, ok},
		{"a\rb", "line break", "line break", "line break", "line break", "line break"},
		{"a\nb", "line break", "line break", "line break", "line break", "line break"},
		{"a\x00b", "NUL", "NUL", "NUL", "NUL", "NUL"},
		{"a\x1bb", "control", "control", "control", "control", "control"},
		{"a\x7fb", "control", "control", "control", "control", "control"},
		{"a\u0085b", "not ASCII", "not ASCII", "not ASCII", "not ASCII", "not ASCII"}, // NEL, a line break to some
		{"schlüssel", ok, ok, ok, "not ASCII", "not ASCII"},
		{"a\xff", "UTF-8", "UTF-8", "UTF-8", "not ASCII", "not ASCII"},
		{"pass word", ok, ok, ok, "space", "space"},
		{"a;b", ok, ok, "several ways", "cookie", ok},
		{"a,b", ok, ok, ok, "cookie", ok},
		{`a\b`, ok, ok, "several ways", "cookie", ok},
		{"a&b=c#d", ok, ok, ok, ok, ok},
		{"a/b", ok, ok, ok, ok, ok},
		{"a/../b", ok, ok, "dotted", ok, ok},
		{"..", ok, ok, "dotted", ok, ok},
		{"/a", ok, ok, "slash", ok, ok},
		{strings.Repeat("k", maxTargetPart+1), ok, "at most", "at most", ok, ok},
	}
	for _, tt := range tests {
		for as, want := range map[string]string{
			"basic:user=u": tt.basic, "basic": tt.basic, "query:name=k": tt.query, "path:template=/{KEY}": tt.path,
			"cookie:name=c": tt.cookie, "bearer": tt.plain, "git": tt.plain,
		} {
			err := CheckValue(schemeMeta(t, as), []byte(tt.value))
			if (err == nil) != (want == ok) || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("%.20q as %s: %v, want %q", tt.value, as, err, want)
			}
			if err != nil && len(tt.value) > 4 && strings.Contains(err.Error(), tt.value) {
				t.Errorf("%s: the error quotes the value", as)
			}
		}
	}
	if err := CheckValue(schemeMeta(t, "basic:template={KEY}"), []byte("no-colon")); err == nil || !strings.Contains(err.Error(), "colon") {
		t.Errorf("a template without a colon: %v", err)
	}
}

// A refresh token that is bound to a key comes with the key, and with how proofs are signed.
func TestBoundRefreshToken(t *testing.T) {
	const user = `{"type":"authorized_user","client_id":"c","refresh_token":"r"`
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	if err != nil {
		t.Fatal(err)
	}
	key := `,"dpop_key":` + string(text) + "}"
	for _, tt := range []struct{ as, value, want string }{
		{",dpop=ES256", user + "}", ""}, {"", user + key, "say with dpop"}, {",dpop=EdDSA", user + key, ""},
		{",dpop=ES256", user + key, "ES256 signs with"},
		{",dpop=ES256", user + `,"dpop_key":"x"}`, "private key"},
	} {
		err := CheckValue(schemeMeta(t, "refresh-token:token=https://id.example.org/t"+tt.as), []byte(tt.value))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s with %s: %v", tt.value, tt.as, err)
		}
	}
}
