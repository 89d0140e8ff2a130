package sign

import (
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Detacher is a Signer whose proofs may be handed out: they hold no part of the secret, and are of one request alone, for
// protocol.MaxDetached at most. Which signers are none says why by not being one: a proof of Shared Key, for one, does not bind
// the content.
type Detacher interface {
	Signer
	// Detach makes the proof for r, whose content is known by Request.Digest alone and whose fields are those that the workload
	// will send. Proof.Expires says when it ends, and Proof.Content is nil.
	Detach(value secret.Value, r *Request, now time.Time) (*Proof, error)
}

// A Held secret signs requests that somebody else sends, and can be used for nothing else.
type Held struct {
	signer Detacher
	value  secret.Value
}

// Hold returns the secret that s signs with as one whose proofs may be handed out, if they may. Whoever owns value outlives it.
func Hold(s Signer, value secret.Value) (*Held, bool) {
	d, ok := s.(Detacher)
	return &Held{d, value}, ok
}

// Prove makes the proof for r, and returns with it which fields must not go with the request. The secret is checked anew.
func (h *Held) Prove(r *Request, now time.Time) (proof *Proof, remove []string, err error) {
	if len(r.Digest) != protocol.DigestSize {
		return nil, nil, errors.New("no digest of the content")
	}
	if err := h.value.Use(control.CheckAnyValue); err != nil {
		return nil, nil, err
	}
	if proof, err = h.signer.Detach(h.value, r, now); err != nil {
		return nil, nil, err
	}
	for _, l := range r.Fields {
		if h.signer.Strip(l.Name) {
			remove = append(remove, l.Name)
		}
	}
	return proof, remove, nil
}

// stripped returns r without the fields that s sets.
func stripped(s Signer, r *Request) *Request {
	own := *r
	own.Fields = r.Fields.Clone().DelFunc(func(l protocol.Field) bool { return s.Strip(l.Name) })
	return &own
}

// awsWindow is for how long services that store objects take a signature; the others take it for protocol.MaxDetached.
const awsWindow = 15 * time.Minute

// Detach signs in the fields, with the content's digest. Where signatures are good for longer, it is made as of earlier.
func (s *sigV4) Detach(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	asked := *r
	asked.Presign = false
	plan, err := s.Plan(&asked)
	if err != nil {
		return nil, err
	}
	p := *plan.(*sigV4Plan)
	digest := hex.EncodeToString(r.Digest)
	switch {
	case p.payload != "" && !p.open && !isDigest(p.payload):
		return nil, fmt.Errorf("content that is signed as %s", p.payload)
	case isDigest(p.payload) && p.payload != digest:
		return nil, fmt.Errorf("x-amz-content-sha256: %w", ErrContent)
	}
	p.payload, p.open = digest, false
	err = withKeys(value, func(k control.AWSKeys) error {
		if len(k.Token) > 0 {
			return errors.New("keys with a session token, which would be handed out")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	at := now
	if p.in.object() {
		at = now.Add(protocol.MaxDetached - awsWindow)
	}
	proof, err := p.Sign(value, stripped(s, r), at)
	if err != nil {
		return nil, err
	}
	proof.Content, proof.Expires = nil, now.Add(protocol.MaxDetached)
	return proof, nil
}

// Detach signs with a Content-Digest, and for protocol.MaxDetached where the secret says longer.
func (m *message) Detach(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	own := stripped(m, r)
	d := digest{crypto.SHA256, string(r.Digest)}
	proof := &Proof{}
	switch own.Fields.Count("content-digest") {
	case 0:
		f := protocol.Field{Name: "content-digest", Value: d.String()}
		own.Fields = append(own.Fields, f)
		proof.Fields = append(proof.Fields, field(f.Name, f.Value))
	case 1:
		if declared, err := parseDigest(own.Fields.Get("content-digest")); err != nil || declared != d {
			return nil, fmt.Errorf("content-digest is not the sha-256 that was asked about: %w", ErrContent)
		}
	default:
		return nil, errors.New("field content-digest stands twice")
	}
	life := min(m.life, protocol.MaxDetached)
	if err := (&messagePlan{message: m}).finish(proof, value, own, own.Fields, now, life); err != nil {
		return nil, err
	}
	proof.Expires = now.Add(life)
	return proof, nil
}

var (
	errLoose   = errors.New("the signature would not be of this request alone: what is signed does not bind method, host, path, query and content")
	errUndated = errors.New("the signature would be good for ever: what is signed has no time")
	errReveals = errors.New("a part of the secret would be handed out")
)

// Detach signs what the formulas say, where they bind the whole request and its time, and want no more of the content than its digest.
func (s *formulaic) Detach(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	switch {
	case s.Reveals():
		return nil, errReveals
	case len(s.Query) > 0:
		return nil, errors.New("the signature would stand in the query, which is logged and passed on in many places")
	case s.Bound() != control.BindsAll:
		return nil, errLoose
	case !s.HMAC.Sign.Dated(s.Inner):
		return nil, errUndated
	}
	own := stripped(s, r)
	if _, err := s.Plan(own); err != nil {
		return nil, err
	}
	proof, err := s.prove(value, own, now)
	if err != nil {
		return nil, err
	}
	proof.Expires = now.Add(protocol.MaxDetached)
	return proof, nil
}

// Detach makes a token whose claims bind the whole request.
func (s *requestToken) Detach(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	if s.spec.Bound() != control.BindsAll {
		return nil, errLoose
	}
	own := stripped(s, r)
	if _, err := s.Plan(own); err != nil {
		return nil, err
	}
	short := *s.spec
	short.Life = min(short.Life, protocol.MaxDetached)
	proof, err := s.prove(value, &short, own, now)
	if err != nil {
		return nil, err
	}
	proof.Expires = now.Add(short.Life)
	return proof, nil
}
