package sign

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// verifyJWT checks a token as RFC 7515 §5.2 and RFC 7518 §3 have it, written apart from the signer, and returns its header and claims.
func verifyJWT(token, alg string, public any) (header map[string]string, claims map[string]any, err error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, nil, errors.New("not three parts")
	}
	var raw [3][]byte
	for i, p := range parts {
		if raw[i], err = base64.RawURLEncoding.Strict().DecodeString(p); err != nil {
			return nil, nil, err
		}
	}
	if err := errors.Join(json.Unmarshal(raw[0], &header), json.Unmarshal(raw[1], &claims)); err != nil {
		return nil, nil, err
	}
	text := []byte(parts[0] + "." + parts[1])
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[alg[2:]]
	var digest []byte
	if hash != 0 {
		h := hash.New()
		h.Write(text)
		digest = h.Sum(nil)
	}
	ok := false
	switch k := public.(type) {
	case []byte:
		if alg[:2] == "HS" {
			m := hmac.New(hash.New, k)
			m.Write(text)
			ok = hmac.Equal(m.Sum(nil), raw[2])
		}
	case ed25519.PublicKey:
		ok = alg == "EdDSA" && ed25519.Verify(k, text, raw[2])
	case *ecdsa.PublicKey:
		half := len(raw[2]) / 2
		ok = alg[:2] == "ES" && half*8 == k.Params().BitSize && ecdsa.Verify(k, digest, new(big.Int).SetBytes(raw[2][:half]), new(big.Int).SetBytes(raw[2][half:]))
	case *rsa.PublicKey:
		switch alg[:2] {
		case "PS":
			ok = rsa.VerifyPSS(k, hash, digest, raw[2], &rsa.PSSOptions{SaltLength: hash.Size()}) == nil
		case "RS":
			ok = rsa.VerifyPKCS1v15(k, hash, digest, raw[2]) == nil
		}
	}
	if !ok || header["alg"] != alg {
		return nil, nil, errors.New("wrong signature")
	}
	return header, claims, nil
}

// jwtSigner returns a signer of JWTs with claims in JSON.
func jwtSigner(t testing.TB, as, claims string, fields ...control.FieldTemplate) Signer {
	t.Helper()
	in, err := control.ParseScheme(as)
	if err != nil {
		t.Fatal(err)
	}
	in.Fields = fields
	if claims != "" {
		in.Params = append(in.Params, control.Param{Name: control.ParamClaims, Value: claims})
		slices.SortFunc(in.Params, func(a, b control.Param) int { return strings.Compare(a.Name, b.Name) })
	}
	m := control.Meta{Agent: "a", Name: "KEY", Version: 1, Audience: []string{"https://a.example"}, Inject: in}
	if err := control.CheckMeta(m); err != nil {
		t.Fatal(err)
	}
	return New(m)
}

func tokenRequest() *Request {
	return &Request{Method: "POST", Host: "api.example.org", Target: "/v1/a%20b?c=d", Content: []byte("content"), Whole: true,
		Fields: protocol.Fields{{Name: "content-type", Value: "text/plain"}, {Name: "authorization", Value: "Bearer own"}, {Name: "x-token", Value: "own"}}}
}

