package sign

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// jwtAlgorithms are the algorithms of JWS (RFC 7518 §3.1, RFC 8037).
var jwtAlgorithms = map[string]algorithm{
	"RS256": {hash: crypto.SHA256, kind: control.KeyRSA}, "RS384": {hash: crypto.SHA384, kind: control.KeyRSA}, "RS512": {hash: crypto.SHA512, kind: control.KeyRSA},
	"PS256": {hash: crypto.SHA256, kind: control.KeyRSA, pss: true},
	"ES256": {hash: crypto.SHA256, kind: control.KeyP256}, "ES384": {hash: crypto.SHA384, kind: control.KeyP384},
	"EdDSA": {kind: control.KeyEd25519},
	"HS256": {hash: crypto.SHA256, kind: control.KeyShared}, "HS384": {hash: crypto.SHA384, kind: control.KeyShared}, "HS512": {hash: crypto.SHA512, kind: control.KeyShared},
}

// usualAlg is what keys of a kind sign a JWT with where nobody says it.
var usualAlg = map[control.KeyKind]string{control.KeyRSA: "RS256", control.KeyP256: "ES256", control.KeyP384: "ES384", control.KeyEd25519: "EdDSA"}

// A JWT is what is signed as a JSON Web Token (RFC 7519).
type JWT struct {
	Alg    string            // of RFC 7518 §3.1; empty: the usual one of a private key
	Coding string            // how a shared key is written; empty: its bytes
	Header map[string]string // further parameters of its header, such as kid
	Claims map[string]any
}

// Sign returns the token in compact form, signed with value: a private key in PEM, or a shared key where Alg wants one.
// Its errors don't quote value.
func (j *JWT) Sign(value []byte) ([]byte, error) {
	alg := j.Alg
	if alg == "" {
		_, kind, err := control.ParsePrivateKey(value)
		if err != nil {
			return nil, err
		}
		alg = usualAlg[kind]
	}
	a, ok := jwtAlgorithms[alg]
	if !ok {
		return nil, fmt.Errorf("%q is no algorithm of a JWT", alg)
	}
	k, err := parseKey(value, a, j.Coding)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(k.shared)
	return j.sign(k, alg)
}

// sign returns the token, signed with k, whose algorithm is called alg.
func (j *JWT) sign(k key, alg string) ([]byte, error) {
	header := map[string]string{"alg": alg, "typ": "JWT"}
	for name, value := range j.Header {
		header[name] = value
	}
	h, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	c, err := json.Marshal(j.Claims)
	if err != nil {
		return nil, err
	}
	token := make([]byte, 0, base64.RawURLEncoding.EncodedLen(len(h)+len(c))+base64.RawURLEncoding.EncodedLen(512)+4)
	token = base64.RawURLEncoding.AppendEncode(token, h)
	token = base64.RawURLEncoding.AppendEncode(append(token, '.'), c)
	signature, err := k.sign(token)
	if k.elsewhere != nil && err != nil {
		return nil, err
	}
	if err != nil {
		return nil, errors.New("the private key can't sign")
	}
	return base64.RawURLEncoding.AppendEncode(append(token, '.'), signature), nil
}
