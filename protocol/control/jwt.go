package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol"
)

// Parameters of SchemeJWT and SchemeJWTRequest, beside alg, kid, iss, sub and aud.
const (
	ParamLife   = "life"   // seconds that a token is good for
	ParamClaims = "claims" // JSON object of further claims; its strings are formulas
	ParamHead   = "head"   // JSON object of further parameters of the token's header, which are formulas
	ParamType   = "typ"    // of the header; JWT
)

// How long a token is good for, in seconds.
const (
	jwtLife    = 300
	maxJWTLife = 3600
)

// A JWT is what the parameters of SchemeJWT and SchemeJWTRequest say. It is immutable.
type JWT struct {
	Alg    string
	Coding string // how a shared key is written
	Life   time.Duration
	Header map[string]Formula
	Claims map[string]any  // but for its times; strings are of type Formula
	Fields []FieldTemplate // with {jwt} in their values; none: Authorization, as a bearer token
}

// ParseJWT reads the parameters and headers of a scheme of JWTs, with its preset filled in.
func ParseJWT(in Injector) (*JWT, error) {
	in, err := fillJWTPreset(in)
	if err != nil {
		return nil, err
	}
	j := &JWT{Alg: in.Param("alg"), Coding: in.ParamOr(ParamKey, CodingRaw), Header: map[string]Formula{}, Claims: map[string]any{}}
	seconds, err := strconv.Atoi(in.ParamOr(ParamLife, strconv.Itoa(jwtLife)))
	if err != nil {
		return nil, err
	}
	j.Life = time.Duration(seconds) * time.Second
	if j.Alg == "" {
		return nil, fmt.Errorf("the %s scheme needs alg=…", in.Scheme)
	}
	if err := j.readHead(in); err != nil {
		return nil, fmt.Errorf("head: %w", err)
	}
	if err := j.readClaims(in); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	if in.Scheme == SchemeJWTRequest && !j.Uses(TermMethod, TermURL, TermTarget, TermPath, TermQuery, TermBody) {
		return nil, errors.New("no claim says anything of the request, such as {method} {path}; the jwt scheme is for that")
	}
	return j, j.readFields(in.Fields)
}

// readHead reads the token's header.
func (j *JWT) readHead(in Injector) error {
	for name, value := range map[string]string{"kid": in.Param("kid"), "typ": in.Param(ParamType)} {
		if value != "" {
			j.Header[name] = Formula{{Kind: TermLiteral, Text: value}}
		}
	}
	var head map[string]string
	if text := in.Param(ParamHead); text != "" {
		if err := protocol.DecodeStrict([]byte(text), &head); err != nil {
			return err
		}
	}
	for name, value := range head {
		if slices.Contains([]string{"alg", "kid", "typ", "crit", "b64"}, name) {
			return fmt.Errorf("%q has a parameter of its own, or can't be set", name)
		}
		f, err := parseClaim(in.Scheme, value)
		if err != nil {
			return err
		}
		j.Header[name] = f
	}
	return nil
}

// readClaims reads the token's claims.
func (j *JWT) readClaims(in Injector) error {
	if text := in.Param(ParamClaims); text != "" {
		if err := protocol.DecodeStrict([]byte(text), &j.Claims); err != nil {
			return err
		}
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber() // so that they stay as they are written
		if err := d.Decode(&j.Claims); err != nil {
			return err
		}
	}
	for _, name := range []string{"exp", "iat", "nbf"} {
		if _, ok := j.Claims[name]; ok {
			return fmt.Errorf("%q is set by the host's time", name)
		}
	}
	for name, value := range j.Claims {
		parsed, err := parseClaims(in.Scheme, value)
		if err != nil {
			return err
		}
		j.Claims[name] = parsed
	}
	for _, name := range []string{"iss", "sub", "aud"} {
		value := in.Param(name)
		if value == "" {
			continue
		}
		if _, twice := j.Claims[name]; twice {
			return fmt.Errorf("%q stands twice", name)
		}
		j.Claims[name] = Formula{{Kind: TermLiteral, Text: value}}
	}
	if _, ok := j.Claims["jti"]; !ok {
		j.Claims["jti"] = Formula{{Kind: TermNonce, Text: NonceHex}}
	}
	return nil
}

