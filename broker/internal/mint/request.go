package mint

import (
	"fmt"
	"strings"
	"time"

	"torno.internal/broker/internal/sign"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Request is one call of a token endpoint.
type Request struct {
	Authority     protocol.Authority
	Method, Path  string       // Path may hold a query, but no secret
	Content       []byte       // a form, or empty
	JSON          bool         // the content is JSON instead
	Accept        string       // of the field; empty: JSON
	Authorization secret.Value // of the field; empty: none
	Proof         []sign.Field // further fields: who asks has signed the request
}

func (r *Request) wipe() {
	secret.Wipe(r.Content)
	r.Authorization.Wipe()
	for _, f := range r.Proof {
		f.Value.Wipe()
	}
}

// formType is the type of the content of requests.
const formType = "application/x-www-form-urlencoded"

// An Answer is a token endpoint's. Content is the Minter's to wipe.
type Answer struct {
	Status  int
	Fields  protocol.Fields
	Content []byte // at most MaxAnswer+1 bytes: whoever has more says so by that

	asked secret.Value // what the request was made with; the zero value: nothing
}

// MaxAnswer bounds the content of an answer, in bytes.
const MaxAnswer = maxAnswer

// A grant makes requests for tokens out of one kind of secret.
type grant interface {
	request(value []byte, purpose string, now time.Time) (*Request, error)
	// id reports whether the answer's id_token is the token (OpenID Connect Core §3.1.3.3).
	id() bool
	// kind is the type of its tokens.
	kind() string
}

// A reader is a grant whose answers are not those of RFC 6749.
type reader interface {
	// read checks an answer and returns what it says. Its errors quote nothing but a status and an error code.
	read(a *Answer, now time.Time) (*answered, error)
}

// newGrant returns the grant of the secret that m describes.
func newGrant(m *control.Meta) (grant, error) {
	if m.Inject.Scheme == control.SchemeJWT {
		spec, err := control.ParseJWT(m.Inject)
		return selfSigned{spec}, err
	}
	a, path, ok := m.Inject.TokenEndpoint()
	if !ok {
		return nil, errNoMinter
	}
	to := endpoint{a, path, m.Inject.Param(control.ParamDPoP) != ""}
	switch m.Inject.Scheme {
	case control.SchemeOAuth2:
		return clientCredentials{to, m.Inject}, nil
	case control.SchemeRefresh:
		return refreshToken{to, m.Inject}, nil
	case control.SchemeAssertion:
		return assertion{to, m.Inject}, nil
	case control.SchemeTokenExchange:
		return exchange{to, m.Inject}, nil
	case control.SchemeGitHubApp:
		return gitHubApp{to, m.Inject}, nil
	case control.SchemeGoogle:
		return google{to, m.Inject}, nil
	case control.SchemeAzure:
		return azure{to, m.Inject}, nil
	case control.SchemeRegistry:
		return registry{endpoint: to, in: m.Inject}, nil
	case control.SchemeAWSRole, control.SchemeAWSWebIdentity:
		return role{to, *m}, nil
	}
	return nil, fmt.Errorf("scheme %q: %w", m.Inject.Scheme, errNoMinter)
}

// An endpoint is where tokens are got.
type endpoint struct {
	authority protocol.Authority
	path      string
	bound     bool // tokens are bound to a key
}

func (e endpoint) kind() string {
	if e.bound {
		return typeDPoP
	}
	return typeBearer
}

// post returns a request with a form.
func (e endpoint) post(f *form) *Request {
	return &Request{Authority: e.authority, Method: "POST", Path: e.path, Content: f.b}
}

// url returns the endpoint as an audience names it.
func (e endpoint) url() string { return "https://" + e.host() + e.path }

// host returns the endpoint's authority as the Host field has it.
func (e endpoint) host() string {
	return strings.TrimSuffix(e.authority.String(), fmt.Sprintf(":%d", protocol.DefaultPort("https")))
}

// A form is content of application/x-www-form-urlencoded, in memory that is wiped.
type form struct{ b []byte }

// add appends a parameter, unless it is empty.
func (f *form) add(name, value string) { f.addBytes(name, []byte(value)) }

func (f *form) addBytes(name string, value []byte) {
	if len(value) == 0 {
		return
	}
	f.grow(len(name) + 2 + 3*len(value))
	if len(f.b) > 0 {
		f.b = append(f.b, '&')
	}
	f.b = append(append(f.b, name...), '=')
	f.b = appendFormEscaped(f.b, value)
}

// grow makes room without leaving a copy behind.
func (f *form) grow(n int) {
	if cap(f.b)-len(f.b) >= n {
		return
	}
	b := append(make([]byte, 0, 2*len(f.b)+n+256), f.b...)
	secret.Wipe(f.b)
	f.b = b
}

// appendFormEscaped appends value percent-encoded, which every decoder of forms reads.
func appendFormEscaped(b, value []byte) []byte {
	const digits = "0123456789ABCDEF"
	for _, c := range value {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return b
}
