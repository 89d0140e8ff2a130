package control

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Parameters of SchemeHMAC. The fields that it sets are Injector.Fields, whose values are formulas.
const (
	ParamPreset    = "preset"     // one of HMACPresets, in place of all others
	ParamSign      = "sign"       // formula of what is signed
	ParamInner     = "inner"      // formula of what {inner:…} is a digest of
	ParamHash      = "hash"       // one of Hashes; sha256
	ParamKey       = "key"        // how the value is written: raw, hex, base64 or base64url; raw
	ParamKeyPrefix = "key-prefix" // what the value may begin with that is no part of the key
	ParamOut       = "out"        // how the signature is written; hex
	ParamQuery     = "query"      // parameters that are added to the query: NAME=FORMULA&NAME=FORMULA
)

// An HMAC is what the parameters of SchemeHMAC say. It is immutable.
type HMAC struct {
	Sign, Inner Formula
	Hash        string // one of Hashes
	Out         string // one of Codings, not raw
	Query       []Named
	Fields      []Named

	key, keyPrefix string
	parts          int // of the value: a key, with its id before it, with a passphrase behind that
}

// A Named formula makes a field, whose name is in lower case, or a parameter of the query.
type Named struct {
	Name string
	Formula
}

// ParseHMAC reads the parameters and fields of SchemeHMAC, with its preset filled in.
func ParseHMAC(in Injector) (*HMAC, error) {
	in, err := fillPreset(in)
	if err != nil {
		return nil, err
	}
	h := &HMAC{
		Hash: in.ParamOr(ParamHash, "sha256"), Out: in.ParamOr(ParamOut, CodingHex),
		key: in.ParamOr(ParamKey, CodingRaw), keyPrefix: in.Param(ParamKeyPrefix), parts: 1,
	}
	if h.Sign, err = ParseFormula(in.Param(ParamSign)); err == nil {
		h.Inner, err = ParseFormula(in.Param(ParamInner))
	}
	if err != nil {
		return nil, err
	}
	if h.Query, err = parseQueryFormulas(in.Param(ParamQuery)); err != nil {
		return nil, err
	}
	if h.Fields, err = parseFieldFormulas(in.Fields); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	for _, f := range h.formulas() {
		if f.Has(TermID) {
			h.parts = max(h.parts, 2)
		}
		if f.Has(TermPassphrase) {
			h.parts = 3
		}
	}
	return h, nil
}

// formulas returns all formulas.
func (h *HMAC) formulas() []Formula {
	all := []Formula{h.Sign, h.Inner}
	for _, n := range slices.Concat(h.Query, h.Fields) {
		all = append(all, n.Formula)
	}
	return all
}

// Uses reports whether any of the formulas has a term of one of the kinds.
func (h *HMAC) Uses(kinds ...TermKind) bool {
	return slices.ContainsFunc(h.formulas(), func(f Formula) bool { return f.Has(kinds...) })
}

// Reveals reports whether a part of the value is sent, so that the proof itself is a secret.
func (h *HMAC) Reveals() bool { return h.Uses(TermPassphrase) }

func (h *HMAC) check() error {
	switch {
	case !h.Sign.Has(TermURL, TermTarget, TermPath, TermQuery, TermBody, TermFormSorted, TermInner):
		return errors.New("nothing of the request is signed; name with sign=… what is, such as {body}")
	case h.Sign.Has(TermSignature) || h.Inner.Has(TermSignature, TermInner):
		return errors.New("what is signed can't hold its own signature or digest")
	case h.Uses(TermInner) && len(h.Inner) == 0:
		return errors.New("{inner:…} is a digest of what inner=… says, which is missing")
	case len(h.Inner) > 0 && !h.Uses(TermInner):
		return errors.New("inner=… is used by no {inner:…}")
	case h.Sign.Has(TermPassphrase) || h.Inner.Has(TermPassphrase):
		return errors.New("{passphrase} is sent in a field, and not signed")
	}
	if err := h.checkSigned(); err != nil {
		return err
	}
	placed := false
	for i, n := range h.Query {
		if n.Has(TermPassphrase) {
			return errors.New("{passphrase} can't stand in the query, which is logged in many places")
		}
		signature := n.Has(TermSignature)
		if !signature && i > 0 && h.Query[i-1].Has(TermSignature) {
			return fmt.Errorf("parameter %s is signed, so it can't stand behind the signature", n.Name)
		}
		placed = placed || signature
	}
	for _, n := range h.Fields {
		placed = placed || n.Has(TermSignature)
	}
	if !placed {
		return errors.New("the signature goes nowhere: put {signature} into a header or a parameter of query=…")
	}
	return nil
}

