package mint

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// How long assertions are good for. Verifiers' clocks may be a little behind or before ours.
const (
	assertionLife     = 5 * time.Minute
	assertionBackdate = time.Minute
)

// claims are those of an assertion, but for its times.
type claims map[string]any

// assertion is the grant of RFC 7523 §2.1.
type assertion struct {
	endpoint
	in control.Injector
}

func (assertion) id() bool { return false }

func (g assertion) request(value []byte, _ string, now time.Time) (*Request, error) {
	iss := g.in.Param("iss")
	c := claims{"iss": iss, "sub": g.in.ParamOr("sub", iss), "aud": g.in.ParamOr("aud", g.url())}
	f := &form{}
	addTargets(f, g.in)
	return g.bearing(f, value, g.in, c, now)
}

// bearing returns a request with an assertion for its grant.
func (e endpoint) bearing(f *form, key []byte, in control.Injector, c claims, now time.Time) (*Request, error) {
	signed, err := signAssertion(key, in, c, now)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(signed)
	f.add("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer")
	f.addBytes("assertion", signed)
	return e.post(f), nil
}

// signAssertion returns a JWT (RFC 7519) in compact form, signed with the key in PEM.
func signAssertion(key []byte, in control.Injector, c claims, now time.Time) ([]byte, error) {
	signer, err := sign.ParsePrivate(key)
	if err != nil {
		return nil, err
	}
	alg, err := chooseAlg(signer, in.Param("alg"))
	if err != nil {
		return nil, err
	}
	header := map[string]string{"alg": alg, "typ": "JWT"}
	if kid := in.Param("kid"); kid != "" {
		header["kid"] = kid
	}
	c = maps.Clone(c)
	c["iat"], c["exp"] = now.Add(-assertionBackdate).Unix(), now.Add(assertionLife).Unix()
	c["jti"] = rand.Text()
	h, _ := json.Marshal(header) // strings and numbers alone
	p, _ := json.Marshal(c)
	signing := base64.RawURLEncoding.AppendEncode(nil, h)
	signing = base64.RawURLEncoding.AppendEncode(append(signing, '.'), p)
	signature, err := signWith(signer, alg, signing)
	if err != nil {
		return nil, errors.New("the private key can't sign")
	}
	return base64.RawURLEncoding.AppendEncode(append(signing, '.'), signature), nil
}

// An algorithm says how a JWS is signed (RFC 7518 §3.1, RFC 8037).
type algorithm struct {
	hash crypto.Hash
	pss  bool
	size int // bytes of each of the two numbers of ECDSA; 0: another kind
}

var algorithms = map[string]algorithm{
	"RS256": {hash: crypto.SHA256}, "RS384": {hash: crypto.SHA384}, "RS512": {hash: crypto.SHA512},
	"PS256": {hash: crypto.SHA256, pss: true},
	"ES256": {hash: crypto.SHA256, size: 32}, "ES384": {hash: crypto.SHA384, size: 48},
	"EdDSA": {},
}

// chooseAlg returns the algorithm that is asked for, or the usual one of the key, if they go together.
func chooseAlg(key crypto.Signer, asked string) (string, error) {
	var usual string
	var fits func(algorithm) bool
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if k.N.BitLen() < 2048 {
			return "", fmt.Errorf("an RSA key of %d bits; verifiers want 2048 or more", k.N.BitLen())
		}
		usual, fits = "RS256", func(a algorithm) bool { return a.hash != 0 && a.size == 0 }
	case *ecdsa.PrivateKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		usual, fits = map[int]string{32: "ES256", 48: "ES384"}[size], func(a algorithm) bool { return a.size == size }
	case ed25519.PrivateKey:
		usual, fits = "EdDSA", func(a algorithm) bool { return a.hash == 0 }
	}
	if asked == "" {
		asked = usual
	}
	a, ok := algorithms[asked]
	if !ok || fits == nil || !fits(a) {
		return "", errors.New("the private key is of another kind than the algorithm")
	}
	return asked, nil
}

func signWith(key crypto.Signer, alg string, signing []byte) ([]byte, error) {
	a := algorithms[alg]
	if a.hash == 0 {
		return key.Sign(rand.Reader, signing, crypto.Hash(0))
	}
	h := a.hash.New()
	h.Write(signing)
	digest := h.Sum(nil)
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			return nil, err
		}
		return append(r.FillBytes(make([]byte, a.size)), s.FillBytes(make([]byte, a.size))...), nil
	}
	var opts crypto.SignerOpts = a.hash
	if a.pss {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: a.hash}
	}
	return key.Sign(rand.Reader, digest, opts)
}

// gitHubApp gets the token of one installation of a GitHub App.
type gitHubApp struct {
	endpoint
	in control.Injector
}

func (gitHubApp) id() bool { return false }

func (g gitHubApp) request(value []byte, _ string, now time.Time) (*Request, error) {
	signed, err := signAssertion(value, g.in, claims{"iss": g.in.Param("app")}, now)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe(signed)
	authorization := append(append(make([]byte, 0, len("Bearer ")+len(signed)), "Bearer "...), signed...)
	return &Request{Authority: g.authority, Method: "POST", Path: g.path, JSON: true, Authorization: secret.New(authorization)}, nil
}

// google gets access tokens, or id tokens for one audience, with a key of Google's.
type google struct {
	endpoint
	in control.Injector
}

func (g google) id() bool { return g.in.Param("audience") != "" }

func (g google) request(value []byte, _ string, now time.Time) (*Request, error) {
	k, err := control.ParseGoogleKey(value)
	if err != nil {
		return nil, err
	}
	if k.RefreshToken != "" {
		f := &form{}
		f.add("grant_type", "refresh_token")
		f.add("client_id", k.ClientID)
		f.add("client_secret", k.ClientSecret)
		f.add("refresh_token", k.RefreshToken)
		return g.post(f), nil
	}
	c := claims{"iss": k.Email, "sub": k.Email, "aud": g.url()}
	if g.id() {
		c["target_audience"] = g.in.Param("audience")
	} else {
		c["scope"] = g.in.ParamOr("scope", control.DefaultGoogleScope)
	}
	in := control.Injector{}
	if k.KeyID != "" {
		in.Params = []control.Param{{Name: "kid", Value: k.KeyID}}
	}
	key := bytes.Clone([]byte(k.Key))
	defer secret.Wipe(key)
	return g.bearing(&form{}, key, in, c, now)
}
