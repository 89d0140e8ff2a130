// Package sign derives proofs over requests: signatures that show an upstream who asks, without carrying the
// secret. A proof is made on the host over the request as it goes out, so whoever sees one can't make
// another. Every signer binds method, authority, path, query and content as far as its scheme can.
//
// The schemes: AWS Signature Version 4 (sigv4.go) and 4A (sigv4a.go), HTTP Message Signatures of RFC 9421 (message.go), HMACs
// over what formulas say (hmac.go), Shared Key of Azure Storage (azure.go), JWTs with claims about
// the request (jwtrequest.go).
package sign

import (
	"errors"
	"io"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// Limits on what a signer holds in memory of one request's content, in bytes. What is declared or unsigned is
// never held.
const (
	MaxContent = 16 << 20 // where the scheme wants a digest of all of it before the first byte
	MaxChunk   = 1 << 20  // of one chunk, where it signs chunk by chunk
	MaxHeld    = 2 * MaxChunk
)

// A Request is a request that is to be signed. The signer changes none of it.
type Request struct {
	Method  string
	Host    string          // as the Host field says it
	Target  string          // path and query, as the workload sent them
	Fields  protocol.Fields // lower case; to Plan as the workload sent them, to Sign as they go out
	Content []byte          // where Whole is true
	Whole   bool            // Content is all of the content
	Length  int64           // of all of it, in bytes; -1: not known. Sign alone may ask
	Digest  []byte          // its SHA-256, where nothing else of it is known; see Detacher
	Presign bool            // the operator lets requests go out with the proof in the query
}

// A Signer derives proofs from one secret. Signers are safe for concurrent use.
type Signer interface {
	// Strip reports whether the workload's own field called name, in any case and with hyphens or underscores,
	// is removed where the signer sets its own.
	Strip(name string) bool
	// Plan learns how r is to be signed from what the workload made of it with its placeholders. Its error says
	// why it can't be.
	Plan(r *Request) (Plan, error)
}

// A Plan is how one request will be signed.
type Plan interface {
	// Demand says what of the content Sign needs.
	Demand() Demand
	// Sign makes the proof with value, at the host's time now. It checks value anew.
	Sign(value secret.Value, r *Request, now time.Time) (*Proof, error)
}

// A Demand is what a signer needs of a request's content, and what it holds of it.
type Demand uint8

// The demands.
const (
	DemandNothing Demand = iota // content passes, or is compared with what was declared
	DemandWhole                 // all of it, before Sign
	DemandChunks                // MaxHeld bytes are held while the content goes out
)

// A Proof is what makes a request a signed one.
type Proof struct {
	Fields []Field // the caller wipes them once they are sent; one may be Target
	// Content returns a writer that passes the content on to w as it is signed. Closing it ends the content; where
	// that is not what was signed the error matches ErrContent, and what went to w is not all of it. Nil: content
	// goes out as it comes.
	Content func(w io.Writer) io.WriteCloser
	Expires time.Time // of a detached one: no host takes it any more, as far as the scheme says that
}

// A Field is one field of a signed request. The value is in memory of its own.
type Field struct {
	Name  string // lower case, or Target
	Value secret.Value
}

// Target is the name of a Field that is the request's target, path and query, in place of the workload's.
const Target = ":path"

// ErrContent is matched by errors about content that is not what its request declared.
var ErrContent = errors.New("the content is not what the request declares")

// New returns the signer that m describes, or nil where m describes an injector.
func New(m control.Meta) Signer {
	switch m.Inject.Scheme {
	case control.SchemeSigV4, control.SchemeAWSRole, control.SchemeAWSWebIdentity:
		return newSigV4(m.Inject)
	case control.SchemeMessage:
		return newMessage(m.Inject)
	case control.SchemeHMAC:
		return newFormulaic(m.Inject)
	case control.SchemeJWTRequest:
		return newRequestToken(m.Inject)
	case control.SchemeAzureStorage:
		return &sharedKey{m.Inject}
	}
	return nil
}

// field returns a Field whose value is not secret.
func field(name, value string) Field { return Field{name, secret.New([]byte(value))} }
