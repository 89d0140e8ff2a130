package credential

import (
	"encoding/base64"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

func get(path string, fields ...protocol.Field) *protocol.Request {
	return &protocol.Request{Method: "GET", Scheme: "https", Authority: "api.example.org", Path: path, Fields: fields}
}

func injectorOf(t testing.TB, as string) Injector {
	t.Helper()
	parsed, err := control.ParseScheme(as)
	if err != nil {
		t.Fatal(err)
	}
	in, err := NewInjector(control.Meta{Name: "KEY", Inject: parsed})
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func basicAuth(plain string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(plain))
}

func TestSchemes(t *testing.T) {
	auth := func(v string) protocol.Field { return protocol.Field{Name: "authorization", Value: v} }
	cookie := func(v string) protocol.Field { return protocol.Field{Name: "cookie", Value: v} }
	tests := []struct {
		as, value string
		req       *protocol.Request
		want      string
	}{
		{"basic:user=me", "pass", get("/"), "authorization: " + basicAuth("me:pass")},
		{"basic:user=me", "pass", get("/", auth(basicAuth("other:x"))), "authorization: " + basicAuth("me:pass")},
		{"basic:template={KEY}:", "sk_live", get("/", auth(basicAuth("other:x"))), "authorization: " + basicAuth("sk_live:")},
		{"basic:template={KEY}", "me:pass", get("/"), "authorization: " + basicAuth("me:pass")},
		{"basic", "pass", get("/"), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth(basicAuth("me@example.org:mine"))), "authorization: " + basicAuth("me@example.org:pass")},
		{"basic", "pass", get("/", auth("bAsIc  "+basicAuth("me:")[6:])), "authorization: " + basicAuth("me:pass")},
		{"basic", "pass", get("/", auth(basicAuth("me:x")), auth(basicAuth("you:x"))), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth(basicAuth("m\r\ne:x"))), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth(basicAuth("sk_"+control.PlaceholderMark+"abc:"))), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth(basicAuth("no-colon"))), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth("Basic !!!")), "authorization: " + basicAuth("x-access-token:pass")},
		{"basic", "pass", get("/", auth(basicAuth(strings.Repeat("u", maxUser+1)+":x"))), "authorization: " + basicAuth("x-access-token:pass")},
		{"git", "ghp_x", get("/repos/a/b"), "authorization: Bearer ghp_x"},
		{"git", "ghp_x", get("/a/b.git/info/refs?service=git-upload-pack"), "authorization: " + basicAuth("x-access-token:ghp_x")},
		{"git", "ghp_x", get("/a/b/git-receive-pack", auth(basicAuth("me:x"))), "authorization: " + basicAuth("me:ghp_x")},
		{"git:user=oauth2", "glpat", get("/a/b.git/info/lfs/objects/batch"), "authorization: " + basicAuth("oauth2:glpat")},
		{"query:name=key", "a b&c=d#é", get("/v1"), ":path: /v1?key=a%20b%26c%3Dd%23%C3%A9"},
		{"query:name=key", "v", get("/v1?q=1&r=%26"), ":path: /v1?q=1&r=%26&key=v"},
		{"query:name=key", "v", get("/v1?key=mine&q=1"), ":path: /v1?q=1&key=v"},
		{"path:template=/bot{KEY}/", "12:a b", get("/botX/sendMessage?x=1"), ":path: /bot12:a%20b/sendMessage?x=1"},
		{"path:template=/bot{KEY}/", "12:ab", get("/bot/getMe"), ":path: /bot12:ab/getMe"},
		{"path:template=/services/{KEY}", "T0/B0/x", get("/services/anything"), ":path: /services/T0/B0/x"},
		{"path:template=/h/{KEY}.json", "k", get("/h/mine.json?x"), ":path: /h/k.json?x"},
		{"path:template=/h/{KEY}/a/b", "k", get("/h/mine/a/b/c"), ":path: /h/k/a/b/c"},
		{"cookie:name=sid", "v", get("/"), "cookie: sid=v"},
		{"cookie:name=sid", "v", get("/", cookie("a=1; sid=mine;b=2"), cookie("c=3")), "cookie: sid=v; a=1; b=2; c=3"},
	}
	for _, tt := range tests {
		got, err := injectorOf(t, tt.as).Apply(secret.New([]byte(tt.value)), tt.req)
		if diff := cmp.Diff([]string{tt.want}, sent(t, got, err)); diff != "" {
			t.Errorf("%s: %s", tt.as, diff)
		}
	}
}

// TestAttack17OwnParameter sends a parameter of one's own in the spellings that some server takes for it.
func TestAttack17OwnParameter(t *testing.T) {
	in := injectorOf(t, "query:name=api_key")
	for _, own := range []string{
		"api_key=m", "api_key=m&api_key=n", "API_KEY=m", "api%5Fkey=m", "api%5fkey=m", "%61pi_key=m", "api%255Fkey=m", "api%25255Fkey=m",
		"api-key=m", "api.key=m", "api+key=m", "api%20key=m", "api_key[]=m", "api_key%5B%5D=m", "api_key%5b0%5d=m", "+api_key=m", "%20api_key=m",
		"api_key", "api_key%3Dm", "api_key%00=m", "api_key%00x=m", "x=1;api_key=m", "x;api_key=m;y", "&api_key=m&", "api_key =m",
	} {
		got, err := in.Apply(secret.New([]byte("real")), get("/v1?a=1&"+own+"&b=2"))
		lines := sent(t, got, err)
		if len(lines) != 1 || strings.Count(lines[0], "=") != strings.Count("a=1&b=2&api_key=real", "=") || !strings.HasSuffix(lines[0], "&api_key=real") {
			t.Errorf("%s: %q", own, lines)
		}
	}
	const others = "/v1?api_key2=1&xapi_key=2&q=api_key%3D3&keyapi=4"
	if got := in.(query).StripTarget(others); got != others { // the control: what is not ours stays
		t.Errorf("of %s stays %s", others, got)
	}
}

