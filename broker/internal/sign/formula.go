package sign

import (
	"crypto"
	_ "crypto/sha1" // of formulas
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// facts are what formulas are filled with for one request.
type facts struct {
	r         *Request
	target    string // path and query as they go out, but for what comes behind them when they are signed
	now       time.Time
	nonce     [16]byte
	keys      control.HMACKeys
	inner     control.Formula
	signature []byte // as it is written
}

// hashes are the hashes of formulas.
var hashes = map[string]crypto.Hash{"sha1": crypto.SHA1, "sha256": crypto.SHA256, "sha384": crypto.SHA384, "sha512": crypto.SHA512}

// appendTo appends a formula, filled in, to b.
func (f *facts) appendTo(b []byte, formula control.Formula) ([]byte, error) {
	for i := range formula {
		var err error
		if b, err = f.appendTerm(b, &formula[i]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (f *facts) appendTerm(b []byte, t *control.Term) ([]byte, error) {
	switch t.Kind {
	case control.TermLiteral:
		return append(b, t.Text...), nil
	case control.TermLF:
		return append(b, '\n'), nil
	case control.TermTime:
		return appendTime(b, f.now.UTC(), t.Text), nil
	case control.TermNonce:
		return f.appendNonce(b, t.Text), nil
	case control.TermID:
		return append(b, f.keys.ID...), nil
	case control.TermPassphrase:
		return append(b, f.keys.Passphrase...), nil
	case control.TermSignature:
		return append(b, f.signature...), nil
	case control.TermInner:
		inner, err := f.appendTo(nil, f.inner)
		if err != nil {
			return nil, err
		}
		return appendDigest(b, inner, t), nil
	default:
		return f.appendPart(b, t)
	}
}

// appendPart appends a part of the request.
func (f *facts) appendPart(b []byte, t *control.Term) ([]byte, error) {
	path, query, _ := strings.Cut(f.target, "?")
	switch t.Kind {
	case control.TermMethod:
		return append(b, f.r.Method...), nil
	case control.TermHost:
		return append(b, f.r.Host...), nil
	case control.TermURL:
		return append(append(append(b, "https://"...), f.r.Host...), f.target...), nil
	case control.TermTarget:
		return append(b, f.target...), nil
	case control.TermPath:
		return append(b, path...), nil
	case control.TermQuery:
		if t.Text == control.QuerySorted {
			pairs := strings.Split(query, "&")
			slices.Sort(pairs)
			query = strings.Join(pairs, "&")
		}
		return append(b, query...), nil
	case control.TermField, control.TermMaybeField:
		value, err := component{name: t.Text}.field(f.r.Fields)
		if err != nil && t.Kind == control.TermField {
			return nil, err
		}
		return append(b, value...), nil
	case control.TermBody:
		return f.appendBody(b, t)
	case control.TermForm, control.TermFormSorted:
		if f.r.Digest != nil {
			return nil, errNoContent
		}
		return appendForm(b, f.r, t)
	default:
		return nil, errors.New("a formula that says what is not known")
	}
}

var errNoContent = errors.New("more of the content is signed than its SHA-256, which alone is known of it")

// appendBody appends the content, or its digest.
func (f *facts) appendBody(b []byte, t *control.Term) ([]byte, error) {
	switch {
	case f.r.Digest != nil && t.Hash == "sha256":
		return appendCoded(b, f.r.Digest, t.Coding), nil
	case f.r.Digest != nil:
		return nil, errNoContent
	case t.Hash == "":
		return append(b, f.r.Content...), nil
	}
	return appendDigest(b, f.r.Content, t), nil
}

// appendDigest appends a digest of text as t has it.
func appendDigest(b, text []byte, t *control.Term) []byte {
	h := hashes[t.Hash].New()
	h.Write(text)
	var sum [64]byte
	return appendCoded(b, h.Sum(sum[:0]), t.Coding)
}

// appendCoded appends bytes in a coding.
func appendCoded(b, plain []byte, coding string) []byte {
	switch coding {
	case control.CodingHex:
		return hex.AppendEncode(b, plain)
	case control.CodingBase64:
		return base64.StdEncoding.AppendEncode(b, plain)
	case control.CodingBase64URL:
		return base64.RawURLEncoding.AppendEncode(b, plain)
	default:
		return append(b, plain...)
	}
}

// httpTime is how fields write moments (RFC 9110 §5.6.7).
const httpTime = "Mon, 02 Jan 2006 15:04:05 GMT"

// appendTime appends the moment t, which is in UTC, in a form.
func appendTime(b []byte, t time.Time, form string) []byte {
	switch form {
	case control.TimeSeconds:
		return strconv.AppendInt(b, t.Unix(), 10)
	case control.TimeMillis:
		return strconv.AppendInt(b, t.UnixMilli(), 10)
	case control.TimeMicros:
		return strconv.AppendInt(b, t.UnixMicro(), 10)
	case control.TimeRFC3339:
		return t.AppendFormat(b, time.RFC3339)
	case control.TimeRFC3339Millis:
		return t.AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
	case control.TimeCompact:
		return t.AppendFormat(b, awsTime)
	default:
		return t.AppendFormat(b, httpTime)
	}
}

// appendNonce appends the request's nonce in a form.
func (f *facts) appendNonce(b []byte, form string) []byte {
	if form != control.NonceUUID {
		return hex.AppendEncode(b, f.nonce[:])
	}
	u := f.nonce
	u[6], u[8] = u[6]&0x0f|0x40, u[8]&0x3f|0x80 // version and variant
	for i, part := range [][]byte{u[:4], u[4:6], u[6:8], u[8:10], u[10:]} {
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, part)
	}
	return b
}

// maxForm bounds the parameters of content that is signed by its parameters.
const maxForm = 4096

// appendForm appends what t says of the parameters in the request's content.
func appendForm(b []byte, r *Request, t *control.Term) ([]byte, error) {
	form, err := readForm(r)
	if err != nil {
		return nil, err
	}
	if t.Kind == control.TermFormSorted {
		slices.SortFunc(form, func(a, b parameter) int { return strings.Compare(a.name, b.name)*2 + strings.Compare(a.value, b.value) })
		for i, p := range form {
			if i == 0 || p != form[i-1] {
				b = append(append(b, p.name...), p.value...)
			}
		}
		return b, nil
	}
	found := 0
	for _, p := range form {
		if p.name == t.Text {
			b = append(b, p.value...)
			found++
		}
	}
	if found != 1 {
		return nil, fmt.Errorf("%d parameters %q in the content, where one is signed", found, t.Text)
	}
	return b, nil
}

// readForm reads the parameters of content of type application/x-www-form-urlencoded, decoded. There are none where there is no
// content.
func readForm(r *Request) ([]parameter, error) {
	if len(r.Content) == 0 {
		return nil, nil
	}
	kind, _, _ := strings.Cut(r.Fields.Get("content-type"), ";")
	if r.Fields.Count("content-type") != 1 || !strings.EqualFold(strings.TrimSpace(kind), "application/x-www-form-urlencoded") {
		return nil, errors.New("the content is no form, whose parameters are signed")
	}
	var form []parameter
	for pair := range strings.SplitSeq(string(r.Content), "&") {
		if pair == "" {
			continue
		}
		if len(form) == maxForm {
			return nil, fmt.Errorf("a form of more than %d parameters", maxForm)
		}
		name, value, _ := strings.Cut(pair, "=")
		var p parameter
		var err error
		if p.name, err = unescape(name, true); err == nil {
			p.value, err = unescape(value, true)
		}
		if err != nil {
			return nil, errors.New("a form whose percent-encoding is malformed")
		}
		form = append(form, p)
	}
	return form, nil
}