// checkSigned accepts fields that arrive as they are signed.
func (h *HMAC) checkSigned() error {
	for _, t := range slices.Concat(h.Sign, h.Inner) {
		if t.Kind != TermField && t.Kind != TermMaybeField {
			continue
		}
		own := slices.ContainsFunc(h.Fields, func(n Named) bool { return n.Name == t.Text })
		if own || !isSignable(t.Text) {
			return fmt.Errorf("field %q is set, or may change on its way, so it can't be signed by name", t.Text)
		}
	}
	return nil
}

// parseFieldFormulas reads the fields that a signature sets.
func parseFieldFormulas(fields []FieldTemplate) ([]Named, error) {
	if len(fields) > MaxTemplates {
		return nil, fmt.Errorf("%d headers, at most %d fit", len(fields), MaxTemplates)
	}
	var all []Named
	for _, f := range fields {
		name := strings.ToLower(f.Name)
		formula, err := parseSent(f.Value)
		if err != nil {
			return nil, fmt.Errorf("header %q: %w", f.Name, err)
		}
		if err := checkFieldName(name); err != nil && (name != "date" || formula.Has(TermSignature, TermPassphrase)) {
			return nil, err
		}
		if slices.ContainsFunc(all, func(n Named) bool { return n.Name == name }) {
			return nil, fmt.Errorf("header %q stands twice", f.Name)
		}
		all = append(all, Named{name, formula})
	}
	return all, nil
}

// parseQueryFormulas reads NAME=FORMULA&NAME=FORMULA.
func parseQueryFormulas(text string) ([]Named, error) {
	if text == "" {
		return nil, nil
	}
	var all []Named
	for pair := range strings.SplitSeq(text, "&") {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("query %q: %q is not NAME=FORMULA", text, pair)
		}
		if err := checkParameterName("", name); err != nil {
			return nil, fmt.Errorf("query %q: %w", text, err)
		}
		formula, err := parseSent(value)
		if err != nil {
			return nil, fmt.Errorf("query parameter %q: %w", name, err)
		}
		if slices.ContainsFunc(all, func(n Named) bool { return n.Name == name }) {
			return nil, fmt.Errorf("query parameter %q stands twice", name)
		}
		all = append(all, Named{name, formula})
	}
	if len(all) > MaxTemplates {
		return nil, fmt.Errorf("%d query parameters, at most %d fit", len(all), MaxTemplates)
	}
	return all, nil
}

// parseSent reads a formula of text that is sent: its pieces are what fields and queries can carry, and nothing of the
// workload's own but digests.
func parseSent(text string) (Formula, error) {
	if text == "" || strings.HasPrefix(text, " ") || strings.HasSuffix(text, " ") {
		return nil, fmt.Errorf("formula %q is empty, or begins or ends with a space", text)
	}
	f, err := ParseFormula(text)
	if err != nil {
		return nil, err
	}
	for _, t := range f {
		switch t.Kind {
		case TermLiteral, TermMethod, TermTime, TermNonce, TermID, TermPassphrase, TermSignature:
			continue
		case TermBody, TermInner:
			if t.Hash != "" && t.Coding != CodingRaw {
				continue
			}
		default:
		}
		return nil, fmt.Errorf("formula %q: %s can be signed, but not be sent", text, Formula{t})
	}
	return f, nil
}