// TestJWTRequest signs by every algorithm, and has each token verified, by the right algorithm and by others.
func TestJWTRequest(t *testing.T) {
	const claims = `{"req":"{method} {url}","digest":"{body:sha256:hex}","n":12345678901234567890,"deep":[{"a":"{field:content-type}"},true]}`
	for _, alg := range control.JWTAlgs {
		value, public := testKey(t, alg)
		fields, err := signMessage(jwtSigner(t, "jwt-request:kid=k1,iss=me,sub=you,aud=https://api.example.org,life=120,alg="+alg, claims), value, tokenRequest())
		if err != nil {
			t.Fatal(err)
		}
		token, ok := strings.CutPrefix(fields.Get("authorization"), "Bearer ")
		header, got, err := verifyJWT(token, alg, public)
		if !ok || err != nil || fields.Count("authorization") != 1 {
			t.Errorf("%s: %v, %v", alg, fields, err)
			continue
		}
		sum := sha256.Sum256([]byte("content"))
		if len(got["jti"].(string)) != 32 || header["kid"] != "k1" || header["typ"] != "JWT" {
			t.Errorf("%s: %v %v", alg, header, got)
		}
		delete(got, "jti")
		want := map[string]any{
			"iss": "me", "sub": "you", "aud": "https://api.example.org", "req": "POST https://api.example.org/v1/a%20b?c=d", "digest": hex.EncodeToString(sum[:]),
			"n": 12345678901234567890.0, "deep": []any{map[string]any{"a": "text/plain"}, true},
			"iat": float64(testNow.Unix() - 30), "nbf": float64(testNow.Unix() - 30), "exp": float64(testNow.Unix() + 90),
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", alg, diff)
		}
		if !strings.Contains(tokenText(t, token), `"n":12345678901234567890`) {
			t.Errorf("%s: the number is another: %s", alg, tokenText(t, token))
		}
		for _, other := range control.JWTAlgs {
			if _, _, err := verifyJWT(token, other, public); err == nil && other != alg {
				t.Errorf("%s verifies as %s", alg, other)
			}
		}
		for _, i := range []int{3, strings.IndexByte(token, '.') + 3} {
			if _, _, err := verifyJWT(token[:i]+string(token[i]^1)+token[i+1:], alg, public); err == nil {
				t.Errorf("%s: with one bit changed it verifies", alg)
			}
		}
	}
}

// tokenText returns the claims of a token as they stand in it.
func tokenText(t *testing.T, token string) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestJWTRequestBinds changes one thing of a request at a time: the token is of what was signed.
func TestJWTRequestBinds(t *testing.T) {
	value, public := testKey(t, "ES256")
	s := jwtSigner(t, "jwt-request:alg=ES256", `{"req":"{method} {url} {body:sha256:hex}"}`, control.FieldTemplate{Name: "X-Token", Value: "JWT {jwt}"}, control.FieldTemplate{Name: "x-again", Value: "{jwt}"})
	claim := func(change func(*Request)) any {
		r := tokenRequest()
		change(r)
		fields, err := signMessage(s, value, r)
		if err != nil {
			t.Fatal(err)
		}
		token, ok := strings.CutPrefix(fields.Get("x-token"), "JWT ")
		_, claims, err := verifyJWT(token, "ES256", public)
		if !ok || err != nil || fields.Count("x-token") != 1 || fields.Get("x-again") != token || fields.Count("authorization") != 0 {
			t.Errorf("%v, %v", fields, err)
		}
		return claims["req"]
	}
	first := claim(func(*Request) {})
	for name, change := range map[string]func(*Request){
		"method": func(r *Request) { r.Method = "PUT" }, "host": func(r *Request) { r.Host = "b.example" }, "path": func(r *Request) { r.Target = "/v1/b?c=d" },
		"query": func(r *Request) { r.Target = "/v1/a%20b?c=e" }, "content": func(r *Request) { r.Content = []byte("Content") },
	} {
		if claim(change) == first {
			t.Errorf("with another %s the claim is the same", name)
		}
	}
	for name, r := range map[string]*Request{"content not whole": {Method: "GET", Target: "/"}, "no path": {Method: "OPTIONS", Target: "*", Whole: true}} {
		if proof, err := prove(s, value, r); err == nil {
			t.Errorf("%s: %v", name, fieldsOf(proof))
		}
	}
	if _, err := prove(s, "no key", tokenRequest()); err == nil {
		t.Error("what is no key signs")
	}
	if _, err := prove(jwtSigner(t, "jwt-request:alg=ES256", `{"a":"{path}{field:x-none}"}`), value, tokenRequest()); err == nil {
		t.Error("a field that is not there is signed")
	}
}

