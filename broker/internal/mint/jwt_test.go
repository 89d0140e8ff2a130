package mint

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A JWT of one's own is made without calling anybody, kept, and replaced ahead of its end. Its beginning is not searched for: it
// is the same in all tokens of the key.
func TestOwnJWT(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	key := string(keyPEM(t, private))
	synctest.Test(t, func(t *testing.T) {
		f := &fake{answer: func(int) (*Answer, error) { return nil, errors.New("somebody was called") }}
		m := newMinter(t, f)
		src := source(t, "jwt:alg=EdDSA,kid=k1,iss=team,life=1200", key)
		token, err := m.Token(t.Context(), src, "")
		first := text62(t, token, err)
		parts := strings.Split(first, ".")
		signature, _ := base64.RawURLEncoding.DecodeString(parts[2])
		b, _ := base64.RawURLEncoding.DecodeString(parts[1])
		var claims map[string]any
		if err := json.Unmarshal(b, &claims); err != nil || !ed25519.Verify(public, []byte(parts[0]+"."+parts[1]), signature) || claims["iss"] != "team" || claims["exp"] != float64(time.Now().Unix()+1140) {
			t.Errorf("%s: %v", b, err)
		}
		searched := token.Parts()
		if len(searched) != 1 || searched[0].Public != parts[0]+"."+parts[1]+"." {
			t.Errorf("searched for %q", searched[0].Public)
		}
		for _, step := range []struct {
			wait  time.Duration
			again bool
		}{{14 * time.Minute, true}, {time.Minute, false}, {20 * time.Minute, false}} {
			time.Sleep(step.wait)
			token, err := m.Token(t.Context(), src, "") // one that is about to end is used on while the next one is made
			synctest.Wait()
			if err == nil && !step.again {
				token, err = m.Token(t.Context(), src, "")
			}
			got := text62(t, token, err)
			if (got == first) != step.again {
				t.Errorf("after %v: the same token %v", step.wait, got == first)
			}
			first = got
		}
		if f.count() != 0 {
			t.Errorf("%d calls", f.count())
		}
	})
}

// A key that can't sign is told as a credential that is not there, and to the log.
func TestOwnJWTWithoutKey(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	src := source(t, "jwt:alg=ES256", string(keyPEM(t, p256)))
	src.Meta.Inject.Params[0].Value = "EdDSA" // as if it had been changed since it was set
	told := make(chan error, 1)
	m := New(&fake{}, func(e Event) { told <- e.Err })
	defer m.Close()
	if token, err := m.Token(t.Context(), src, ""); err == nil || token != nil || !strings.Contains(err.Error(), "P-256") {
		t.Errorf("%v, %v", token, err)
	}
	select {
	case err := <-told:
		if err == nil {
			t.Error("nobody is told why")
		}
	case <-time.After(10 * time.Second):
		t.Error("nobody is told")
	}
}
