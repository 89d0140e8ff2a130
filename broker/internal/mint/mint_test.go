package mint

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A fake is a token endpoint.
type fake struct {
	mu     sync.Mutex
	calls  []string // method, authority, path and content
	answer func(n int) (*Answer, error)
	delay  time.Duration
}

func (f *fake) Fetch(ctx context.Context, agent string, req *Request) (*Answer, error) {
	f.mu.Lock()
	f.calls = append(f.calls, fmt.Sprintf("%s %s %s%s %s", agent, req.Method, req.Authority, req.Path, req.Content))
	n := len(f.calls)
	f.mu.Unlock()
	select {
	case <-time.After(f.delay):
		return f.answer(n)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls)
}

func ok(content string) *Answer { return &Answer{Status: 200, Content: []byte(content)} }

// numbered answers token-1, token-2 and so on, each good for an hour.
func numbered(n int) (*Answer, error) {
	return ok(fmt.Sprintf(`{"access_token":"token-%d","token_type":"Bearer","expires_in":3600}`, n)), nil
}

func source(t testing.TB, as, value string) *Source {
	t.Helper()
	in, err := control.ParseScheme(as)
	if err != nil {
		t.Fatal(err)
	}
	m := control.Meta{Agent: "a", Name: "KEY", Version: 1, Audience: []string{"https://api.example.org"}, Inject: in}
	if err := errors.Join(control.CheckMeta(m), control.CheckValue(m, []byte(value))); err != nil {
		t.Fatal(err)
	}
	return &Source{Meta: m, Value: secret.New([]byte(value))}
}

const plainClient = "oauth2:token=https://id.example.org/token,id=client"

func newMinter(t testing.TB, f *fake) *Minter {
	m := New(f, nil)
	t.Cleanup(m.Close)
	return m
}

func text62(t testing.TB, token *Token, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	var s string
	_ = token.Value.Use(func(b []byte) error { s = string(b); return nil })
	return s
}

// A token is kept, renewed while it is still used, and got anew once it has expired; all who wait for it share one call.
func TestOneFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered, delay: time.Second}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainClient, "s3cret")
		want := func(token string, calls int) {
			t.Helper()
			var all sync.WaitGroup
			for range 50 {
				all.Go(func() {
					got, err := m.Token(t.Context(), src, "")
					if s := text62(t, got, err); s != token {
						t.Errorf("got %s, want %s", s, token)
					}
				})
			}
			all.Wait()
			synctest.Wait() // a flight may just have begun
			if f.count() != calls {
				t.Errorf("%d calls, want %d", f.count(), calls)
			}
		}
		want("token-1", 1)
		time.Sleep(50 * time.Minute)
		want("token-1", 1)
		time.Sleep(6 * time.Minute) // it is about to expire
		want("token-1", 2)
		time.Sleep(2 * time.Second)
		want("token-2", 2)
		time.Sleep(2 * time.Hour) // it has expired
		want("token-3", 3)
		src.Meta.Version = 2
		want("token-4", 4)
	})
}

// An endpoint that fails is asked again after a while that grows, and never at every request; a token that is still good
// goes on.
func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(n int) (*Answer, error) {
			if n == 1 {
				return numbered(n)
			}
			return nil, errors.New("down")
		}}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainClient, "s3cret")
		_, _ = m.Token(t.Context(), src, "")
		for range 59 * 60 {
			time.Sleep(time.Second)
			if got, err := m.Token(t.Context(), src, ""); err != nil || text62(t, got, err) != "token-1" {
				t.Fatalf("the token that is there: %v", err)
			}
		}
		time.Sleep(5 * time.Minute)
		before := f.count()
		for range 600 {
			time.Sleep(time.Second)
			var refused *protocol.RefusedError
			if _, err := m.Token(t.Context(), src, ""); !errors.As(err, &refused) || refused.Reason != protocol.ReasonCredential {
				t.Fatalf("%v", err)
			}
		}
		if n := f.count() - before; before > 20 || n < 8 || n > 12 {
			t.Errorf("%d calls before the end, %d in ten minutes after it", before, n)
		}
	})
}

// TestAttack32Slow has an endpoint that never answers: those who wait learn of it after Timeout, and Close waits for nobody.
func TestAttack32Slow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered, delay: time.Hour}
		m := New(f, nil)
		src := source(t, plainClient, "s3cret")
		began := time.Now()
		if _, err := m.Token(t.Context(), src, ""); err == nil || time.Since(began) != Timeout {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.Sleep(time.Minute)
		if _, err := m.Token(ctx, src, ""); err == nil {
			t.Error("a token from nowhere")
		}
		began = time.Now()
		m.Close()
		if time.Since(began) != 0 {
			t.Errorf("closing took %v", time.Since(began))
		}
		if _, err := m.Token(t.Context(), src, ""); err == nil {
			t.Error("a token after Close")
		}
	})
}

