package mint

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol"
)

// bearer is a challenge of a registry.
func bearer(realm, service, scope string) protocol.Fields {
	text := fmt.Sprintf(`Bearer realm="%s"`, realm)
	for name, value := range map[string]string{"service": service, "scope": scope} {
		if value != "" {
			text += fmt.Sprintf(`,%s="%s"`, name, value)
		}
	}
	return protocol.Fields{{Name: "www-authenticate", Value: text}}
}

const (
	sealedAll    = "registry:realm=https://auth.example.org/token,service=registry.example.org"
	sealedOrigin = "registry:realm=https://auth.example.org"
	atRegistry   = "@registry.example.org:443 "
)

// Where the secret names an origin alone, the first challenge says the rest, for all that follows at the same host.
func TestChallengeIsLearned(t *testing.T) {
	f := &fake{answer: numbered}
	m := newMinter(t, f)
	src := source(t, sealedOrigin, "pass")
	ask := func(purpose, want string) *Token {
		t.Helper()
		token, err := m.Token(t.Context(), src, purpose)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		if token != nil {
			got, _ = url.QueryUnescape(f.calls[len(f.calls)-1])
		}
		if got != want {
			t.Errorf("%q: %q, want %q", purpose, got, want)
		}
		return token
	}
	ask(atRegistry, "")
	if another, err := m.Challenged(src, atRegistry, nil, bearer("https://auth.example.org/v2/token", "registry.example.org", "")); !another || err != nil {
		t.Fatal(another, err)
	}
	ask(atRegistry, "a GET auth.example.org:443/v2/token?service=registry.example.org ")
	token := ask(atRegistry+"repository:a/b:pull", "a GET auth.example.org:443/v2/token?service=registry.example.org&scope=repository:a/b:pull ")
	ask("@other.example.org:443 repository:a/b:pull", "") // another host says it itself

	// A registry that calls its repositories otherwise: what it says holds for the same purpose from then on.
	named := bearer("https://auth.example.org/v2/token", "registry.example.org", "repository:local/a/b:pull repository:c:pull")
	if another, err := m.Challenged(src, atRegistry+"repository:a/b:pull", token, named); !another || err != nil {
		t.Fatal(another, err)
	}
	token = ask(atRegistry+"repository:a/b:pull", "a GET auth.example.org:443/v2/token?service=registry.example.org&scope=repository:local/a/b:pull&scope=repository:c:pull ")
	if another, err := m.Challenged(src, atRegistry+"repository:a/b:pull", token, named); another || err != nil || f.count() != 3 {
		t.Errorf("a token as asked for, and fresh, is given up: %v, %v", another, err)
	}
}

// TestAttack32Realm has a registry send the broker elsewhere with the secret, or ask for what it is not for.
func TestAttack32Realm(t *testing.T) {
	for name, tt := range map[string]struct {
		as     string
		fields protocol.Fields
		reason bool // refused
		again  bool
	}{
		"the control":          {sealedAll, bearer("https://auth.example.org/token", "registry.example.org", "repository:x:pull"), false, true},
		"with its port":        {sealedAll, bearer("https://AUTH.example.org:443/token", "registry.example.org", "repository:x:pull"), false, true},
		"another origin":       {sealedAll, bearer("https://evil.example.net/token", "registry.example.org", ""), true, false},
		"another origin, open": {sealedOrigin, bearer("https://evil.example.net/token", "registry.example.org", ""), true, false},
		"a name below":         {sealedOrigin, bearer("https://auth.example.org.evil.example.net/token", "s", ""), true, false},
		"a user":               {sealedOrigin, bearer("https://auth.example.org@evil.example.net/token", "s", ""), true, false},
		"http":                 {sealedOrigin, bearer("http://auth.example.org/token", "s", ""), true, false},
		"another port":         {sealedOrigin, bearer("https://auth.example.org:8443/token", "s", ""), true, false},
		"another path":         {sealedAll, bearer("https://auth.example.org/collect", "registry.example.org", ""), true, false},
		"a path that escapes":  {sealedOrigin, bearer("https://auth.example.org/%2e%2e/x", "s", ""), true, false},
		"a query":              {sealedOrigin, bearer("https://auth.example.org/token?account=admin", "s", ""), true, false},
		"no URL":               {sealedOrigin, bearer("auth", "s", ""), true, false},
		"another service":      {sealedAll, bearer("https://auth.example.org/token", "other.example.org", ""), true, false},
		"a huge service":       {sealedOrigin, bearer("https://auth.example.org/token", strings.Repeat("s", maxService+1), ""), true, false},
		"a huge scope":         {sealedOrigin, bearer("https://auth.example.org/token", "s", strings.Repeat("s", maxScope+1)), true, false},
		"a scope of tabs":      {sealedOrigin, bearer("https://auth.example.org/token", "s", "a\tb"), true, false},
		"malformed":            {sealedOrigin, protocol.Fields{{Name: "www-authenticate", Value: `Bearer realm="https://evil.example.net/`}}, false, false},
		"Basic":                {sealedOrigin, protocol.Fields{{Name: "www-authenticate", Value: `Basic realm="https://evil.example.net/"`}}, false, false},
		"none":                 {sealedOrigin, nil, false, false},
	} {
		f := &fake{answer: numbered}
		m := newMinter(t, f)
		src := source(t, tt.as, "s3cret")
		if tt.as == sealedAll {
			if _, err := m.Token(t.Context(), src, ""); err != nil {
				t.Fatal(err)
			}
		} else if token, err := m.Token(t.Context(), src, ""); token != nil || err != nil {
			t.Fatalf("a token from nowhere: %v", err)
		}
		before := f.count()
		again, err := m.Challenged(src, "", nil, tt.fields)
		var refused *protocol.RefusedError
		if tt.reason != (errors.As(err, &refused) && refused.Reason == protocol.ReasonCredential) || again != tt.again || f.count() != before {
			t.Errorf("%s: %v, %v", name, again, err)
		}
		if err != nil && (strings.Contains(err.Error(), "s3cret") || len(err.Error()) > 600) {
			t.Errorf("%s: the error has %d bytes", name, len(err.Error()))
		}
	}
}

// TestAttack32Challenges has a registry name another scope each time: tokens and what is kept of challenges stay bounded.
func TestAttack32Challenges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered}
		m := New(f, nil)
		defer m.Close()
		src := source(t, sealedAll, "s3cret")
		token, err := m.Token(t.Context(), src, "")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 * maxTokens {
			_, _ = m.Challenged(src, fmt.Sprint("scope-", i), nil, bearer("https://auth.example.org/token", "registry.example.org", "x"))
			if _, err := m.Challenged(src, "", token, bearer("https://auth.example.org/token", "registry.example.org", fmt.Sprint("scope-", i))); err != nil {
				t.Fatal(err)
			}
			if token, err = m.Token(t.Context(), src, ""); err != nil || token == nil {
				t.Fatal(err)
			}
		}
		all := m.families[family{"a", "KEY", 1}]
		if n := len(all.current) + len(all.former); n > maxTokens || f.count() > maxTokens || len(all.asks.byPurpose) > maxTokens {
			t.Errorf("%d tokens, %d calls, %d challenges", n, f.count(), len(all.asks.byPurpose))
		}
		// The same where a host refuses each token in time.
		for range 3 * maxTokens {
			time.Sleep(freshness)
			m.Refused(src, "", token)
			if token, err = m.Token(t.Context(), src, ""); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(all.current) + len(all.former); n > maxTokens {
			t.Errorf("%d tokens", n)
		}
	})
}
