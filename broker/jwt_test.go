package broker

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
)

const jwtKey = "Xk3vN8zL5tR2wY7uK4pJ9mB6cD1fG0hSqEaT"

// readToken returns the claims of a token of HS256, if the key signed it.
func readToken(token string) (claims map[string]any, ok bool) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil, false
	}
	m := hmac.New(sha256.New, []byte(jwtKey))
	m.Write([]byte(parts[0] + "." + parts[1]))
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	return claims, parts[2] == base64.RawURLEncoding.EncodeToString(m.Sum(nil)) && err == nil && json.Unmarshal(b, &claims) == nil
}

// TestOwnJWT sends tokens that the broker signs itself, the same one with many requests. A host that repeats one has its signature masked.
func TestOwnJWT(t *testing.T) {
	tokens := map[string]int{}
	d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
		claims, ok := readToken(token)
		tokens[token]++
		fmt.Fprintf(w, "%v %v %d %s", ok, claims["iss"], len(r.Header.Values("Authorization")), token)
	}), "jwt:alg=HS256,iss=me,kid=k1", jwtKey)
	for range 3 {
		_, answer, err := stream().ask(get("/", protocol.Field{Name: "authorization", Value: "Bearer own"}), "")
		if err != nil || !strings.HasPrefix(answer, "true me 1 eyJ") {
			t.Fatalf("%q, %v", answer, err)
		}
		for token := range tokens {
			if signature := token[strings.LastIndexByte(token, '.')+1:]; strings.Contains(answer, signature[:12]) || strings.Contains(answer, signature[20:]) || !strings.Contains(answer, "****") {
				t.Errorf("the signature comes back: %q", answer)
			}
		}
	}
	if len(tokens) != 1 {
		t.Errorf("%d tokens for three requests", len(tokens))
	}
	if text := d.auditText(); strings.Contains(text, eventMinted) || strings.Contains(text, "eyJ") {
		t.Errorf("the audit: %s", text)
	}
}

// TestOwnJWTRefused has the host refuse tokens: another is made for a request without content, once.
func TestOwnJWTRefused(t *testing.T) {
	seen := map[string]bool{}
	d, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen[r.Header.Get("Authorization")] = true
		if len(seen) == 1 {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}), "jwt:alg=HS256,iss=me", jwtKey)
	d.broker.mints.Fresh = time.Nanosecond
	resp, _, err := stream().ask(get("/"), "")
	if err != nil || resp.Status != 200 || len(seen) != 2 {
		t.Errorf("%+v, %v, %d tokens", resp, err, len(seen))
	}
}

// TestJWTRequest sends a token for each request, which says what the request is, in a field of its own.
func TestJWTRequest(t *testing.T) {
	var jtis []any
	_, stream := openedAs(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		claims, ok := readToken(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "))
		jtis = append(jtis, claims["jti"])
		fmt.Fprintf(w, "%v %v", ok, claims["req"])
	}), `jwt-request:alg=HS256,claims={"req":"{method} {host} {target} {body:sha256:hex}"}`, jwtKey)
	for _, target := range []string{"/a?b=1", "/a?b=2"} {
		req := get(target, protocol.Field{Name: "authorization", Value: "Bearer own"})
		req.Method = "POST"
		want := "true POST example.com " + target + " " + digestOf("content")
		if _, answer, err := stream().ask(req, "content"); err != nil || answer != want {
			t.Errorf("%q, %v, want %q", answer, err, want)
		}
	}
	if len(jtis) != 2 || jtis[0] == jtis[1] || jtis[0] == nil {
		t.Errorf("identifiers %v", jtis)
	}
}