// TestJWTCoinbase makes what Coinbase documents for the keys of its developer platform.
func TestJWTCoinbase(t *testing.T) {
	const kid = "organizations/0aa/apiKeys/1bb"
	value, public := testKey(t, "ES256")
	r := &Request{Method: "GET", Host: "api.coinbase.com", Target: "/api/v3/brokerage/accounts?limit=1"}
	fields, err := signMessage(jwtSigner(t, "jwt-request:preset=coinbase,kid="+kid, ""), value, r)
	if err != nil {
		t.Fatal(err)
	}
	header, claims, err := verifyJWT(strings.TrimPrefix(fields.Get("authorization"), "Bearer "), "ES256", public)
	if err != nil || header["kid"] != kid || len(header["nonce"]) != 32 || claims["iss"] != "cdp" || claims["sub"] != kid || claims["uri"] != "GET api.coinbase.com/api/v3/brokerage/accounts" ||
		claims["exp"].(float64)-claims["nbf"].(float64) != 120 {
		t.Errorf("%v %v, %v", header, claims, err)
	}
}

// A jwtAsk is what PyJWT decodes.
type jwtAsk struct {
	Alg   string `json:"alg"`
	Key   string `json:"key"`
	Token string `json:"token"`
}

// TestJWTAgainstPackage has PyJWT decode tokens of every algorithm, as they are and with one thing wrong.
func TestJWTAgainstPackage(t *testing.T) {
	packages := clientPackage(t, "python")
	var asks []jwtAsk
	var want []string
	for _, alg := range control.JWTAlgs {
		value, public := testKey(t, alg)
		s := jwtSigner(t, "jwt-request:kid=k1,iss=me,sub=you,aud=https://api.example.org,alg="+alg, `{"req":"{method}{path}"}`)
		token := func(at time.Time) string {
			fields, err := signMessageAt(s, value, tokenRequest(), at)
			if err != nil {
				t.Fatal(err)
			}
			return strings.TrimPrefix(fields.Get("authorization"), "Bearer ")
		}
		right, key := token(time.Now()), publicText(t, public)
		i := strings.LastIndexByte(right, '.') + 5
		other := "A"
		if right[i] == 'A' {
			other = "B"
		}
		broken := right[:i] + other + right[i+1:]
		asks = append(asks, jwtAsk{alg, key, right}, jwtAsk{alg, key, broken}, jwtAsk{alg, key, token(time.Now().Add(-time.Hour))}, jwtAsk{alg, key, token(time.Now().Add(time.Hour))})
		want = append(want, "ok:POST/v1/a%20b:k1", "InvalidSignatureError", "ExpiredSignatureError", "ImmatureSignatureError")
	}
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "-W", "ignore", "testdata/tokens.py")
	cmd.Env = append(os.Environ(), "PYTHONPATH="+packages, "PYTHONDONTWRITEBYTECODE=1")
	if diff := cmp.Diff(want, ask(t, cmd, asks)); diff != "" {
		t.Error(diff)
	}
}

// FuzzJWT signs hostile requests with claims about all of them: what comes out is one token, whose claims are JSON.
func FuzzJWT(f *testing.F) {
	f.Add("GET", "/a?b=c", "text/plain", "content")
	f.Add("\"}", "/%00", "\xff\"\\", "")
	key := secret.New([]byte("a shared secret of some length"))
	s := jwtSigner(f, "jwt-request:alg=HS256", `{"a":"{method}{url}{query:sorted}{field?:content-type}{body:sha512:base64}"}`)
	f.Fuzz(func(t *testing.T, method, target, kind, content string) {
		if !protocol.IsPath(target) || !protocol.IsFieldValue(kind) {
			return
		}
		r := &Request{Method: method, Host: "a.example", Target: target, Content: []byte(content), Whole: true, Fields: protocol.Fields{{Name: "content-type", Value: kind}}}
		p, err := s.Plan(r)
		if err != nil {
			return
		}
		proof, err := p.Sign(key, r, testNow)
		if err != nil {
			t.Fatal(err)
		}
		token := strings.TrimPrefix(fieldsOf(proof)["authorization"], "Bearer ")
		if _, claims, err := verifyJWT(token, "HS256", []byte("a shared secret of some length")); err != nil || len(claims) != 5 {
			t.Fatalf("%s: %v, %v", token, claims, err)
		}
	})
}
