package mint

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Somebody's key, and the token of the examples of RFC 9449 (§6.1, §7.1).
const (
	rfc9449Thumbprint = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"
	rfc9449Token      = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
	rfc9449Hash       = "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"
)

func decode64(t testing.TB, s string) []byte {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// read verifies a proof by the key in it and returns what it says.
func (p Proof) read(t testing.TB) (header map[string]any, c proofClaims) {
	t.Helper()
	var text string
	_ = p.Value.Use(func(b []byte) error { text = string(b); return nil })
	parts := strings.Split(text, ".")
	if len(parts) != 3 || json.Unmarshal(decode64(t, parts[0]), &header) != nil || json.Unmarshal(decode64(t, parts[1]), &c) != nil {
		t.Fatalf("proof %q", text)
	}
	jwk, _ := header["jwk"].(map[string]any)
	var ok bool
	switch header["alg"] {
	case "ES256":
		point := append(append([]byte{4}, decode64(t, jwk["x"].(string))...), decode64(t, jwk["y"].(string))...)
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), point)
		ok = err == nil && verifies(key, "ES256", []byte(parts[0]+"."+parts[1]), decode64(t, parts[2]))
	case "EdDSA":
		ok = verifies(ed25519.PublicKey(decode64(t, jwk["x"].(string))), "EdDSA", []byte(parts[0]+"."+parts[1]), decode64(t, parts[2]))
	}
	if !ok || jwk["d"] != nil {
		t.Errorf("proof %q does not verify", text)
	}
	return header, c
}

