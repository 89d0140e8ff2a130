package sign

import (
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// maxJWTSkew is how long before it was made a token is good: verifiers' clocks may be a little behind ours.
const maxJWTSkew = time.Minute

// NewJWT returns the token that spec describes, for the request r, at the host's time now.
func NewJWT(spec *control.JWT, r *Request, now time.Time) (*JWT, error) {
	f := &facts{r: r, target: r.Target, now: now}
	_, _ = rand.Read(f.nonce[:]) // never fails
	j := &JWT{Alg: spec.Alg, Coding: spec.Coding, Header: make(map[string]string, len(spec.Header)), Claims: make(map[string]any, len(spec.Claims)+3)}
	for name, formula := range spec.Header {
		b, err := f.appendTo(nil, formula)
		if err != nil {
			return nil, err
		}
		j.Header[name] = string(b)
	}
	for name, claim := range spec.Claims {
		filled, err := f.claim(claim)
		if err != nil {
			return nil, err
		}
		j.Claims[name] = filled
	}
	from := now.Add(-min(maxJWTSkew, spec.Life/4))
	j.Claims["iat"], j.Claims["nbf"], j.Claims["exp"] = from.Unix(), from.Unix(), from.Add(spec.Life).Unix()
	return j, nil
}

// claim returns a claim with its formulas filled in.
func (f *facts) claim(claim any) (any, error) {
	switch c := claim.(type) {
	case control.Formula:
		b, err := f.appendTo(nil, c)
		return string(b), err
	case []any:
		all := make([]any, len(c))
		for i, v := range c {
			var err error
			if all[i], err = f.claim(v); err != nil {
				return nil, err
			}
		}
		return all, nil
	case map[string]any:
		all := make(map[string]any, len(c))
		for name, v := range c {
			var err error
			if all[name], err = f.claim(v); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
	return claim, nil
}

// A requestToken signs a JWT for each request, whose claims say something of it. It binds what they say.
type requestToken struct {
	spec   *control.JWT
	alg    algorithm
	own    []string // folded names of the fields that it sets; none: Authorization
	demand Demand
	keys   keyring
}

// newRequestToken returns nil for what control.CheckMeta refuses.
func newRequestToken(in control.Injector) Signer {
	spec, err := control.ParseJWT(in)
	if err != nil {
		return nil
	}
	s := &requestToken{spec: spec, alg: jwtAlgorithms[spec.Alg]}
	for _, f := range spec.Fields {
		s.own = append(s.own, protocol.FoldName(f.Name))
	}
	if spec.Uses(control.TermBody) {
		s.demand = DemandWhole
	}
	return s
}

// Strip removes what the token stands in.
func (s *requestToken) Strip(name string) bool {
	name = protocol.FoldName(name)
	switch name {
	case "authorization", "proxy-authorization", "x-api-key":
		return true
	}
	return slices.Contains(s.own, name)
}

// Plan refuses a request without a path. What its claims say of it is there when it is signed, or it is refused then.
func (s *requestToken) Plan(r *Request) (Plan, error) {
	if !strings.HasPrefix(r.Target, "/") {
		return nil, fmt.Errorf("target %q has no path to sign", r.Target)
	}
	return s, nil
}

func (s *requestToken) Demand() Demand { return s.demand }

// Sign makes the token and puts it where it goes.
func (s *requestToken) Sign(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	if s.demand == DemandWhole && !r.Whole {
		return nil, errors.New("the content's digest is signed, and not all of it is there")
	}
	return s.prove(value, s.spec, r, now)
}

// prove makes the token of what is known of r.
func (s *requestToken) prove(value secret.Value, spec *control.JWT, r *Request, now time.Time) (*Proof, error) {
	j, err := NewJWT(spec, r, now)
	if err != nil {
		return nil, err
	}
	var token []byte
	err = s.keys.use(value, s.alg, s.spec.Coding, func(k key) (err error) {
		token, err = j.sign(k, s.spec.Alg)
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(token) > protocol.MaxFieldValue/2 {
		return nil, errors.New("a token that no field can carry")
	}
	if len(s.spec.Fields) == 0 {
		return &Proof{Fields: []Field{field("authorization", "Bearer "+string(token))}}, nil
	}
	proof := &Proof{}
	for _, f := range s.spec.Fields {
		t := s.spec.Template(f)
		proof.Fields = append(proof.Fields, field(f.Name, t.Prefix+string(token)+t.Suffix))
	}
	return proof, nil
}
