package control

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
)

// pemOf returns a private key in PEM.
func pemOf(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// testKeys makes one key of each kind, and some that nothing here signs with.
func testKeys(t testing.TB) map[string]string {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	short, _ := rsa.GenerateKey(rand.Reader, 1024)
	p256, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p521, _ := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	old, _ := x509.MarshalECPrivateKey(p256)
	keys := map[string]string{"rsa": pemOf(t, rsaKey), "short": pemOf(t, short), "p256": pemOf(t, p256), "p384": pemOf(t, p384), "p521": pemOf(t, p521), "ed25519": pemOf(t, ed)}
	keys["p256, old form"] = string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: old}))
	keys["rsa, old form"] = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))
	damaged := []byte(keys["p256"])
	damaged[60] ^= 3
	keys["damaged"], keys["shared"] = string(damaged), "shared by both sides 0123456789"
	return keys
}

// TestKeysOfTheWrongKind sets keys of every kind for every algorithm: those that do not fit are refused when they are set.
func TestKeysOfTheWrongKind(t *testing.T) {
	keys := testKeys(t)
	fits := map[string]string{
		"RS256": "rsa", "RS384": "rsa", "RS512": "rsa", "PS256": "rsa", "ES256": "p256", "ES384": "p384", "EdDSA": "ed25519",
		"rsa-pss-sha512": "rsa", "rsa-v1_5-sha256": "rsa", "ecdsa-p256-sha256": "p256", "ecdsa-p384-sha384": "p384", "ed25519": "ed25519",
	}
	for alg, kind := range fits {
		schemes := []string{"rfc9421:keyid=k,alg=" + alg}
		if !strings.Contains(alg, "-") && alg != "ed25519" {
			schemes = []string{"jwt:alg=" + alg, "jwt-bearer:token=https://a.example/t,iss=me,alg=" + alg, "oauth2:token=https://a.example/t,id=c,auth=jwt,alg=" + alg}
		}
		for _, as := range schemes {
			m := schemeMeta(t, as)
			for name, key := range keys {
				err := CheckValue(m, []byte(key))
				if want := strings.HasPrefix(name, kind); (err == nil) != want {
					t.Errorf("%s with %s: %v", as, name, err)
				}
				if err != nil && len(key) > 100 && strings.Contains(err.Error(), key[40:60]) {
					t.Errorf("%s with %s: the error quotes it", as, name)
				}
			}
		}
	}
	for name, key := range keys { // where the key says which algorithm it is, all that sign are taken
		err := CheckValue(schemeMeta(t, "jwt-bearer:token=https://a.example/t,iss=me"), []byte(key))
		if bad := name == "short" || name == "p521" || name == "damaged" || name == "shared"; (err != nil) != bad {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, alg := range []string{"HS256", "HS384", "HS512"} {
		if err := CheckValue(schemeMeta(t, "jwt:alg="+alg), []byte(keys["shared"])); err != nil {
			t.Errorf("%s: %v", alg, err)
		}
	}
}

func TestJWTParameters(t *testing.T) {
	claims := func(scheme, text string, headers ...string) Meta {
		m := bearerMeta()
		m.Inject = Injector{Scheme: scheme, Params: []Param{{"alg", "ES256"}, {ParamClaims, text}}}
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			m.Inject.Fields = append(m.Inject.Fields, FieldTemplate{name, value})
		}
		return m
	}
	const bound = `{"req":"{method} {target}"}`
	for _, good := range []Meta{
		schemeMeta(t, "jwt:alg=RS256"), schemeMeta(t, "jwt:alg=HS256,key=base64url,kid=k1,iss=me,sub=you,aud=https://a.example,life=3600,typ=at+jwt"),
		claims(SchemeJWT, `{"scope":"a b","n":12345678901234567890,"deep":[{"a":["{nonce:uuid}"]},null,true],"aud":["x","y"]}`, "X-Token: JWT {jwt}"),
		claims(SchemeJWTRequest, bound, "X-Token: {jwt}", "X-Other: a{jwt}b"), claims(SchemeJWTRequest, `{"d":"{body:sha256:base64url}"}`),
		schemeMeta(t, "jwt-request:preset=coinbase,kid=organizations/x/apiKeys/y"),
	} {
		if err := CheckMeta(good); err != nil || good.Signs() == good.Inject.Mints() {
			t.Errorf("%s: %v, signs %v, mints %v", good.Inject, err, good.Signs(), good.Inject.Mints())
		}
		if _, _, ok := good.Inject.TokenEndpoint(); ok {
			t.Errorf("%s calls somebody", good.Inject)
		}
	}
	for _, bad := range []struct {
		m    Meta
		want string
	}{
		{schemeMeta(t, "jwt"), "needs alg"}, {schemeMeta(t, "jwt:alg=none"), "none of"}, {schemeMeta(t, "jwt:alg=ES512"), "none of"},
		{schemeMeta(t, "jwt:alg=HS256,life=0"), "seconds"}, {schemeMeta(t, "jwt:alg=HS256,life=3601"), "seconds"}, {schemeMeta(t, "jwt:alg=HS256,life=1e3"), "seconds"},
		{schemeMeta(t, "jwt:alg=HS256,iss=a b"), "space"}, {schemeMeta(t, "jwt:alg=HS256,preset=coinbase"), "no parameter"},
		{claims(SchemeJWT, bound), "can't stand"}, {claims(SchemeJWTRequest, `{"a":"{host}"}`), "no claim says"}, {claims(SchemeJWTRequest, `{"a":"{body}{method}"}`), "can't stand"},
		{claims(SchemeJWTRequest, `{"a":"{method}{id}"}`), "can't stand"}, {claims(SchemeJWTRequest, `{"a":"{method}{signature}"}`), "can't stand"},
		{claims(SchemeJWTRequest, `{"a":"{method}{body:sha256:raw}"}`), "can't stand"}, {claims(SchemeJWTRequest, `{"a":"{path}{field:authorization}"}`), "may change"},
		{claims(SchemeJWTRequest, `{"a":"{path}{field:x-token}"}`, "x-token: {jwt}"), "is set"},
		{claims(SchemeJWT, `{"exp":1}`), "host's time"}, {claims(SchemeJWT, `{"iat":1}`), "host's time"}, {claims(SchemeJWT, `{"nbf":1}`), "host's time"},
		{claims(SchemeJWT, `{"a":1,"a":2}`), "a"}, {claims(SchemeJWT, `[]`), "json"}, {claims(SchemeJWT, `{"a":1}{}`), ""}, {claims(SchemeJWT, `{"a":"{"}`), "brace"},
		{claims(SchemeJWT, strings.Repeat(`{"a":`, 20)+`1`+strings.Repeat(`}`, 20)), "deep"},
		{claims(SchemeJWT, `{}`, "x-token: JWT"), "lacks {jwt}"}, {claims(SchemeJWT, `{}`, "x-token: {KEY}{jwt}"), "names {KEY}"}, {claims(SchemeJWT, `{}`, "content-length: {jwt}"), "belongs"},
		{claims(SchemeJWT, `{}`, "x-token: {jwt}\r\na: b"), "cannot stand"},
		{schemeMeta(t, "jwt-request:preset=coinbase"), "needs kid"}, {schemeMeta(t, "jwt-request:preset=coinbase,kid=k,alg=EdDSA"), "leave the other"}, {schemeMeta(t, "jwt-request:preset=x,kid=k"), "none of coinbase"},
	} {
		if err := CheckMeta(bad.m); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: %v, want %q", bad.m.Inject, err, bad.want)
		}
	}
	head := Injector{Scheme: SchemeJWT, Params: []Param{{"alg", "ES256"}, {ParamHead, `{"kid":"x"}`}}}
	if _, err := ParseJWT(head); err == nil || !strings.Contains(err.Error(), "of its own") {
		t.Errorf("a header that is set twice: %v", err)
	}
	aud := Injector{Scheme: SchemeJWT, Params: []Param{{"alg", "ES256"}, {"aud", "a"}, {ParamClaims, `{"aud":"b"}`}}}
	if _, err := ParseJWT(aud); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("a claim that is set twice: %v", err)
	}
}

// FuzzClaims reads anything as claims: numbers stay as they are written, and what is read can be filled in.
func FuzzClaims(f *testing.F) {
	f.Add(`{"scope":"a b","n":12345678901234567890}`)
	f.Add(`{"a":[{"b":"{method} {path}"},[[["{nonce:hex}"]]]]}`)
	f.Add(`{"a":"{","b":1e999}`)
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJWT(Injector{Scheme: SchemeJWTRequest, Params: []Param{{"alg", "ES256"}, {ParamClaims, text}}})
		if err != nil {
			return
		}
		if !j.Uses(TermMethod, TermURL, TermTarget, TermPath, TermQuery, TermBody) {
			t.Fatalf("%q says nothing of the request", text)
		}
		var plain map[string]any
		if err := json.Unmarshal([]byte(text), &plain); err != nil {
			t.Fatalf("%q is no JSON: %v", text, err)
		}
		if _, twice := plain["jti"]; len(j.Claims) != len(plain)+1 && !twice {
			t.Fatalf("%q has %d claims", text, len(j.Claims))
		}
	})
}
