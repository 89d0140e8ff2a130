package control

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// Defaults of parameters.
const (
	DefaultGitHubAPI   = "https://api.github.com"
	DefaultGoogleToken = "https://oauth2.googleapis.com/token"
	DefaultAzureLogin  = "https://login.microsoftonline.com"
	DefaultGoogleScope = "https://www.googleapis.com/auth/cloud-platform"
	DefaultAzureScope  = "https://management.azure.com/.default"
)

// The ways in which a client says who it is to a token endpoint: values of the parameter auth.
const (
	AuthBasic = "basic" // client_secret_basic, the default
	AuthPost  = "post"  // client_secret_post
	AuthJWT   = "jwt"   // private_key_jwt: the secret is a key in PEM
)

// ParamDPoP has tokens bound to a key of the broker's (RFC 9449); its values are how proofs are signed. Left out they are
// bearer tokens.
const (
	ParamDPoP = "dpop"

	DPoPES256 = "ES256"
	DPoPEdDSA = "EdDSA"
)

// Algs are the algorithms that assertions are signed with, the default of each kind of key first.
var Algs = []string{"RS256", "ES256", "EdDSA", "PS256", "RS384", "RS512", "ES384"}

// Mints reports whether the secret is never sent to its audience, but traded for access tokens.
func (in Injector) Mints() bool { return schemes[in.Scheme].mints != nil }

// TokenEndpoint returns where the secret of a scheme that mints is sent instead: the authority and the path
// of an https URL. ok is false for schemes that don't.
func (in Injector) TokenEndpoint() (a protocol.Authority, path string, ok bool) {
	if !in.Mints() {
		return a, "", false
	}
	a, path, err := ParseTokenURL(schemes[in.Scheme].mints(in))
	return a, path, err == nil
}

// tokenParams returns the parameters of grants that go to an endpoint of anybody's.
func tokenParams(more ...param) []param {
	return append([]param{
		{"token", true, checkTokenURL}, {"scope", false, checkScope}, {"audience", false, checkScope}, {"resource", false, checkScope},
		{ParamDPoP, false, oneOf(DPoPES256, DPoPEdDSA)},
	}, more...)
}

func tokenParam(in Injector) string { return in.Param("token") }

func gitHubTokens(in Injector) string {
	return strings.TrimSuffix(in.ParamOr("api", DefaultGitHubAPI), "/") + "/app/installations/" + in.Param("installation") + "/access_tokens"
}

func googleTokens(in Injector) string { return in.ParamOr("token", DefaultGoogleToken) }

func azureTokens(in Injector) string {
	return strings.TrimSuffix(in.ParamOr("login", DefaultAzureLogin), "/") + "/" + in.Param("tenant") + "/oauth2/v2.0/token"
}

// ParamOr returns the value of the parameter called name, or otherwise where there is none.
func (in Injector) ParamOr(name, otherwise string) string {
	if v := in.Param(name); v != "" {
		return v
	}
	return otherwise
}

// ParseTokenURL reads an https URL that is an origin and a path, in the one spelling that is sent.
func ParseTokenURL(s string) (a protocol.Authority, path string, err error) {
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		return a, "", fmt.Errorf("%q is not an https URL", s)
	}
	host, path := rest, "/"
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		host, path = rest[:i], rest[i:]
	}
	if !protocol.IsPath(path) || strings.ContainsAny(path, `?%\;`) {
		return a, "", fmt.Errorf("%q has more than a host and a plain path", s)
	}
	if a, err = protocol.ParseAuthority(host, protocol.DefaultPort("https")); err != nil {
		return a, "", fmt.Errorf("%q: %w", s, err)
	}
	return a, path, nil
}

func checkTokenURL(_, s string) error {
	_, _, err := ParseTokenURL(s)
	return err
}

// checkWord accepts what has no spaces.
func checkWord(_, s string) error {
	if strings.Contains(s, " ") {
		return fmt.Errorf("%q holds a space", s)
	}
	return nil
}

// checkScope accepts words between single spaces.
func checkScope(_, s string) error {
	if slices.Contains(strings.Split(s, " "), "") {
		return fmt.Errorf("%q is not words with one space between them", s)
	}
	return nil
}

// checkSegment accepts one segment of a path that is the same in every spelling.
func checkSegment(_, s string) error {
	if url.PathEscape(s) != s || strings.Trim(s, ".") == "" {
		return fmt.Errorf("%q is not letters, digits and -._~", s)
	}
	return nil
}

func checkAuth(_, s string) error {
	if !slices.Contains([]string{AuthBasic, AuthPost, AuthJWT}, s) {
		return fmt.Errorf("%q is none of %s, %s and %s", s, AuthBasic, AuthPost, AuthJWT)
	}
	return nil
}

func checkAlg(_, s string) error {
	if !slices.Contains(Algs, s) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(Algs, ", "))
	}
	return nil
}