// ParseHeader reads "Name: value", as --header takes it for the secret called key: a template, or a formula where the scheme signs.
func (in Injector) ParseHeader(key, line string) (FieldTemplate, error) {
	switch {
	case in.Scheme == SchemeHeader:
		return ParseHeader(key, line)
	case in.Scheme == SchemeJWT || in.Scheme == SchemeJWTRequest:
		return ParseHeader(jwtHole, line)
	case !schemes[in.Scheme].fields:
		return FieldTemplate{}, fmt.Errorf("--header does not go with --as %s", in.Scheme)
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok {
		return FieldTemplate{}, fmt.Errorf("header %q is not NAME: FORMULA", line)
	}
	t := FieldTemplate{Name: strings.ToLower(name), Value: strings.Trim(value, " \t")}
	if _, err := parseFieldFormulas([]FieldTemplate{t}); err != nil {
		return FieldTemplate{}, err
	}
	return t, nil
}

// HMACKeys are the parts of a secret of SchemeHMAC. ID and Passphrase share memory with its value; Key is in memory of
// its own, for the caller to wipe.
type HMACKeys struct{ ID, Key, Passphrase []byte }

// ParseValue reads KEY, ID:KEY where the formulas have {id}, or ID:KEY:PASSPHRASE where they have {passphrase}. Its errors
// never quote the value.
func (h *HMAC) ParseValue(value []byte) (HMACKeys, error) {
	parts := bytes.SplitN(value, []byte(":"), h.parts)
	if len(parts) < h.parts {
		return HMACKeys{}, fmt.Errorf("the value is not %s", [...]string{"KEY", "ID:KEY", "ID:KEY:PASSPHRASE"}[h.parts-1])
	}
	var k HMACKeys
	text := parts[0]
	if h.parts > 1 {
		k.ID, text = parts[0], parts[1]
	}
	if h.parts > 2 {
		k.Passphrase = parts[2]
	}
	for _, p := range [][]byte{k.ID, k.Passphrase} {
		if h.parts > 1 && len(p) > maxSentPart || badFieldByte(p) >= 0 || bytes.IndexByte(p, ' ') >= 0 {
			return HMACKeys{}, errors.New("the value's id or passphrase is too long, or holds what no field can carry")
		}
	}
	if h.parts > 1 && len(k.ID) == 0 || h.parts > 2 && len(k.Passphrase) == 0 {
		return HMACKeys{}, errors.New("one of the value's parts is empty")
	}
	key, err := DecodeKey(bytes.TrimPrefix(text, []byte(h.keyPrefix)), h.key)
	if err == nil && len(key) == 0 {
		err = errors.New("the value has no key")
	}
	k.Key = key
	return k, err
}

// isWeak reports whether the key or the passphrase of a value is.
func (h *HMAC) isWeak(value []byte) bool {
	k, err := h.ParseValue(value)
	defer clear(k.Key)
	return err == nil && (IsWeak(k.Key, nil) || len(k.Passphrase) > 0 && IsWeak(k.Passphrase, nil))
}

// maxSentPart bounds an id and a passphrase, in bytes.
const maxSentPart = 4 << 10

// DecodeKey returns the shared key that text is in one of Codings, in fresh memory. Its errors don't quote it.
func DecodeKey(text []byte, coding string) (key []byte, err error) {
	switch coding {
	case CodingHex:
		key, err = hex.AppendDecode(make([]byte, 0, len(text)), text)
	case CodingBase64:
		key, err = base64.StdEncoding.AppendDecode(make([]byte, 0, len(text)), text)
	case CodingBase64URL:
		key, err = base64.RawURLEncoding.AppendDecode(make([]byte, 0, len(text)), bytes.TrimRight(text, "="))
	default:
		key = bytes.Clone(text)
	}
	if err != nil {
		return nil, fmt.Errorf("the value's key is not %s", coding)
	}
	return key, nil
}

// checkHMACKey accepts a value that the formulas find their parts in.
func checkHMACKey(in Injector, value []byte) error {
	h, err := ParseHMAC(in)
	if err != nil {
		return err
	}
	k, err := h.ParseValue(value)
	clear(k.Key)
	return err
}

func checkHMAC(_ string, in Injector) error {
	_, err := ParseHMAC(in)
	return err
}

// checkFormula accepts a formula. What may stand where is for ParseHMAC to judge.
func checkFormula(_, text string) error {
	_, err := ParseFormula(text)
	return err
}

// checkLater accepts anything: ParseHMAC judges it.
func checkLater(_, _ string) error { return nil }
