package mint

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"torno.internal/broker/internal/challenge"
	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A binding is the key that the tokens of one version of a secret are bound to (DPoP, RFC 9449): who sends one proves with
// each request that the key is theirs. It never leaves the broker. It is safe for concurrent use.
type binding struct {
	*sign.Possession

	mu     sync.Mutex
	nonces map[protocol.Authority]string // what each server wants to see in the next proof
}

// maxNonce bounds a server's nonce, in bytes.
const maxNonce = 512

// newBinding returns a binding to the key that stands beside a refresh token in value, or else to a new one.
func newBinding(alg string, value secret.Value) (*binding, error) {
	b := &binding{nonces: map[protocol.Authority]string{}}
	return b, value.Use(func(v []byte) (err error) {
		if isJSON(v) {
			if k, err := control.ParseGoogleKey(v); err == nil && k.DPoPKey != "" {
				b.Possession, err = sign.ParsePossession(alg, []byte(k.DPoPKey))
				return err
			}
		}
		b.Possession, err = sign.NewPossession(alg)
		return err
	})
}

// A proofClaims is what a proof says (RFC 9449 §4.2).
type proofClaims struct {
	ID     string `json:"jti"`
	Method string `json:"htm"`
	URL    string `json:"htu"`
	Issued int64  `json:"iat"`
	Token  string `json:"ath,omitempty"`
	Nonce  string `json:"nonce,omitempty"`
}

// A Proof goes with one request.
type Proof struct {
	Value secret.Value // of the field DPoP
	nonce string       // the server's that is in it
}

// prove returns a proof for one request for target at a, with token, or without one at the token endpoint.
func (b *binding) prove(method string, a protocol.Authority, target string, token secret.Value, now time.Time) (Proof, error) {
	path, _, _ := strings.Cut(target, "?")
	c := proofClaims{ID: rand.Text(), Method: method, URL: endpoint{authority: a, path: path}.url(), Issued: now.Unix(), Nonce: b.nonce(a)}
	if token.Len() > 0 {
		_ = token.Use(func(t []byte) error {
			sum := sha256.Sum256(t)
			c.Token = base64.RawURLEncoding.EncodeToString(sum[:])
			return nil
		})
	}
	proof, err := b.Sign(c)
	if err != nil {
		return Proof{}, err
	}
	return Proof{secret.New(proof), c.Nonce}, nil
}

func (b *binding) nonce(a protocol.Authority) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.nonces[a]
}

// note keeps the nonce that a response of a has (RFC 9449 §8), and returns it; empty: it has none. There are as many
// authorities as the secret has hosts, and one more.
func (b *binding) note(a protocol.Authority, f protocol.Fields) string {
	nonce := f.Get("dpop-nonce")
	if f.Count("dpop-nonce") != 1 || len(nonce) > maxNonce || !isNonce(nonce) {
		return ""
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.nonces[a] = nonce
	return nonce
}

// isNonce accepts what RFC 9449 §8.1 lets a nonce be made of.
func isNonce(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < 0x21 || c > 0x7e || c == '"' || c == '\\' {
			return false
		}
	}
	return s != ""
}

// checkBound reports whether a token that says which key it is bound to (RFC 9449 §6.1) says another one.
func (b *binding) checkBound(token []byte) error {
	parts := bytes.Split(token, []byte("."))
	if len(parts) != 3 {
		return nil // its own server knows
	}
	payload, err := base64.RawURLEncoding.AppendDecode(nil, parts[1])
	defer secret.Wipe(payload)
	var c struct {
		Confirmed struct {
			Thumbprint string `json:"jkt"`
		} `json:"cnf"`
	}
	if err != nil || json.Unmarshal(payload, &c) != nil || c.Confirmed.Thumbprint == "" || c.Confirmed.Thumbprint == b.Thumbprint {
		return nil
	}
	return errors.New("the token is bound to another key")
}

// Bound reports whether the token goes with proofs.
func (t *Token) Bound() bool { return t.bound != nil }

// Prove returns the proof (RFC 9449 §4) that goes with a request for target at a, which no two requests have alike. The
// token must be Bound.
func (t *Token) Prove(method string, a protocol.Authority, target string, now time.Time) (Proof, error) {
	return t.bound.prove(method, a, target, t.Value, now)
}

// Answered keeps the nonce that a response of a has for proofs, and reports whether the request that went with p was refused
// for want of it: with it another proof may be taken. Such a request was not looked at any further (RFC 9449 §9).
func (t *Token) Answered(a protocol.Authority, p Proof, resp *protocol.Response) (again bool) {
	if t.bound == nil {
		return false
	}
	if nonce := t.bound.note(a, resp.Fields); nonce == "" || nonce == p.nonce || resp.Status != 401 {
		return false
	}
	all, err := challenge.Parse(resp.Fields, "www-authenticate")
	return err == nil && slices.ContainsFunc(all, func(c challenge.Challenge) bool { return c.Is("DPoP") && c.Params["error"] == errorNonce })
}

// errorNonce is the code of an answer that wants a nonce (RFC 9449 §8).
const errorNonce = "use_dpop_nonce"

// wanted reports whether a token endpoint refused the request that went with p for want of a nonce, which is known now.
func (b *binding) wanted(a protocol.Authority, p Proof, answer *Answer) bool {
	nonce := b.note(a, answer.Fields)
	return nonce != "" && nonce != p.nonce && (answer.Status == 400 || answer.Status == 401) && errorCode(answer.Content) == ", "+errorNonce
}