// TestAttack32Answers has an endpoint say what it must not: there is no token, and the error quotes nothing of it.
func TestAttack32Answers(t *testing.T) {
	const canary = "canary-7f3a9b2c"
	bad := map[string]*Answer{
		"redirect":          {Status: 302, Fields: protocol.Fields{{Name: "location", Value: "https://evil.example/" + canary}}, Content: []byte(`{"access_token":"` + canary + `"}`)},
		"error":             {Status: 400, Content: []byte(`{"error":"invalid_client","error_description":"` + canary + `"}`)},
		"error that is one": {Status: 400, Content: []byte(`{"error":"` + canary + `"}`)},
		"huge":              ok(`{"access_token":"` + canary + `","x":"` + strings.Repeat("x", MaxAnswer) + `"}`),
		"no JSON":           ok("access_token=" + canary),
		"no token":          ok(`{"access":"` + canary + `"}`),
		"empty":             ok(`{"access_token":""}`),
		"a number":          ok(`{"access_token":12345678}`),
		"CR LF":             ok(`{"access_token":"` + canary + `\r\nhost: evil.example"}`),
		"raw LF":            ok("{\"access_token\":\"" + canary + "\n\"}"),
		"NUL":               ok(`{"access_token":"` + canary + `\u0000"}`),
		"space":             ok(`{"access_token":"` + canary + ` x"}`),
		"not ASCII":         ok(`{"access_token":"` + canary + `é"}`),
		"long":              ok(`{"access_token":"` + strings.Repeat("t", maxToken+1) + `"}`),
		"type":              ok(`{"access_token":"` + canary + `","token_type":"DPoP"}`),
		"expiry":            ok(`{"access_token":"` + canary + `","expires_in":"soon ` + canary + `"}`),
		"no number":         ok(`{"access_token":"` + canary + `","expires_in":"NaN"}`),
		"expiry date":       ok(`{"access_token":"` + canary + `","expires_at":"` + canary + `"}`),
		"refresh token":     ok(`{"access_token":"` + canary + `","refresh_token":"a\nb"}`),
	}
	for name, answer := range bad {
		content := string(answer.Content)
		m := newMinter(t, &fake{answer: func(int) (*Answer, error) {
			a := *answer
			a.Content = []byte(content)
			return &a, nil
		}})
		token, err := m.Token(t.Context(), source(t, plainClient, "s3cret"), "")
		if err == nil || token != nil || strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v, %v", name, token, err)
		}
		if tokens, n := m.Live(&source(t, plainClient, "s3cret").Meta); len(tokens) != 0 || n != 0 {
			t.Errorf("%s: %d tokens", name, n)
		}
	}
	for _, good := range []string{`{"access_token":"` + canary + `"}`, `{"access_token":"` + canary + `","token_type":"bearer","expires_in":"3599"}`, `{"token":"` + canary + `"}`} {
		m := newMinter(t, &fake{answer: func(int) (*Answer, error) { return ok(good), nil }})
		token, err := m.Token(t.Context(), source(t, plainClient, "s3cret"), "")
		if text62(t, token, err) != canary {
			t.Errorf("the control: %s: %v", good, err)
		}
	}
}

// TestAttack32Expiry has an endpoint lie about lifetimes, and about the time.
func TestAttack32Expiry(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		answer, date string
		want         time.Duration
	}{
		{`"expires_in":3600`, "", time.Hour}, {`"expires_in":"3600"`, "", time.Hour}, {`"expires_in":3600.5`, "", time.Hour},
		{`"x":1`, "", lifetime}, {`"expires_in":null`, "", lifetime},
		{`"expires_in":0`, "", minLifetime}, {`"expires_in":-5`, "", minLifetime}, {`"expires_in":1e300`, "", maxLifetime},
		{`"expires_in":99999999999`, "", maxLifetime}, {`"expires_in":"inf"`, "", maxLifetime},
		{`"expires_at":"2026-01-02T04:04:05Z"`, "", time.Hour}, {`"expires_at":"2099-01-02T04:04:05Z"`, "", maxLifetime}, {`"expires_at":"1999-01-02T04:04:05Z"`, "", minLifetime},
		{`"expires_at":"2026-01-02T10:04:05Z"`, now.Add(6 * time.Hour).Format(http.TimeFormat), time.Hour}, // its clock is off by hours
	}
	for _, tt := range tests {
		a := ok(`{"access_token":"t",` + tt.answer + `}`)
		a.Fields = protocol.Fields{{Name: "date", Value: tt.date}}
		got, err := readAnswer(clientCredentials{}, a, now)
		if err != nil || got.life != tt.want {
			t.Errorf("%s: %+v, %v; want %v", tt.answer, got, err, tt.want)
		}
	}
	late := &Answer{Status: 400, Fields: protocol.Fields{{Name: "date", Value: now.Add(3 * time.Hour).Format(http.TimeFormat)}}, Content: []byte(`{"error":"invalid_grant"}`)}
	if _, err := readAnswer(clientCredentials{}, late, now); err == nil || !strings.Contains(err.Error(), "400, invalid_grant; its clock is 3h0m0s from") {
		t.Errorf("%v", err)
	}
}

