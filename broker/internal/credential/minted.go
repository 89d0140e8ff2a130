package credential

import (
	"errors"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// newMinted returns the injector of access tokens that the secret m mints: bearer tokens (RFC 6750), which
// GitHub wants as passwords where git speaks HTTP.
func newMinted(m control.Meta) (Injector, error) {
	switch m.Inject.Scheme {
	case control.SchemeGitHubApp:
		return newGit(m)
	case control.SchemeJWT:
		return newOwnToken(m)
	}
	if m.Inject.Param(control.ParamDPoP) != "" {
		return dpop{}, nil
	}
	return bearer{}, nil
}

// newOwnToken returns the injector of JWTs that the secret m signs: a bearer token, or fields made from templates.
func newOwnToken(m control.Meta) (Injector, error) {
	spec, err := control.ParseJWT(m.Inject)
	if err != nil || len(spec.Fields) == 0 {
		return bearer{}, err
	}
	h := &header{}
	for _, f := range spec.Fields {
		h.fields = append(h.fields, templated{f.Name, spec.Template(f)})
	}
	return h, nil
}

// dpop sends a token that is bound to a key (RFC 9449 §7.1). The proof that goes with it is the broker's to add.
type dpop struct{}

func (dpop) Strip(name string) bool {
	name = protocol.FoldName(name)
	return isAuthField(name) || name == "dpop"
}

func (dpop) Apply(value secret.Value, _ *protocol.Request) ([]Field, error) {
	return []Field{field("authorization", "DPoP ", value, "")}, nil
}

// Mints reports whether requests get an access token instead of the secret.
func (u *Use) Mints() bool { return u.secret.Meta.Inject.Mints() }

// Secret returns the secret. Its Set owns the value.
func (u *Use) Secret() Secret { return u.secret }

// TokenFields is Fields with an access token that the secret minted.
func (u *Use) TokenFields(token secret.Value, req *protocol.Request) ([]Field, error) {
	return u.Injector.Apply(token, req)
}

var errMints = errors.New("the secret mints access tokens, and is not sent itself")
