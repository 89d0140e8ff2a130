package mint

import (
	"bytes"
	"crypto/rand"
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

// signAssertion returns a JWT in compact form, signed with the key in PEM.
func signAssertion(key []byte, in control.Injector, c claims, now time.Time) ([]byte, error) {
	token := sign.JWT{Alg: in.Param("alg"), Claims: maps.Clone(c)}
	if kid := in.Param("kid"); kid != "" {
		token.Header = map[string]string{"kid": kid}
	}
	token.Claims["iat"], token.Claims["exp"] = now.Add(-assertionBackdate).Unix(), now.Add(assertionLife).Unix()
	token.Claims["jti"] = rand.Text()
	return token.Sign(key)
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