// TestAttack17OwnPath sends paths that have a credential of one's own where some server looks for it.
func TestAttack17OwnPath(t *testing.T) {
	in := injectorOf(t, "path:template=/bot{KEY}/")
	for _, path := range []string{
		"/", "/Bot1/x", "/%62ot1/x", "/b%6ft1/x", "//bot1/x", "/./bot1/x", "/x/../bot1/y", "/bot1", "/bot1?/x", "/bot1%2Fx", "/file/bot1/x",
		"/botx/../bot1/y", "/botx/%2e%2e/bot1/y", "/botx/%252e%252e/bot1/y", "/botx/..%2fbot1/y", "/botx/..;a/bot1/y", `/botx/..%5cbot1/y`, "/botx/./y",
	} {
		got, err := in.Apply(secret.New([]byte("real")), get(path))
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) || refused.Reason != protocol.ReasonNoPlace || got != nil {
			t.Errorf("%s: %v, %v", path, sent(t, got, nil), err)
		}
	}
	for _, name := range []string{"X-Original-URL", "x_rewrite_url", "Authorization", "x-api-key"} {
		if !in.Strip(name) {
			t.Errorf("the workload's own %s stays", name)
		}
	}
}

// TestAttack17OwnCookie sends cookies of one's own in the spellings that some server takes for it.
func TestAttack17OwnCookie(t *testing.T) {
	in := injectorOf(t, "cookie:name=sid")
	for _, own := range []string{"sid=m", "SID=m", "%73id=m", "sid[]=m", "sid", " sid =m", `x="a; sid=m"`, "x=1, sid=m", "sid=m; sid=n", "$Version=1, sid=m"} {
		for _, name := range []string{"cookie", "Cookie", "COOKIE"} {
			got, err := in.Apply(secret.New([]byte("real")), get("/", protocol.Field{Name: name, Value: "a=1; " + own + "; b=2"}))
			lines := sent(t, got, err)
			if len(lines) != 1 || strings.Count(lines[0], "sid") != 1 || !strings.HasPrefix(lines[0], "cookie: sid=real; a=1; ") || !strings.HasSuffix(lines[0], "b=2") {
				t.Errorf("%s: %q", own, lines)
			}
		}
	}
	for _, name := range []string{"cookie", "Cookie", "cookie2", "authorization"} {
		if !in.Strip(name) {
			t.Errorf("the workload's own %s stays", name)
		}
	}
	if in.Strip("x-cookie") {
		t.Error("x-cookie is stripped")
	}
}

// FuzzTargets holds that whatever the workload sends, a target has its credential once, at the place that is
// its own, or there is none.
func FuzzTargets(f *testing.F) {
	for _, s := range []string{"/", "/botx/y?key=1", "/bot", "/?%6b%65%79=1&key", "/bot%2f/x", "/botx/..;/y"} {
		f.Add(s)
	}
	q, p := injectorOf(f, "query:name=key"), injectorOf(f, "path:template=/bot{KEY}/")
	f.Fuzz(func(t *testing.T, target string) {
		if !protocol.IsPath(target) {
			return
		}
		for _, in := range []Injector{q, p} {
			fields, err := in.Apply(secret.New([]byte("re/al?&")), get(target))
			if err != nil {
				continue
			}
			line := strings.TrimPrefix(sent(t, fields, nil)[0], ":path: ")
			want := strings.HasSuffix(line, "key=re%2Fal%3F%26")
			if in == p {
				want = strings.HasPrefix(line, "/botre/al%3F&/")
			}
			if !protocol.IsPath(line) || !want {
				t.Errorf("%q becomes %q", target, line)
			}
		}
	})
}

// On a host that is git's alone other paths get nothing, and nothing of the workload's own either.
func TestGitHost(t *testing.T) {
	set, err := NewSet([]Secret{{Meta: control.Meta{
		Agent: "a", Name: "KEY", Version: 1, Audience: []string{"https://api.example.org", "https://example.org"},
		Inject: control.Injector{Scheme: control.SchemeGit, Params: []control.Param{{Name: "host", Value: "example.org"}}},
	}, Value: secret.New([]byte("real"))}})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		host, path string
		want       bool
	}{
		{"api.example.org", "/user", true}, {"example.org", "/a/b.git/info/refs?service=x", true}, {"example.org", "/a/b/git-receive-pack", true},
		{"example.org", "/a/b", false}, {"example.org", "/a/b?/info/refs", false}, {"example.org", "/a/b/info/refs/x", false},
	} {
		use, err := pick(set, authority(t, tt.host), "https", nil, "")
		if err != nil || use.Covers(authority(t, tt.host), tt.path) != tt.want {
			t.Errorf("%s%s: %v, want %v", tt.host, tt.path, err, tt.want)
		}
		for _, name := range []string{"Cookie", "authorization"} {
			if !use.Injector.Strip(name) {
				t.Errorf("the workload's own %s stays", name)
			}
		}
	}
}