func TestProofs(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for _, alg := range []string{"ES256", "EdDSA"} {
		b, err := newBinding(alg, secret.New([]byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		token := &Token{Value: secret.New([]byte(rfc9449Token)), bound: b}
		seen := map[string]bool{}
		for _, tt := range []struct{ authority, target, want string }{
			{"resource.example.org:443", "/protectedresource", "https://resource.example.org/protectedresource"},
			{"resource.example.org:8443", "/a%20b//c;d?x=1#y", "https://resource.example.org:8443/a%20b//c;d"},
			{"[2001:db8::1]:443", "/?", "https://[2001:db8::1]/"},
		} {
			a, err := protocol.ParseAuthority(tt.authority, 0)
			if err != nil {
				t.Fatal(err)
			}
			p, err := token.Prove("POST", a, tt.target, now)
			if err != nil {
				t.Fatal(err)
			}
			header, c := p.read(t)
			if header["typ"] != "dpop+jwt" || header["alg"] != alg || c.Method != "POST" || c.URL != tt.want || c.Issued != now.Unix() ||
				c.Token != rfc9449Hash || c.Nonce != "" || len(c.ID) < 20 || seen[c.ID] {
				t.Errorf("%v, %+v", header, c)
			}
			seen[c.ID] = true
		}
	}
}

// answers is a token endpoint that answers with one after another, and keeps the proofs that it gets.
func answers(proofs *[]Proof, all ...*Answer) *proving { return &proving{all: all, proofs: proofs} }

type proving struct {
	all    []*Answer
	proofs *[]Proof
}

func nonced(status int, content string, nonces ...string) *Answer {
	a := &Answer{Status: status, Content: []byte(content)}
	for _, n := range nonces {
		a.Fields = append(a.Fields, protocol.Field{Name: "dpop-nonce", Value: n})
	}
	return a
}

const (
	boundAnswer = `{"access_token":"token-1","token_type":"DPoP","expires_in":3600}`
	wantsNonce  = `{"error":"use_dpop_nonce","error_description":"say it"}`
)

// The token endpoint's nonce is put into a second request, and into the first one of the next token. There is no third.
func TestNonces(t *testing.T) {
	for name, tt := range map[string]struct {
		answers []*Answer
		want    []string // nonces of the proofs that come
		good    bool
	}{
		"none":         {[]*Answer{nonced(200, boundAnswer)}, []string{""}, true},
		"wanted":       {[]*Answer{nonced(400, wantsNonce, "n-1"), nonced(200, boundAnswer)}, []string{"", "n-1"}, true},
		"by 401":       {[]*Answer{nonced(401, wantsNonce, "n-1"), nonced(200, boundAnswer)}, []string{"", "n-1"}, true},
		"never enough": {[]*Answer{nonced(400, wantsNonce, "n-1"), nonced(400, wantsNonce, "n-2"), nonced(200, boundAnswer)}, []string{"", "n-1"}, false},
		"not said":     {[]*Answer{nonced(400, wantsNonce), nonced(200, boundAnswer)}, []string{""}, false},
		"two":          {[]*Answer{nonced(400, wantsNonce, "n-1", "n-2"), nonced(200, boundAnswer)}, []string{""}, false},
		"huge":         {[]*Answer{nonced(400, wantsNonce, strings.Repeat("n", maxNonce+1)), nonced(200, boundAnswer)}, []string{""}, false},
		"with quotes":  {[]*Answer{nonced(400, wantsNonce, `n"`), nonced(200, boundAnswer)}, []string{""}, false},
		"with a break": {[]*Answer{nonced(400, wantsNonce, "n\r\nx: y"), nonced(200, boundAnswer)}, []string{""}, false},
		"other error":  {[]*Answer{nonced(400, `{"error":"invalid_grant"}`, "n-1"), nonced(200, boundAnswer)}, []string{""}, false},
		"other status": {[]*Answer{nonced(500, wantsNonce, "n-1"), nonced(200, boundAnswer)}, []string{""}, false},
	} {
		var proofs []Proof
		m := New(answers(&proofs, tt.answers...), nil)
		t.Cleanup(m.Close)
		src := source(t, plainClient+",dpop=ES256", "s3cret")
		token, err := m.Token(t.Context(), src, "")
		var got []string
		for _, p := range proofs {
			_, c := p.read(t)
			got = append(got, c.Nonce)
			if c.Token != "" || c.URL != "https://id.example.org/token" || c.Method != "POST" {
				t.Errorf("%s: %+v", name, c)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.want) || (err == nil) != tt.good {
			t.Errorf("%s: nonces %q, %v", name, got, err)
		}
		if err == nil && !token.Bound() {
			t.Errorf("%s: the token is bound to nothing", name)
		}
	}
}

// TestAttack32Bound has an endpoint hand out tokens that anybody could send, or that are another's.
func TestAttack32Bound(t *testing.T) {
	jwt := func(claims string) string {
		return "eyJhbGciOiJub25lIn0." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + ".c2ln"
	}
	for name, tt := range map[string]struct {
		answer string
		good   bool
	}{
		"the control":        {boundAnswer, true},
		"a bearer token":     {`{"access_token":"t","token_type":"Bearer"}`, false},
		"of no type":         {`{"access_token":"t"}`, false},
		"bound to another":   {`{"access_token":"` + jwt(`{"cnf":{"jkt":"`+rfc9449Thumbprint+`"}}`) + `","token_type":"DPoP"}`, false},
		"says nothing of it": {`{"access_token":"` + jwt(`{"sub":"x"}`) + `","token_type":"dpop"}`, true},
	} {
		var proofs []Proof
		m := New(answers(&proofs, nonced(200, tt.answer)), nil)
		t.Cleanup(m.Close)
		token, err := m.Token(t.Context(), source(t, plainClient+",dpop=EdDSA", "s3cret"), "")
		if (err == nil) != tt.good || (token == nil) == tt.good {
			t.Errorf("%s: %v, %v", name, token, err)
		}
	}
}

// A host's refusal is worth a second request only where it says so, with a nonce that was not in the first.
func TestAnswered(t *testing.T) {
	b, err := newBinding("ES256", secret.New([]byte("x")))
	if err != nil {
		t.Fatal(err)
	}
	token, a := &Token{Value: secret.New([]byte("t")), bound: b}, protocol.Authority{Host: "api.example.org", Port: 443}
	prove := func() Proof {
		p, err := token.Prove("GET", a, "/", time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	respond := func(status int, nonce, challenge string) *protocol.Response {
		r := &protocol.Response{Status: status, Fields: protocol.Fields{{Name: "www-authenticate", Value: challenge}}}
		if nonce != "" {
			r.Fields = append(r.Fields, protocol.Field{Name: "dpop-nonce", Value: nonce})
		}
		return r
	}
	earlier := prove()
	first := func() Proof { return earlier }
	const wants = `Bearer, DPoP error="use_dpop_nonce"`
	for _, tt := range []struct {
		name string
		p    func() Proof
		resp *protocol.Response
		want bool
	}{
		{"no nonce", first, respond(401, "", wants), false},
		{"another status", first, respond(403, "n-0", wants), false},
		{"wanted", first, respond(401, "n-1", wants), true},
		{"by a request that went with it", first, respond(401, "n-1", wants), true},
		{"and with the nonce in it", prove, respond(401, "n-1", wants), false},
		{"another error", first, respond(401, "n-2", `DPoP error="invalid_token"`), false},
		{"another scheme's", first, respond(401, "n-2", `Bearer error="use_dpop_nonce"`), false},
		{"malformed", first, respond(401, "n-2", `DPoP error="use_dpop_nonce`), false},
		{"none", first, respond(401, "n-2", ""), false},
	} {
		if got := token.Answered(a, tt.p(), tt.resp); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	if _, c := prove().read(t); c.Nonce != "n-2" {
		t.Errorf("the next proof has the nonce %q", c.Nonce)
	}
	other := protocol.Authority{Host: "other.example.org", Port: 443}
	if p, err := token.Prove("GET", other, "/", time.Now()); err != nil || p.nonce != "" {
		t.Errorf("another host's proof has the nonce %q, %v", p.nonce, err)
	}
	if (&Token{}).Answered(a, Proof{}, respond(401, "n-1", wants)) {
		t.Error("a token that is bound to nothing")
	}
}

// The key that stands beside a refresh token is the one that proofs are made with, and stays beside the next one.
func TestBoundRefresh(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	value, _ := json.Marshal(map[string]string{"type": "authorized_user", "client_id": "c", "refresh_token": "r-0", "dpop_key": string(keyPEM(t, key))})
	const as = "refresh-token:token=https://id.example.org/token,dpop=ES256"
	for _, start := range []string{string(value), "r-0"} {
		var proofs []Proof
		var kept []byte
		m := New(answers(&proofs, nonced(200, `{"access_token":"t","token_type":"DPoP","refresh_token":"r-1"}`)), nil)
		t.Cleanup(m.Close)
		src := source(t, as+",id=c", start)
		src.Replace = func(b []byte) error { kept = bytes.Clone(b); return nil }
		if _, err := m.Token(t.Context(), src, ""); err != nil {
			t.Fatal(err)
		}
		again, err := newBinding("ES256", secret.New(kept))
		if err != nil {
			t.Fatalf("%s: %v", kept, err)
		}
		header, _ := proofs[0].read(t)
		if x := header["jwk"].(map[string]any)["x"].(string); proofX(t, again) != x {
			t.Error("the key that is kept is not the one that was used")
		}
		if k, err := control.ParseGoogleKey(kept); err != nil || k.RefreshToken != "r-1" || k.ClientID != "c" || control.CheckValue(src.Meta, kept) != nil {
			t.Errorf("kept: %+v, %v", k, err)
		}
		tokens, _ := m.Live(&src.Meta)
		for _, token := range tokens {
			for _, part := range token.Parts() {
				if part.Value.Len() > 3 {
					t.Errorf("searched for: %d bytes", part.Value.Len())
				}
			}
		}
	}
	if _, err := newBinding("EdDSA", secret.New(value)); err == nil {
		t.Error("a key of another kind")
	}
}

// proofX returns a coordinate of the key that b proves by.
func proofX(t *testing.T, b *binding) string {
	t.Helper()
	p, err := b.prove("GET", protocol.Authority{Host: "a.example", Port: 443}, "/", secret.Value{}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	header, _ := p.read(t)
	return header["jwk"].(map[string]any)["x"].(string)
}

// BenchmarkProof is what each request pays that goes with a proof.
func BenchmarkProof(b *testing.B) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		b.Run(alg, func(b *testing.B) {
			bound, err := newBinding(alg, secret.New([]byte("x")))
			if err != nil {
				b.Fatal(err)
			}
			token, a := &Token{Value: secret.New([]byte(rfc9449Token)), bound: bound}, protocol.Authority{Host: "api.example.org", Port: 443}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := token.Prove("GET", a, "/v1/things?x=1", time.Now()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func (f *proving) Fetch(ctx context.Context, agent string, req *Request) (*Answer, error) {
	for _, p := range req.Proof {
		*f.proofs = append(*f.proofs, Proof{Value: secret.New(p.Value.AppendTo(nil))})
	}
	n := len(*f.proofs) - 1
	return f.all[n], nil
}
