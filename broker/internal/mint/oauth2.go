package mint

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// clientCredentials is the grant of RFC 6749 §4.4. The secret is the client's, or its key (RFC 7523 §2.2).
type clientCredentials struct {
	endpoint
	in control.Injector
}

func (clientCredentials) id() bool { return false }

func (g clientCredentials) request(value []byte, _ string, now time.Time) (*Request, error) {
	f := &form{}
	f.add("grant_type", "client_credentials")
	addTargets(f, g.in)
	return g.authenticated(f, g.in.Param("auth"), g.in, value, now)
}

// addTargets adds what the token is to be good for.
func addTargets(f *form, in control.Injector) {
	for _, name := range []string{"scope", "audience", "resource"} {
		f.add(name, in.Param(name))
	}
}

// authenticated adds who the client is (RFC 6749 §2.3.1, RFC 7523 §2.2) to f and returns the request.
func (e endpoint) authenticated(f *form, auth string, in control.Injector, value []byte, now time.Time) (*Request, error) {
	id := in.Param("id")
	switch auth {
	case control.AuthJWT:
		signed, err := signAssertion(value, in, claims{"iss": id, "sub": id, "aud": e.url()}, now)
		if err != nil {
			return nil, err
		}
		f.add("client_id", id)
		f.add("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		f.addBytes("client_assertion", signed)
		secret.Wipe(signed)
	case control.AuthPost:
		f.add("client_id", id)
		f.addBytes("client_secret", value)
	default:
		req := e.post(f)
		req.Authorization = basic([]byte(id), value)
		return req, nil
	}
	return e.post(f), nil
}

// basic returns Basic credentials of a client, whose parts are encoded as in a form (RFC 6749 §2.3.1).
func basic(id, value []byte) secret.Value {
	plain := make([]byte, 0, 3*(len(id)+len(value))+1)
	plain = appendFormEscaped(append(appendFormEscaped(plain, id), ':'), value)
	defer secret.Wipe(plain)
	return basicOf(plain)
}

func basicOf(plain []byte) secret.Value {
	const scheme = "Basic "
	b := make([]byte, 0, len(scheme)+base64.StdEncoding.EncodedLen(len(plain)))
	return secret.New(base64.StdEncoding.AppendEncode(append(b, scheme...), plain))
}

// refreshToken is the grant of RFC 6749 §6. The secret is the token, or the JSON of an authorised user with the
// client's id and secret beside it.
type refreshToken struct {
	endpoint
	in control.Injector
}

func (refreshToken) id() bool { return false }

func (g refreshToken) request(value []byte, _ string, now time.Time) (*Request, error) {
	f := &form{}
	f.add("grant_type", "refresh_token")
	addTargets(f, g.in)
	if !isJSON(value) {
		f.addBytes("refresh_token", value)
		f.add("client_id", g.in.Param("id"))
		return g.post(f), nil
	}
	user, err := control.ParseGoogleKey(value)
	if err != nil {
		return nil, err
	}
	f.add("refresh_token", user.RefreshToken)
	if user.ClientSecret == "" {
		f.add("client_id", user.ClientID)
		return g.post(f), nil
	}
	in := control.Injector{Params: []control.Param{{Name: "id", Value: user.ClientID}}}
	return g.authenticated(f, g.in.ParamOr("auth", control.AuthPost), in, []byte(user.ClientSecret), now)
}

// replacement has the new token stand where the old one stood.
func (g refreshToken) replacement(old, refresh, key []byte) ([]byte, error) {
	if !isJSON(old) && len(key) == 0 {
		return bytes.Clone(refresh), nil
	}
	all := map[string]any{"type": "authorized_user", "client_id": g.in.Param("id")}
	if isJSON(old) {
		if err := json.Unmarshal(old, &all); err != nil {
			return nil, errNoJSON
		}
	}
	all["refresh_token"] = string(refresh)
	if len(key) > 0 {
		all["dpop_key"] = string(key)
	}
	return json.Marshal(all)
}

var errNoJSON = errors.New("the value is not JSON")

func isJSON(value []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) }

// exchange is the grant of RFC 8693. The secret is the subject's token.
type exchange struct {
	endpoint
	in control.Injector
}

func (exchange) id() bool { return false }

func (g exchange) request(value []byte, _ string, _ time.Time) (*Request, error) {
	f := &form{}
	f.add("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
	f.add("client_id", g.in.Param("id"))
	addTargets(f, g.in)
	f.add("subject_token_type", g.in.ParamOr("subject-type", "urn:ietf:params:oauth:token-type:access_token"))
	f.addBytes("subject_token", value)
	return g.post(f), nil
}

// azure is the grant of client credentials as Entra ID has it.
type azure struct {
	endpoint
	in control.Injector
}

func (azure) id() bool { return false }

func (g azure) request(value []byte, _ string, now time.Time) (*Request, error) {
	f := &form{}
	f.add("grant_type", "client_credentials")
	f.add("scope", g.in.ParamOr("scope", control.DefaultAzureScope))
	return g.authenticated(f, control.AuthPost, g.in, value, now)
}
