package control

import (
	"fmt"
	"slices"
	"strings"

	"torno.internal/protocol"
)

// A Formula is text with holes for what is known of one request when it is signed, "{time:s}.{body}". Literal text is
// visible ASCII and spaces without braces. The zero value is the empty text.
type Formula []Term

// A Term is one piece of a Formula.
type Term struct {
	Kind   TermKind
	Text   string // of a literal; the name of a field or a parameter; how a moment, a nonce or a query is written
	Hash   string // of content: one of Hashes; empty: the bytes themselves
	Coding string // of a digest: one of Codings
}

// A TermKind says what stands in a Term's place.
type TermKind uint8

// The kinds of terms, and how they are written.
const (
	TermLiteral    TermKind = iota
	TermLF                  // {lf}: a line feed
	TermMethod              // {method}
	TermHost                // {host}: as the Host field has it
	TermURL                 // {url}: https, host, path and query
	TermTarget              // {target}: path and query
	TermPath                // {path}
	TermQuery               // {query}: without its question mark; {query:sorted}: its pairs in ascending order
	TermField               // {field:NAME}: of the request as it goes out
	TermMaybeField          // {field?:NAME}: nothing where there is none
	TermForm                // {form:NAME}: the one parameter of that name in the content, decoded
	TermFormSorted          // {form-sorted}: decoded names and values of the content's parameters, by name, with nothing between them
	TermTime                // {time:FORM}: the host's time
	TermNonce               // {nonce:FORM}: the same wherever it stands in one request
	TermBody                // {body}, {body:HASH:CODING}
	TermInner               // {inner:HASH:CODING}: of the scheme's inner formula
	TermID                  // {id}: the part of the value that is no secret
	TermPassphrase          // {passphrase}: a part of the value that is sent
	TermSignature           // {signature}
)

// What a Term may say of a digest, a moment and a nonce.
var (
	Hashes      = []string{"sha1", "sha256", "sha384", "sha512"}
	Codings     = []string{CodingHex, CodingBase64, CodingBase64URL, CodingRaw}
	timeForms   = []string{TimeSeconds, TimeMillis, TimeMicros, TimeRFC3339, TimeRFC3339Millis, TimeHTTP, TimeCompact}
	nonceForms  = []string{NonceHex, NonceUUID}
	sortedQuery = []string{QuerySorted}
)

// How bytes are written.
const (
	CodingHex       = "hex"
	CodingBase64    = "base64"    // with padding (RFC 4648 §4)
	CodingBase64URL = "base64url" // without padding (RFC 4648 §5)
	CodingRaw       = "raw"       // the bytes, in what is signed alone
)

// How moments are written, all in UTC.
const (
	TimeSeconds       = "s" // since 1970
	TimeMillis        = "ms"
	TimeMicros        = "us"
	TimeRFC3339       = "rfc3339" // 2006-01-02T15:04:05Z
	TimeRFC3339Millis = "rfc3339ms"
	TimeHTTP          = "http-date" // RFC 9110 §5.6.7
	TimeCompact       = "compact"   // 20060102T150405Z
)

// How nonces of 128 random bits are written.
const (
	NonceHex  = "hex"
	NonceUUID = "uuid" // version 4 (RFC 9562 §5.4)
)

// QuerySorted is the Text of a TermQuery whose pairs are sorted as they stand.
const QuerySorted = "sorted"

// maxTerms bounds a formula.
const maxTerms = 64

// ParseFormula reads a formula. There is one spelling of each: Formula.String gives the text back.
func ParseFormula(text string) (Formula, error) {
	switch i := badFieldByte([]byte(text)); {
	case len(text) > MaxParam:
		return nil, fmt.Errorf("formula of %d bytes, at most %d fit", len(text), MaxParam)
	case i >= 0:
		return nil, fmt.Errorf("formula %q: byte %q is not visible ASCII; a line feed is {lf}", text, text[i])
	}
	var f Formula
	for rest := text; rest != ""; {
		if len(f) == maxTerms {
			return nil, fmt.Errorf("formula %q has more than %d pieces", text, maxTerms)
		}
		i := strings.IndexAny(rest, "{}")
		if i < 0 {
			i = len(rest)
		}
		if i > 0 {
			f = append(f, Term{Kind: TermLiteral, Text: rest[:i]})
			rest = rest[i:]
			continue
		}
		hole, after, closed := strings.Cut(rest[1:], "}")
		if rest[0] == '}' || !closed {
			return nil, fmt.Errorf("formula %q has a brace without the other one", text)
		}
		t, err := parseTerm(hole)
		if err != nil {
			return nil, fmt.Errorf("formula %q: %w", text, err)
		}
		f, rest = append(f, t), after
	}
	return f, nil
}