// parseClaims reads the strings in a claim, however deep, as formulas.
func parseClaims(scheme string, claim any) (any, error) {
	var err error
	switch c := claim.(type) {
	case string:
		return parseClaim(scheme, c)
	case []any:
		for i := range c {
			if c[i], err = parseClaims(scheme, c[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range c {
			if c[name], err = parseClaims(scheme, c[name]); err != nil {
				return nil, err
			}
		}
	}
	return claim, nil
}

// parseClaim reads a formula of what stands in a token: nothing secret, and nothing of the request where tokens are for many.
func parseClaim(scheme, text string) (Formula, error) {
	f, err := ParseFormula(text)
	if err != nil {
		return nil, err
	}
	for _, t := range f {
		switch t.Kind {
		case TermLiteral, TermTime, TermNonce:
			continue
		case TermMethod, TermHost, TermURL, TermTarget, TermPath, TermQuery, TermField, TermMaybeField:
			if scheme == SchemeJWTRequest {
				continue
			}
		case TermBody:
			if scheme == SchemeJWTRequest && t.Hash != "" && t.Coding != CodingRaw {
				continue
			}
		default:
		}
		return nil, fmt.Errorf("%s can't stand in the tokens of the %s scheme", Formula{t}, scheme)
	}
	for _, t := range f {
		if (t.Kind == TermField || t.Kind == TermMaybeField) && !isSignable(t.Text) {
			return nil, fmt.Errorf("field %q may change on its way, so it can't be signed", t.Text)
		}
	}
	return f, nil
}

// readFields reads where the token goes.
func (j *JWT) readFields(fields []FieldTemplate) error {
	if len(fields) == 0 {
		return nil
	}
	if err := checkFields(jwtHole, fields); err != nil {
		return err
	}
	for _, f := range fields {
		j.Fields = append(j.Fields, FieldTemplate{strings.ToLower(f.Name), f.Value})
	}
	for f := range j.formulas() {
		for _, t := range f {
			if t.Kind == TermField && slices.ContainsFunc(j.Fields, func(own FieldTemplate) bool { return own.Name == t.Text }) {
				return fmt.Errorf("field %q is set, so it can't be signed by name", t.Text)
			}
		}
	}
	return nil
}

// jwtHole is what stands in braces for the token in the fields that it goes into.
const jwtHole = "jwt"

// Template returns what stands before the token and after it in a field of j.
func (j *JWT) Template(f FieldTemplate) Template {
	t, _ := ParseTemplate(jwtHole, f.Value) // which ParseJWT has checked
	return t
}

// formulas goes over all formulas of the token.
func (j *JWT) formulas() func(yield func(Formula) bool) {
	return func(yield func(Formula) bool) {
		for f := range maps.Values(j.Header) {
			if !yield(f) {
				return
			}
		}
		eachFormula(j.Claims, yield)
	}
}

// eachFormula calls yield with every formula in a claim until it returns false.
func eachFormula(claim any, yield func(Formula) bool) bool {
	switch c := claim.(type) {
	case Formula:
		return yield(c)
	case []any:
		for _, v := range c {
			if !eachFormula(v, yield) {
				return false
			}
		}
	case map[string]any:
		for _, v := range c {
			if !eachFormula(v, yield) {
				return false
			}
		}
	}
	return true
}

// Uses reports whether any formula of the token has a term of one of the kinds.
func (j *JWT) Uses(kinds ...TermKind) bool {
	for f := range j.formulas() {
		if f.Has(kinds...) {
			return true
		}
	}
	return false
}

func checkJWT(_ string, in Injector) error {
	_, err := ParseJWT(in)
	return err
}

// checkJWTKey accepts what signs by the algorithm that the parameters, or their preset, name.
func checkJWTKey(in Injector, value []byte) error {
	full, err := fillJWTPreset(in)
	if err != nil {
		return err
	}
	return checkSigningKey(full, value)
}

// JWTAlgs are the algorithms of the schemes of JWTs.
var JWTAlgs = append(slices.Clone(Algs), "HS256", "HS384", "HS512")

func checkLife(_, s string) error {
	if n, err := strconv.Atoi(s); err != nil || n < 1 || n > maxJWTLife || strconv.Itoa(n) != s {
		return fmt.Errorf("%q is not a number of seconds from 1 to %d", s, maxJWTLife)
	}
	return nil
}

// jwtParams are those of both schemes.
func jwtParams(more ...param) []param {
	return append([]param{
		{"alg", false, oneOf(JWTAlgs...)}, {"kid", false, checkWord}, {ParamType, false, checkWord}, {"iss", false, checkWord}, {"sub", false, checkWord}, {"aud", false, checkWord},
		{ParamLife, false, checkLife}, {ParamClaims, false, checkLater}, {ParamHead, false, checkLater}, {ParamKey, false, oneOf(CodingRaw, CodingHex, CodingBase64, CodingBase64URL)},
	}, more...)
}

// jwtPresets are the services that SchemeJWTRequest knows by name: parameters in order.
var jwtPresets = map[string][]Param{
	"coinbase": { // https://docs.cdp.coinbase.com/get-started/authentication/jwt-authentication
		{"alg", "ES256"}, {ParamClaims, `{"uri":"{method} {host}{path}"}`}, {ParamHead, `{"nonce":"{nonce:hex}"}`}, {"iss", "cdp"}, {ParamLife, "120"},
	},
}

// JWTPresets returns the names of the services that SchemeJWTRequest knows, in order.
func JWTPresets() []string { return slices.Sorted(maps.Keys(jwtPresets)) }

// fillJWTPreset returns in with what its preset stands for. The parameter kid names the key, whose subject it is as well.
func fillJWTPreset(in Injector) (Injector, error) {
	name := in.Param(ParamPreset)
	if name == "" {
		return in, nil
	}
	params, ok := jwtPresets[name]
	kid := in.Param("kid")
	switch {
	case !ok:
		return Injector{}, fmt.Errorf("preset %q is none of %s", name, strings.Join(JWTPresets(), ", "))
	case kid == "" || len(in.Params) > 2 || len(in.Fields) > 0:
		return Injector{}, errors.New("a preset needs kid=…, and says all else by itself; leave the other parameters and the headers out")
	}
	full := Injector{Scheme: in.Scheme, Params: append(slices.Clone(params), Param{"kid", kid}, Param{"sub", kid})}
	slices.SortFunc(full.Params, func(a, b Param) int { return strings.Compare(a.Name, b.Name) })
	return full, nil
}