func checkGoogle(_ string, in Injector) error {
	if in.Param("scope") != "" && in.Param("audience") != "" {
		return errors.New("the google scheme takes scope, for access tokens, or audience, for id tokens, not both")
	}
	return nil
}

// checkSent accepts a secret that goes into a form.
func checkSent(_ Injector, value []byte) error { return checkText(value, "a token request", MaxValue) }

func checkClientSecret(in Injector, value []byte) error {
	if in.Param("auth") == AuthJWT {
		return checkKey(in, value)
	}
	return checkSent(in, value)
}

// checkClientCert accepts a private key in PEM and, beside it, the chain of its certificate, which comes first of them.
func checkClientCert(_ Injector, value []byte) error {
	keys := 0
	for rest := value; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type == "CERTIFICATE" {
			continue
		}
		if keys++; keys > 1 {
			return errors.New("the value holds more than one private key and its certificates")
		}
		if err := checkArmour(pem.EncodeToMemory(block)); err != nil {
			return err
		}
	}
	if _, err := tls.X509KeyPair(value, value); err != nil {
		return errors.New("the value is not a private key in PEM with its certificate and what signed that; or they do not belong together")
	}
	return nil
}

// A GoogleKey is a JSON key of Google: of a service account or, with a refresh token, of a user.
type GoogleKey struct {
	Type         string `json:"type"` // "service_account" or "authorized_user"
	Email        string `json:"client_email"`
	KeyID        string `json:"private_key_id"`
	Key          string `json:"private_key"`
	TokenURI     string `json:"token_uri"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	RefreshToken string `json:"refresh_token"`
	DPoPKey      string `json:"dpop_key"` // in PEM, which the refresh token is bound to (RFC 9449 §5); empty: to none
}

// ParseGoogleKey reads a JSON key. Its errors don't quote it.
func ParseGoogleKey(value []byte) (GoogleKey, error) {
	var k GoogleKey
	if json.Unmarshal(value, &k) != nil {
		return GoogleKey{}, errors.New("the value is not a JSON key, as Google hands out")
	}
	for _, s := range []string{k.Email, k.KeyID, k.ClientID, k.ClientSecret, k.RefreshToken} {
		if badFieldByte([]byte(s)) >= 0 {
			return GoogleKey{}, errors.New("the JSON key holds a control byte or what is not ASCII")
		}
	}
	switch {
	case k.Type == "service_account" && k.Email != "" && checkKey(Injector{}, []byte(k.Key)) == nil:
	case k.Type == "authorized_user" && k.ClientID != "" && k.RefreshToken != "":
	default:
		return GoogleKey{}, errors.New("the JSON key is neither of a service account nor of a user, or something is missing")
	}
	return k, nil
}

// GoogleAccount returns what of a JSON key of Google's is no secret: the service account that it is of and its project, as far
// as they are there.
func GoogleAccount(value []byte) (email, project string) {
	var k struct {
		Email   string `json:"client_email"`
		Project string `json:"project_id"`
	}
	if json.Unmarshal(value, &k) != nil || badFieldByte([]byte(k.Email+k.Project)) >= 0 || strings.ContainsAny(k.Email+k.Project, "/ ") {
		return "", ""
	}
	return k.Email, k.Project
}

// checkGoogleKey accepts a JSON key whose token endpoint, if it names one, is the one that is sealed.
func checkGoogleKey(in Injector, value []byte) error {
	k, err := ParseGoogleKey(value)
	switch {
	case err != nil:
		return err
	case k.TokenURI != "" && k.TokenURI != googleTokens(in):
		return errors.New("the JSON key names another token endpoint than Google's; say with --as google:token=… which one is meant")
	case k.Type == "authorized_user" && in.Param("audience") != "":
		return errors.New("id tokens for an audience are for service accounts")
	}
	return nil
}

// checkRefresh accepts a refresh token, alone where the client's id is a parameter, or in the JSON of an authorised
// user.
func checkRefresh(in Injector, value []byte) error {
	if bytes.HasPrefix(bytes.TrimSpace(value), []byte("{")) {
		k, err := ParseGoogleKey(value)
		switch {
		case err != nil:
		case k.Type != "authorized_user":
			err = errors.New("the JSON is not of an authorised user")
		case k.DPoPKey != "" && in.Param(ParamDPoP) == "":
			err = errors.New("the JSON has a dpop_key, which the refresh token is bound to; say with dpop=ES256 or dpop=EdDSA what it is")
		case k.DPoPKey != "":
			err = checkKey(Injector{Params: []Param{{"alg", in.Param(ParamDPoP)}}}, []byte(k.DPoPKey))
		}
		return err
	}
	if in.Param("id") == "" {
		return errors.New("a refresh token alone needs the parameter id; or give a JSON of type authorized_user")
	}
	return checkSent(in, value)
}