// A host that refuses a token gets another one, but not at every request. Both are still searched for.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainClient, "s3cret")
		first, err := m.Token(t.Context(), src, "")
		if err != nil || m.Refused(src, "", first) {
			t.Fatalf("a token that is as fresh as can be is given up (%v)", err)
		}
		time.Sleep(freshness)
		if !m.Refused(src, "", first) {
			t.Fatal("there is no other token")
		}
		second, err := m.Token(t.Context(), src, "")
		if text62(t, second, err) != "token-2" || !m.Refused(src, "", first) || m.Refused(src, "", second) || f.count() != 2 {
			t.Errorf("%d calls", f.count())
		}
		if live, n := m.Live(&src.Meta); len(live) != 2 || n != 2 || n != m.Generation(&src.Meta) {
			t.Errorf("%d tokens of %d", len(live), n)
		}
		m.Forget("a", "KEY", 1)
		if live, _ := m.Live(&src.Meta); len(live) != 2 {
			t.Errorf("%d tokens are searched for once the secret is revoked", len(live))
		}
		third, err := m.Token(t.Context(), src, "")
		if text62(t, third, err) != "token-3" {
			t.Error("a token of a revoked secret is used")
		}
	})
}

// The workload can ask a registry for as many repositories as it likes: the number of tokens is bounded, and recovers.
func TestTokensAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainClient, "s3cret")
		for i := range 3 * maxTokens {
			_, err := m.Token(t.Context(), src, fmt.Sprint(i))
			if (err == nil) != (i < maxTokens) {
				t.Fatalf("token %d: %v", i, err)
			}
		}
		if f.count() != maxTokens {
			t.Errorf("%d calls", f.count())
		}
		time.Sleep(2 * time.Hour)
		if _, err := m.Token(t.Context(), src, "another"); err != nil {
			t.Errorf("when all have expired: %v", err)
		}
	})
}

// BenchmarkCached is what a request pays for a token that is there.
func BenchmarkCached(b *testing.B) {
	m := New(&fake{answer: numbered}, nil)
	defer m.Close()
	src := source(b, plainClient, "s3cret")
	if _, err := m.Token(b.Context(), src, ""); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Token(b.Context(), src, ""); err != nil {
			b.Fatal(err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte(`{"access_token":"t","expires_in":3600,"refresh_token":"r"}`))
	f.Add([]byte(`{"token":"a\u0062","expires_at":"2026-01-02T04:04:05Z","error":"x"}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := readAnswer(clientCredentials{}, ok(string(content)), time.Now())
		if err != nil {
			if got != nil {
				t.Error("something beside an error")
			}
			return
		}
		if !isToken(got.access) || got.life < minLifetime || got.life > maxLifetime || len(got.refresh) > 0 && !isToken(got.refresh) {
			t.Errorf("%q: %v", content, got.life)
		}
	})
}

// TestAttack32SearchedFor has every token searched for that a host was given and may still take: one that was got after
// another had expired, one of which nobody said how long it lives, and one that came when its secret was forgotten.
func TestAttack32SearchedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: numbered, delay: time.Second}
		m := New(f, nil)
		defer m.Close()
		src := source(t, plainClient, "s3cret")
		live := func() string {
			var all []string
			tokens, _ := m.Live(&src.Meta)
			for _, token := range tokens {
				all = append(all, text62(t, token, nil))
			}
			slices.Sort(all)
			return strings.Join(all, " ")
		}
		token := func(want, searched string, calls int) {
			t.Helper()
			got, err := m.Token(t.Context(), src, "")
			if s := text62(t, got, err); s != want || live() != searched || f.count() != calls {
				t.Errorf("got %s by call %d, want %s by %d; searched for: %q, want %q", s, f.count(), want, calls, live(), searched)
			}
		}
		token("token-1", "token-1", 1)
		time.Sleep(2 * time.Hour) // it has expired, for everybody
		token("token-2", "token-2", 2)
		token("token-2", "token-2", 2)
		f.answer = func(n int) (*Answer, error) { return ok(fmt.Sprintf(`{"access_token":"token-%d"}`, n)), nil }
		time.Sleep(2 * time.Hour)
		token("token-3", "token-3", 3)
		time.Sleep(2 * lifetime) // the host may take it for longer than we use it
		token("token-4", "token-3 token-4", 4)
		time.Sleep(2 * lifetime)
		late := make(chan *Token)
		go func() {
			got, _ := m.Token(t.Context(), src, "")
			late <- got
		}()
		synctest.Wait()
		m.Forget("a", "KEY", 0)
		if got := text62(t, <-late, nil); got != "token-5" || live() != "token-3 token-4 token-5" {
			t.Errorf("got %s; searched for: %q", got, live())
		}
	})
}