// A termRule is how one kind of term is written.
type termRule struct {
	word string
	kind TermKind
	args argument
}

// An argument is what follows a term's word.
type argument uint8

const (
	argNone        argument = iota
	argName                 // a field's
	argParameter            // a form's
	argTime                 // one of timeForms
	argNonce                // one of nonceForms
	argSorted               // nothing, or "sorted"
	argMaybeDigest          // nothing, or HASH:CODING
	argDigest
)

var termRules = []termRule{
	{"lf", TermLF, argNone}, {"method", TermMethod, argNone}, {"host", TermHost, argNone}, {"url", TermURL, argNone},
	{"target", TermTarget, argNone}, {"path", TermPath, argNone}, {"query", TermQuery, argSorted},
	{"field", TermField, argName}, {"field?", TermMaybeField, argName},
	{"form", TermForm, argParameter}, {"form-sorted", TermFormSorted, argNone},
	{"time", TermTime, argTime}, {"nonce", TermNonce, argNonce}, {"body", TermBody, argMaybeDigest}, {"inner", TermInner, argDigest},
	{"id", TermID, argNone}, {"passphrase", TermPassphrase, argNone}, {"signature", TermSignature, argNone},
}

// parseTerm reads what stands between braces.
func parseTerm(hole string) (Term, error) {
	word, arg, has := strings.Cut(hole, ":")
	i := slices.IndexFunc(termRules, func(r termRule) bool { return r.word == word })
	if i < 0 {
		words := make([]string, len(termRules))
		for i, r := range termRules {
			words[i] = r.word
		}
		return Term{}, fmt.Errorf("{%s} is none of %s", hole, strings.Join(words, ", "))
	}
	r := termRules[i]
	t := Term{Kind: r.kind, Text: arg}
	switch {
	case !has:
		if r.args == argNone || r.args == argSorted || r.args == argMaybeDigest {
			return t, nil
		}
		return Term{}, fmt.Errorf("{%s} lacks %s", hole, argumentHelp(r.args))
	case r.args == argMaybeDigest || r.args == argDigest:
		hash, coding, _ := strings.Cut(arg, ":")
		t.Text, t.Hash, t.Coding = "", hash, coding
		if slices.Contains(Hashes, hash) && slices.Contains(Codings, coding) {
			return t, nil
		}
	case r.args == argName && protocol.IsToken(arg) && arg == strings.ToLower(arg),
		r.args == argParameter && arg != "" && checkParameterName("", arg) == nil,
		r.args == argTime && slices.Contains(timeForms, arg),
		r.args == argNonce && slices.Contains(nonceForms, arg),
		r.args == argSorted && slices.Contains(sortedQuery, arg):
		return t, nil
	}
	return Term{}, fmt.Errorf("{%s}: %q is not %s", hole, arg, argumentHelp(r.args))
}

func argumentHelp(a argument) string {
	switch a {
	case argName:
		return "a field's name in lower case"
	case argParameter:
		return "a parameter's name: letters, digits and -._~"
	case argTime:
		return "one of " + strings.Join(timeForms, ", ")
	case argNonce:
		return "one of " + strings.Join(nonceForms, ", ")
	case argSorted:
		return QuerySorted
	case argMaybeDigest, argDigest:
		return "HASH:CODING, of " + strings.Join(Hashes, ", ") + " and " + strings.Join(Codings, ", ")
	case argNone:
	}
	return "nothing"
}

// String returns the formula as ParseFormula reads it.
func (f Formula) String() string {
	var b strings.Builder
	for _, t := range f {
		if t.Kind == TermLiteral {
			b.WriteString(t.Text)
			continue
		}
		i := slices.IndexFunc(termRules, func(r termRule) bool { return r.kind == t.Kind })
		b.WriteString("{" + termRules[i].word)
		for _, arg := range []string{t.Text, t.Hash, t.Coding} {
			if arg != "" {
				b.WriteString(":" + arg)
			}
		}
		b.WriteString("}")
	}
	return b.String()
}

// Has reports whether the formula has a term of one of the kinds.
func (f Formula) Has(kinds ...TermKind) bool {
	return slices.ContainsFunc(f, func(t Term) bool { return slices.Contains(kinds, t.Kind) })
}
