package sign

import (
	"crypto/hmac"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"torno.internal/broker/internal/spelling"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A formulaic signs by an HMAC (RFC 2104) over what its formulas say. It is its own Plan: all that it needs to know of a request
// is in it.
type formulaic struct {
	*control.HMAC
	own    []string // folded names of the fields that it sets
	demand Demand
	nonce  bool
}

// newFormulaic returns nil for what control.CheckMeta refuses.
func newFormulaic(in control.Injector) Signer {
	h, err := control.ParseHMAC(in)
	if err != nil {
		return nil
	}
	s := &formulaic{HMAC: h, nonce: h.Uses(control.TermNonce)}
	for _, n := range h.Fields {
		s.own = append(s.own, protocol.FoldName(n.Name))
	}
	if h.Uses(control.TermBody, control.TermForm, control.TermFormSorted) {
		s.demand = DemandWhole
	}
	return s
}

// Strip removes what the formulas set and, where they add to the query, fields that stand for another target.
func (s *formulaic) Strip(name string) bool {
	name = protocol.FoldName(name)
	switch name {
	case "authorization", "proxy-authorization", "x-api-key":
		return true
	case "x-original-url", "x-rewrite-url":
		return len(s.Query) > 0
	}
	return slices.Contains(s.own, name)
}

// StripTarget returns target without the parameters that are set.
func (s *formulaic) StripTarget(target string) string {
	for _, n := range s.Query {
		target = spelling.DropParameter(target, n.Name)
	}
	return target
}

// Plan refuses a request that lacks what is signed of it.
func (s *formulaic) Plan(r *Request) (Plan, error) {
	if !strings.HasPrefix(r.Target, "/") {
		return nil, fmt.Errorf("target %q has no path to sign", r.Target)
	}
	for _, formula := range []control.Formula{s.HMAC.Sign, s.Inner} {
		for _, t := range formula {
			if t.Kind == control.TermField && r.Fields.Count(t.Text) == 0 {
				return nil, fmt.Errorf("no field %q, which is to be signed", t.Text)
			}
		}
	}
	return s, nil
}

func (s *formulaic) Demand() Demand { return s.demand }

// Sign makes the signature and the fields and parameters that it goes with.
func (s *formulaic) Sign(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	if s.demand == DemandWhole && !r.Whole {
		return nil, errors.New("the content is signed, and not all of it is there")
	}
	return s.prove(value, r, now)
}

// prove makes the signature of what is known of r.
func (s *formulaic) prove(value secret.Value, r *Request, now time.Time) (*Proof, error) {
	f := &facts{r: r, target: r.Target, now: now, inner: s.Inner}
	if s.nonce {
		_, _ = rand.Read(f.nonce[:]) // never fails
	}
	proof := &Proof{Fields: make([]Field, 0, len(s.Fields)+1)}
	err := value.Use(func(b []byte) (err error) {
		if f.keys, err = s.ParseValue(b); err != nil {
			return err
		}
		defer secret.Wipe(f.keys.Key)
		return s.sign(f, proof)
	})
	if err != nil {
		return nil, err
	}
	return proof, nil
}

// sign fills in the proof.
func (s *formulaic) sign(f *facts, proof *Proof) error {
	signed, err := s.target(f)
	if err != nil {
		return err
	}
	text, err := f.appendTo(make([]byte, 0, 256+len(f.target)+len(f.r.Content)), s.HMAC.Sign)
	if err != nil {
		return err
	}
	m := hmac.New(hashes[s.Hash].New, f.keys.Key)
	m.Write(text)
	var sum [64]byte
	f.signature = appendCoded(make([]byte, 0, 2*len(sum)), m.Sum(sum[:0]), s.Out)
	for _, n := range s.Fields {
		b, err := f.appendTo(make([]byte, 0, 128), n.Formula)
		if err != nil {
			return err
		}
		if !protocol.IsFieldValue(string(b)) {
			return fmt.Errorf("field %q would hold what none can carry", n.Name)
		}
		proof.Fields = append(proof.Fields, Field{n.Name, secret.New(b)})
	}
	if len(s.Query) == 0 {
		return nil
	}
	target, err := s.extend(f, []byte(f.target), s.Query[signed:])
	if err != nil {
		return err
	}
	if len(target) > protocol.MaxPath {
		return fmt.Errorf("a target of more than %d bytes", protocol.MaxPath)
	}
	proof.Fields = append(proof.Fields, Field{Target, secret.New(target)})
	return nil
}

// target has the facts' target be what is signed: without the workload's own of the parameters that are set, and with those of them
// that do not hold the signature, whose number it returns.
func (s *formulaic) target(f *facts) (signed int, err error) {
	if len(s.Query) == 0 {
		return 0, nil
	}
	for signed < len(s.Query) && !s.Query[signed].Has(control.TermSignature) {
		signed++
	}
	target, err := s.extend(f, []byte(s.StripTarget(f.target)), s.Query[:signed])
	f.target = string(target)
	return signed, err
}

// extend appends parameters to a target.
func (s *formulaic) extend(f *facts, target []byte, all []control.Named) ([]byte, error) {
	mark := "?"
	if i := slices.Index(target, '?'); i >= 0 {
		mark = "&"[:min(1, len(target)-1-i)]
	}
	for _, n := range all {
		value, err := f.appendTo(nil, n.Formula)
		if err != nil {
			return nil, err
		}
		target = append(append(append(target, mark...), n.Name...), '=')
		target = appendEscaped(target, string(value), false)
		mark = "&"
	}
	return target, nil
}
