// Package credential makes what goes upstream in a request's authentication fields (RFC 9110 §11) out of
// a session's secrets, and knows which secret goes where. The workload never holds a credential: it may
// hold placeholders, which say which secret is meant and are worth nothing.
package credential

import (
	"fmt"
	"strings"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Field is one field of an upstream request. The value is in memory of its own: whoever gets a Field
// wipes it once it is sent.
type Field struct {
	Name  string // lower case, or Target
	Value secret.Value
}

// Target is the name of a Field that is the request's target, path and query (RFC 9113 §8.3.1), instead of
// the workload's.
const Target = ":path"

// An Injector puts one secret into requests. Injectors are immutable and safe for concurrent use.
type Injector interface {
	// Strip reports whether the workload's own field called name, in any case and with hyphens or
	// underscores, is removed from headers and trailers where the injector sets its own.
	Strip(name string) bool
	// Apply makes the fields that carry value in req, which is as the workload sent it. It does not check
	// value. An error is a *protocol.RefusedError: the request has no place for the credential.
	Apply(value secret.Value, req *protocol.Request) ([]Field, error)
}

// A targeter is an injector that puts the secret, or a signer that puts its proof, into the request's target.
type targeter interface {
	// StripTarget returns target without what stands where that goes, in every spelling.
	StripTarget(target string) string
}

// A chooser is an injector that does not put the secret into every request to its audience.
type chooser interface {
	// Covers reports whether a request for target at a gets the secret.
	Covers(a protocol.Authority, target string) bool
}

// NewInjector returns the injector that m describes.
func NewInjector(m control.Meta) (Injector, error) {
	if m.Inject.Mints() {
		return newMinted(m)
	}
	switch m.Inject.Scheme {
	case control.SchemeBearer:
		return bearer{}, nil
	case control.SchemeHeader:
		return newHeader(m)
	case control.SchemeBasic:
		return newBasic(m)
	case control.SchemeGit:
		return newGit(m)
	case control.SchemeQuery:
		return query{name: m.Inject.Param("name")}, nil
	case control.SchemePath:
		return newPath(m)
	case control.SchemeClientCert:
		return clientCert{}, nil
	case control.SchemeCookie:
		return cookie{name: m.Inject.Param("name")}, nil
	case control.SchemeContent:
		return content{}, nil
	}
	return nil, fmt.Errorf("secret %s: unknown injector %q", m.Name, m.Inject.Scheme)
}

// ValidateMeta reports what makes m unusable; see control.CheckMeta.
func ValidateMeta(m control.Meta) error { return control.CheckMeta(m) }

// ValidateValue reports what makes value unusable for m; see control.CheckValue.
func ValidateValue(m control.Meta, value []byte) error { return control.CheckValue(m, value) }

// isAuthField reports whether name, folded, is a field that says who is asking whatever the
// injector: two identities in one request would leave the choice to the upstream. A cookie is state that
// the upstream gave the workload, and goes only where an injector sets cookies itself.
func isAuthField(name string) bool {
	switch name {
	case "authorization", "proxy-authorization", "x-api-key":
		return true
	}
	return false
}

// field returns a Field whose value is prefix, value and suffix in fresh memory.
func field(name, prefix string, value secret.Value, suffix string) Field {
	b := make([]byte, 0, len(prefix)+value.Len()+len(suffix))
	b = append(b, prefix...)
	b = value.AppendTo(b)
	b = append(b, suffix...)
	return Field{Name: strings.ToLower(name), Value: secret.New(b)}
}
