package credential

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

func meta(name string, audience ...string) control.Meta {
	return control.Meta{
		Agent: "my-agent", Name: name, Version: 3, Audience: audience, Inject: control.Injector{Scheme: control.SchemeBearer},
	}
}

func authority(t testing.TB, s string) protocol.Authority {
	t.Helper()
	a, err := protocol.ParseAuthority(s, 443)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func placeholder(t testing.TB, key string) string {
	t.Helper()
	p, err := PlaceholderFor(key)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A world is a set of six secrets: A and B share a host, C has one of its own in a field of its own, D
// another port, X is exposed, N has no placeholder and shares C's other host.
type world struct {
	*Set
	a, b, c, d string // placeholders
}

func newWorld(t testing.TB) world {
	t.Helper()
	w := world{a: placeholder(t, "OPENAI_API_KEY"), b: placeholder(t, "B"), c: placeholder(t, "GITHUB_TOKEN"), d: placeholder(t, "D")}
	c := meta("C", "https://c.example", "https://c2.example")
	c.Inject = control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "X-C", Value: "t {C}"}}}
	x := control.Meta{Agent: "my-agent", Name: "X", Version: 1, Expose: control.ExposeEnv}
	var err error
	w.Set, err = NewSet([]Secret{
		{Meta: meta("A", "https://ab.example"), Value: secret.New([]byte("real-a")), Placeholder: w.a},
		{Meta: meta("B", "https://ab.example", "https://b.example"), Value: secret.New([]byte("real-b")), Placeholder: w.b},
		{Meta: c, Value: secret.New([]byte("real-c")), Placeholder: w.c},
		{Meta: meta("D", "https://d.example:8443"), Value: secret.New([]byte("real-d")), Placeholder: w.d},
		{Meta: meta("N", "https://c2.example"), Value: secret.New([]byte("real-n"))},
		{Meta: x, Value: secret.New([]byte("exposed"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// pick is Select where a misplaced placeholder is an error.
func pick(s *Set, a protocol.Authority, scheme string, fields protocol.Fields, target string) (*Use, error) {
	use, misplaced, err := s.Select(a, scheme, fields, target)
	if misplaced != nil {
		return nil, misplaced
	}
	return use, err
}

// check compares what Select does with want: a secret's name, a reason's code, or "" for neither.
func (w world) check(t *testing.T, name, scheme, host, want string, fields ...protocol.Field) {
	t.Helper()
	use, err := pick(w.Set, authority(t, host), scheme, fields, "")
	got := ""
	var refused *protocol.RefusedError
	switch {
	case errors.As(err, &refused):
		got = refused.Reason.String()
	case err != nil:
		got = err.Error()
	case use != nil:
		got = use.Name
	}
	if got != want {
		t.Errorf("%s: Select = %q (%v), want %q", name, got, err, want)
	}
	if err != nil && use != nil {
		t.Errorf("%s: a use beside an error", name)
	}
}

func auth(value string) protocol.Field { return protocol.Field{Name: "authorization", Value: value} }

func TestSelect(t *testing.T) {
	w := newWorld(t)
	w.check(t, "one candidate", "https", "b.example", "B")
	w.check(t, "one candidate and its placeholder", "https", "b.example", "B", auth("Bearer "+w.b))
	w.check(t, "the workload's own key", "https", "b.example", "B", auth("Bearer something-of-its-own"))
	w.check(t, "no candidate", "https", "other.example", "")
	w.check(t, "no candidate, own key", "https", "other.example", "", auth("Bearer own"))
	w.check(t, "two candidates", "https", "ab.example", "ambiguous_credential")
	w.check(t, "two, the first meant", "https", "ab.example", "A", auth("Bearer "+w.a))
	w.check(t, "two, the second meant", "https", "ab.example", "B", auth("token "+w.b))
	w.check(t, "two, both meant", "https", "ab.example", "ambiguous_credential", auth("Bearer "+w.a), auth("Bearer "+w.b))
	w.check(t, "two, one meant twice", "https", "ab.example", "A", auth("Bearer "+w.a), protocol.Field{Name: "x-api-key", Value: w.a})
	w.check(t, "two, meant in x-api-key", "https", "ab.example", "B", protocol.Field{Name: "X-Api-Key", Value: w.b})
	w.check(t, "two, meant in content only", "https", "ab.example", "ambiguous_credential", protocol.Field{Name: "x-note", Value: w.b})
	w.check(t, "meant in its own field", "https", "c2.example", "C", protocol.Field{Name: "x-c", Value: w.c})
	w.check(t, "the other has no placeholder", "https", "c2.example", "ambiguous_credential")
	w.check(t, "http elsewhere", "http", "other.example:80", "")
}

func TestUseCarriesTheSecret(t *testing.T) {
	w := newWorld(t)
	use, err := pick(w.Set, authority(t, "c.example"), "https", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	fields, err := use.Fields(get("/"))
	if diff := cmp.Diff([]string{"x-c: t real-c"}, sent(t, fields, err)); diff != "" {
		t.Error(diff)
	}
	if use.Name != "C" || use.Version != 3 {
		t.Errorf("use of %s version %d", use.Name, use.Version)
	}
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		if s := fmt.Sprintf(f, *use); strings.Contains(s, "real-c") || strings.Contains(s, "114, 101, 97, 108") {
			t.Errorf("%s prints the secret: %s", f, s)
		}
	}
	w.Wipe()
	if _, err := use.Fields(get("/")); err == nil {
		t.Error("a wiped secret makes fields")
	}
}

func TestAttack15SchemeAndPort(t *testing.T) {
	w := newWorld(t)
	w.check(t, ":443-bound asked for :8443", "https", "b.example:8443", "")
	w.check(t, ":8443-bound asked for :443", "https", "d.example", "")
	w.check(t, ":8443-bound", "https", "d.example:8443", "D")
	w.check(t, "http, default ports", "http", "b.example:80", "insecure_scheme")
	w.check(t, "http on the very port", "http", "b.example:443", "insecure_scheme")
	w.check(t, "http on :8443", "http", "d.example:8443", "insecure_scheme")
	w.check(t, "http on a port of its own", "http", "b.example:8080", "")
	w.check(t, "http to a host bound at :8443 alone", "http", "d.example:80", "")
	w.check(t, "http with the placeholder", "http", "b.example:8080", "placeholder_blocked", auth("Bearer "+w.b))
	w.check(t, "wrong port with the placeholder", "https", "b.example:8443", "placeholder_blocked", auth("Bearer "+w.b))
	w.check(t, "ws", "ws", "b.example", "")
	w.check(t, "no scheme", "", "b.example", "")
	w.check(t, "upper-case scheme", "HTTPS", "b.example", "")
	w.check(t, "subdomain", "https", "x.b.example", "")
}

func TestAttack16PlaceholderInWrongPlace(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	basic := func(user, password string) protocol.Field {
		return auth("Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	percent := func(s string) string { return strings.ReplaceAll(fmt.Sprintf("% x", s), " ", "%") }
	jsonEscaped := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, `\u%04X`, s[i])
		}
		return b.String()
	}
	tests := []struct {
		name  string
		field func(placeholder string) protocol.Field
	}{
		{"bearer", func(p string) protocol.Field { return auth("Bearer " + p) }},
		{"token", func(p string) protocol.Field { return auth("token " + p) }},
		{"bare", func(p string) protocol.Field { return auth(p) }},
		{"upper-case name", func(p string) protocol.Field { return protocol.Field{Name: "AUTHORIZATION", Value: p} }},
		{"digest parameter", func(p string) protocol.Field { return auth(`Digest username="` + p + `", realm="x"`) }},
		{"basic password", func(p string) protocol.Field { return basic("user", p) }},
		{"basic user", func(p string) protocol.Field { return basic(p, "x-oauth-basic") }},
		{"basic user alone", func(p string) protocol.Field { return basic(p, "") }},
		{"basic, URL alphabet, no padding", func(p string) protocol.Field {
			return auth("basic " + base64.RawURLEncoding.EncodeToString([]byte("\xff\xfe>?"+p)))
		}},
		{"basic, percent-encoded inside", func(p string) protocol.Field { return basic("user", url.QueryEscape(p)) }},
		{"basic, all percent-encoded inside", func(p string) protocol.Field { return basic("user", "%"+percent(p)) }},
		{"percent-encoded", func(p string) protocol.Field { return auth("Bearer %" + percent(p)) }},
		{"JSON-escaped", func(p string) protocol.Field { return auth(`{"key":"` + jsonEscaped(p) + `"}`) }},
		{"proxy-authorization", func(p string) protocol.Field {
			return protocol.Field{Name: "proxy-authorization", Value: "Bearer " + p}
		}},
		{"x-api-key", func(p string) protocol.Field { return protocol.Field{Name: "x-api-key", Value: p} }},
		{"a field of an injector", func(p string) protocol.Field { return protocol.Field{Name: "x-c", Value: p} }},
	}
	for _, tt := range tests {
		first := auth("Bearer own")
		w.check(t, tt.name+", another secret's host", "https", "b.example", "placeholder_blocked", first, tt.field(w.a))
		w.check(t, tt.name+", nobody's host", "https", "other.example", "placeholder_blocked", first, tt.field(w.a))
		w.check(t, tt.name+", another session's", "https", "b.example", "placeholder_blocked", first, tt.field(other.b))
		w.check(t, tt.name+", beside the right one", "https", "b.example", "placeholder_blocked", auth("Bearer "+w.b), tt.field(w.d))
		w.check(t, tt.name+", right", "https", "ab.example", "A", first, tt.field(w.a))
	}
	w.check(t, "content passes", "https", "b.example", "B", protocol.Field{Name: "x-note", Value: w.a})
	w.check(t, "content passes elsewhere", "https", "other.example", "", protocol.Field{Name: "referer", Value: w.a})
	w.check(t, "changed prefix", "https", "ab.example", "placeholder_blocked", auth("Bearer "+strings.TrimPrefix(w.a, "sk")))
	w.check(t, "cut off", "https", "ab.example", "placeholder_blocked", auth("Bearer "+w.a[:len(w.a)-1]))
}

// TestAttack16PlaceholderInTarget puts placeholders into paths, queries and cookies, spelled in every way.
func TestAttack16PlaceholderInTarget(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	for name, put := range map[string]func(p string) (target string, fields protocol.Fields){
		"query":          func(p string) (string, protocol.Fields) { return "/v1?key=" + p + "&x=1", nil },
		"query, encoded": func(p string) (string, protocol.Fields) { return "/v1?key=" + strings.ReplaceAll(p, "I", "%49"), nil },
		"query in base64": func(p string) (string, protocol.Fields) {
			return "/v1?key=" + base64.StdEncoding.EncodeToString([]byte("u:"+p)), nil
		},
		"path": func(p string) (string, protocol.Fields) { return "/bot" + p + "/send", nil },
		"cookie": func(p string) (string, protocol.Fields) {
			return "/", protocol.Fields{{Name: "cookie", Value: "a=b; key=" + p}}
		},
	} {
		for _, tt := range []struct {
			host, placeholder, want string
		}{
			{"b.example", w.a, "placeholder_blocked"}, {"other.example", w.a, "placeholder_blocked"},
			{"b.example", other.b, "placeholder_blocked"}, {"ab.example", w.a, ""}, {"ab.example", w.b, ""},
		} {
			target, fields := put(tt.placeholder)
			got := ""
			var refused *protocol.RefusedError
			if _, err := pick(w.Set, authority(t, tt.host), "https", fields, target); errors.As(err, &refused) {
				got = refused.Reason.String()
			}
			if got != tt.want {
				t.Errorf("%s for %s: %q, want %q", name, tt.host, got, tt.want)
			}
		}
	}
	if _, err := pick(w.Set, authority(t, "other.example"), "https", protocol.Fields{{Name: "referer", Value: w.a}}, "/v1?q=tornoInert"+strings.Repeat("x", 9)); err != nil {
		t.Errorf("text is refused: %v", err)
	}
}

func TestRevoke(t *testing.T) {
	w := newWorld(t)
	revoked := w
	revoked.Set = w.Set.Revoke("B", 0)
	revoked.check(t, "revoked", "https", "b.example", "revoked")
	revoked.check(t, "revoked, meant", "https", "ab.example", "revoked", auth(w.b))
	revoked.check(t, "the other, meant", "https", "ab.example", "A", auth(w.a))
	revoked.check(t, "neither meant", "https", "ab.example", "ambiguous_credential")
	revoked.check(t, "its placeholder elsewhere", "https", "c.example", "placeholder_blocked", auth(w.b))
	w.check(t, "the set before", "https", "b.example", "B")
}

func TestNewSetRefuses(t *testing.T) {
	host := meta("A", "https://a.example")
	host.Inject = control.Injector{Scheme: control.SchemeHeader, Fields: []control.FieldTemplate{{Name: "host", Value: "{A}"}}}
	for _, bad := range []control.Meta{meta("A", "http://a.example"), meta("A", "https://a.example", "https://a.example"), host} {
		if set, err := NewSet([]Secret{{Meta: bad}}); err == nil || set != nil {
			t.Errorf("%+v makes a set", bad)
		}
	}
	if _, err := NewSet([]Secret{{Meta: meta("A", "https://a.example"), Placeholder: "sk-real"}}); err == nil {
		t.Error("a placeholder without the mark makes a set")
	}
	if _, err := NewSet([]Secret{{Meta: control.Meta{Name: "X"}}}); err != nil {
		t.Errorf("a secret that is neither exposed nor bound: %v", err)
	}
}

func FuzzRecognise(f *testing.F) {
	w := newWorld(f)
	b := authority(f, "b.example")
	for _, s := range []string{
		"", "Bearer x", "Basic dXNlcjpwYXNzd29yZC10aGF0LWlzLWxvbmctZW5vdWdo", "%", "%4", `\u00`, `\u004`, "tornoInert",
		"Basic " + strings.Repeat("=", 40), strings.Repeat("A", 33), strings.Repeat("tornoInert", 9), "\xff" + strings.Repeat("%74", 40),
	} {
		f.Add(s, "Bearer ")
	}
	f.Fuzz(func(t *testing.T, value, before string) {
		// Whatever stands around it, a wrong placeholder as it is does not pass.
		for _, v := range []string{before + w.a + value, value + w.a + before} {
			use, err := pick(w.Set, b, "https", protocol.Fields{auth(v)}, "")
			if err == nil || use != nil {
				t.Fatalf("Select passes %q", v)
			}
		}
		use, err := pick(w.Set, b, "https", protocol.Fields{auth(value)}, "")
		if (err == nil) != (use != nil) {
			t.Fatalf("Select = %v, %v", use, err)
		}
		pair := base64.StdEncoding.EncodeToString([]byte(before + ":" + w.a))
		if _, err := pick(w.Set, b, "https", protocol.Fields{auth("Basic " + pair)}, ""); err == nil {
			t.Fatalf("Select passes Basic %q", pair)
		}
	})
}

func BenchmarkSelect(b *testing.B) {
	w := newWorld(b)
	host := authority(b, "b.example")
	plain := protocol.Fields{{Name: "accept", Value: "*/*"}, {Name: "user-agent", Value: "x"}, {Name: "content-type", Value: "application/json"}}
	for name, fields := range map[string]protocol.Fields{
		"none":        plain,
		"placeholder": append(plain.Clone(), auth("Bearer "+w.b)),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := pick(w.Set, host, "https", fields, ""); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestAttack26UsableLater asks about a secret that was chosen before: a request may wait for minutes, for a host or for a
// person.
func TestAttack26UsableLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := meta("KEY", "https://api.example.org", "https://other.example.org")
		m.Expires, m.Rotation = time.Now().Add(time.Minute), control.RotationFollow
		set, err := NewSet([]Secret{{Meta: m, Value: secret.New([]byte("value"))}})
		if err != nil {
			t.Fatal(err)
		}
		here, there := authority(t, "api.example.org"), authority(t, "other.example.org")
		use, err := pick(set, here, "https", nil, "")
		if err != nil {
			t.Fatal(err)
		}
		next := m
		next.Version, next.Audience = 4, m.Audience[:1]
		narrowed, err := set.Follow(Secret{Meta: next, Value: secret.New([]byte("another"))})
		if err != nil {
			t.Fatal(err)
		}
		check := func(what string, err error, want protocol.Reason) {
			t.Helper()
			var refused *protocol.RefusedError
			if got := errors.As(err, &refused); got != (want != protocol.ReasonNone) || got && refused.Reason != want {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		}
		check("at once", set.Usable(use, here), protocol.ReasonNone)
		check("with a later version", narrowed.Usable(use, here), protocol.ReasonNone)
		check("with a later version that goes elsewhere", narrowed.Usable(use, there), protocol.ReasonRevoked)
		check("revoked", set.Revoke("KEY", 3).Usable(use, here), protocol.ReasonRevoked)
		time.Sleep(time.Minute)
		check("expired", set.Usable(use, here), protocol.ReasonExpired)
	})
}
