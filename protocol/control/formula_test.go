package control

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseFormula(t *testing.T) {
	got, err := ParseFormula("v0:{time:s}{lf}{field?:x-id}{body:sha256:base64}{query:sorted}")
	want := Formula{
		{Kind: TermLiteral, Text: "v0:"}, {Kind: TermTime, Text: TimeSeconds}, {Kind: TermLF}, {Kind: TermMaybeField, Text: "x-id"},
		{Kind: TermBody, Hash: "sha256", Coding: CodingBase64}, {Kind: TermQuery, Text: QuerySorted},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
	for _, bad := range []struct{ text, want string }{
		{"{", "brace"}, {"}", "brace"}, {"{body", "brace"}, {"a}b", "brace"}, {"{{body}}", "none of"}, {"{}", "none of"}, {"{Body}", "none of"}, {"{KEY}", "none of"},
		{"{body:}", "HASH"}, {"{body:sha256}", "HASH"}, {"{body:md5:hex}", "HASH"}, {"{body:sha256:HEX}", "HASH"}, {"{body:sha256:hex:}", "HASH"}, {"{inner}", "HASH"},
		{"{time}", "lacks"}, {"{time:}", "one of"}, {"{time:S}", "one of"}, {"{nonce}", "lacks"}, {"{query:}", "sorted"}, {"{lf:x}", "not nothing"},
		{"{field}", "lacks"}, {"{field:X-Id}", "lower case"}, {"{field:a b}", "lower case"}, {"{field:}", "lower case"}, {"{form:a&b}", "parameter"}, {"{form:}", "parameter"},
		{"a\nb", "{lf}"}, {"a\rb", "{lf}"}, {"a\x00b", "visible ASCII"}, {"ä", "visible ASCII"}, {"\x7f", "visible ASCII"},
		{strings.Repeat("a", MaxParam+1), "bytes"}, {strings.Repeat("{lf}", maxTerms+1), "pieces"},
	} {
		if f, err := ParseFormula(bad.text); err == nil || f != nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%.40q: %v, %v; want %q", bad.text, f, err, bad.want)
		}
	}
}

// FuzzParseFormula reads anything as a formula: what is read is written again as it was, and no piece of it holds a line break.
func FuzzParseFormula(f *testing.F) {
	for _, s := range []string{"", "v0:{time:s}:{body}", "{field?:x-id}{lf}", "{inner:sha1:raw}", "{nonce:uuid}{{", "{body:sha256:hex}}", "{form:a-b}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		parsed, err := ParseFormula(text)
		if err != nil {
			if parsed != nil {
				t.Fatalf("%q: %v beside %v", text, parsed, err)
			}
			return
		}
		if again := parsed.String(); again != text || len(parsed) > maxTerms || strings.ContainsAny(text, "\r\n\x00") {
			t.Fatalf("%q becomes %q of %d pieces", text, again, len(parsed))
		}
	})
}

// hmacMeta is a secret that signs as --as and --header say.
func hmacMeta(t testing.TB, as string, headers ...string) Meta {
	t.Helper()
	m := schemeMeta(t, as)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		m.Inject.Fields = append(m.Inject.Fields, FieldTemplate{name, value})
	}
	return m
}

func TestHMACParameters(t *testing.T) {
	const signed = "x-signature: v1={signature}"
	for _, preset := range HMACPresets() {
		m := hmacMeta(t, "hmac:preset="+preset)
		if err := CheckMeta(m); err != nil || !m.Signs() || m.Inject.Mints() || len(m.Inject.FieldNames()) == 0 {
			t.Errorf("preset %s: %v, fields %q", preset, err, m.Inject.FieldNames())
		}
	}
	if !hmacMeta(t, "hmac:preset=coinbase-exchange").Reveals() || hmacMeta(t, "hmac:preset=binance").Reveals() {
		t.Error("which proofs hold a part of the secret")
	}
	for _, good := range []Meta{
		hmacMeta(t, "hmac:sign={method}{lf}{url}{lf}{body:sha256:hex}{lf}{time:http-date},hash=sha512,out=base64url,key=hex", signed, "Date: {time:http-date}"),
		hmacMeta(t, "hmac:sign={method}{lf}{field:date}{lf}{body}", "Authorization: HMAC {id}:{signature}"),
		hmacMeta(t, "hmac:sign={target},query=n={nonce:hex}&t={time:ms}&s={signature}"),
		hmacMeta(t, "hmac:sign={inner:sha384:raw},inner={id}{body}", signed),
	} {
		if err := CheckMeta(good); err != nil {
			t.Errorf("%s: %v", good.Inject, err)
		}
	}
	for _, bad := range []struct {
		m    Meta
		want string
	}{
		{hmacMeta(t, "hmac", signed), "nothing of the request"},
		{hmacMeta(t, "hmac:sign=x{time:s}{nonce:hex}{method}{id}", signed), "nothing of the request"},
		{hmacMeta(t, "hmac:sign={body}"), "goes nowhere"},
		{hmacMeta(t, "hmac:sign={body}", "x-time: {time:s}"), "goes nowhere"},
		{hmacMeta(t, "hmac:sign={body}{signature}", signed), "own signature"},
		{hmacMeta(t, "hmac:sign={body}{inner:sha256:hex}", signed), "missing"},
		{hmacMeta(t, "hmac:sign={body},inner={body}", signed), "used by no"},
		{hmacMeta(t, "hmac:sign={inner:sha256:hex},inner={inner:sha256:hex}", signed), "own signature"},
		{hmacMeta(t, "hmac:sign={body}{passphrase}", signed), "not signed"},
		{hmacMeta(t, "hmac:sign={body},query=p={passphrase}", signed), "logged"},
		{hmacMeta(t, "hmac:sign={url},query=s={signature}&t={time:s}"), "behind the signature"},
		{hmacMeta(t, "hmac:sign={url},query=s"), "NAME=FORMULA"},
		{hmacMeta(t, "hmac:sign={url},query=s={signature}&s={time:s}"), "twice"},
		{hmacMeta(t, "hmac:sign={url},query=s={body}"), "not be sent"},
		{hmacMeta(t, "hmac:sign={url},query=s={body:sha256:raw}"), "not be sent"},
		{hmacMeta(t, "hmac:sign={url}", "x-s: {signature}{target}"), "not be sent"},
		{hmacMeta(t, "hmac:sign={url}", "x-s: {signature}{field:cookie}"), "not be sent"},
		{hmacMeta(t, "hmac:sign={url}", signed, "X-Signature: {time:s}"), "twice"},
		{hmacMeta(t, "hmac:sign={url}", "date: {signature}"), "belongs"},
		{hmacMeta(t, "hmac:sign={url}", "content-length: {signature}"), "belongs"},
		{hmacMeta(t, "hmac:sign={url}", "transfer-encoding: {signature}"), "belongs"},
		{hmacMeta(t, "hmac:sign={url}", "x y: {signature}"), "field name"},
		{hmacMeta(t, "hmac:sign={url}", "x-s: {signature}\r\nx: y"), "visible ASCII"},
		{hmacMeta(t, "hmac:sign={url}", "x-s: "), "empty"},
		{hmacMeta(t, "hmac:sign={url}{field:content-length}", signed), "may change"},
		{hmacMeta(t, "hmac:sign={url}{field:authorization}", signed), "may change"},
		{hmacMeta(t, "hmac:sign={url}{field:x-signature}", signed), "may change"},
		{hmacMeta(t, "hmac:sign={url}{field:date}", signed, "date: {time:http-date}"), "may change"},
		{hmacMeta(t, "hmac:sign={url},hash=md5", signed), "none of"},
		{hmacMeta(t, "hmac:sign={url},out=raw", signed), "none of"},
		{hmacMeta(t, "hmac:preset=slack2"), "none of slack"},
		{hmacMeta(t, "hmac:preset=slack,hash=sha1"), "leave the other"},
		{hmacMeta(t, "hmac:preset=slack", signed), "leave the other"},
		{hmacMeta(t, "hmac:sign="+strings.Repeat("{lf}", 20)+"{body}", strings.Split(strings.Repeat(signed+"\n", MaxTemplates+1), "\n")[:MaxTemplates+1]...), "fit"},
	} {
		if err := CheckMeta(bad.m); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s %q: %v, want %q", bad.m.Inject, bad.m.Inject.Fields, err, bad.want)
		}
	}
}

func TestHMACValues(t *testing.T) {
	long := base64.StdEncoding.EncodeToString([]byte("0123456789abcdefghijklmnopqrstuvwxyz"))
	for _, tt := range []struct {
		as, header, value, want string // want: in the error; empty: none
		weak                    bool
	}{
		{"hmac:sign={body}", "", "any bytes: ü", "", true},
		{"hmac:sign={body},key=hex", "", "00FFzz", "not hex", false},
		{"hmac:sign={body},key=hex", "", "00ff10203040506070809000112233445566778899", "", false},
		{"hmac:sign={body},key=base64", "", long, "", false},
		{"hmac:sign={body},key=base64", "", "a", "not base64", false},
		{"hmac:sign={body},key=base64url", "", "_-8=", "", true},
		{"hmac:preset=standard-webhooks", "", "whsec_" + long, "", false},
		{"hmac:preset=standard-webhooks", "", "whsec_", "no key", false},
		{"hmac:preset=binance", "", "id:" + long, "", false},
		{"hmac:preset=binance", "", long, "not ID:KEY", false},
		{"hmac:preset=binance", "", ":" + long, "empty", false},
		{"hmac:preset=binance", "", "id:", "no key", false},
		{"hmac:preset=binance", "", "i\nd:" + long, "no field", false},
		{"hmac:preset=binance", "", "i d:" + long, "no field", false},
		{"hmac:preset=coinbase-exchange", "", "id:" + long + ":0123456789-a:passphrase", "", false},
		{"hmac:preset=coinbase-exchange", "", "id:" + long + ":short", "", true},
		{"hmac:preset=coinbase-exchange", "", "id:" + long, "not ID:KEY:PASSPHRASE", false},
		{"hmac:preset=coinbase-exchange", "", "id:" + long + ":", "empty", false},
		{"hmac:preset=coinbase-exchange", "", "id:" + long + ":a\rb", "no field", false},
		{"hmac:preset=coinbase-exchange", "", "id:!:pass", "not base64", false},
		{"hmac:sign={body}", "", "nul\x00", "NUL", false},
	} {
		m := hmacMeta(t, tt.as)
		if m.Inject.Param(ParamPreset) == "" {
			m.Inject.Fields = []FieldTemplate{{"x-signature", "{signature}"}}
		}
		err := CheckValue(m, []byte(tt.value))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s, %q: %v, want %q", tt.as, tt.value, err, tt.want)
		}
		if err == nil && m.IsWeak([]byte(tt.value), nil) != tt.weak {
			t.Errorf("%s, %q: weak is not %v", tt.as, tt.value, tt.weak)
		}
		if err != nil && strings.Contains(err.Error(), long) {
			t.Errorf("the error quotes the value: %v", err)
		}
	}
}

// TestParseFormulaHeader reads --header for schemes that take formulas, and for one that takes none.
func TestParseFormulaHeader(t *testing.T) {
	in := Injector{Scheme: SchemeHMAC}
	got, err := in.ParseHeader("KEY", "X-Signature:  v1={signature} ")
	if want := (FieldTemplate{"x-signature", "v1={signature}"}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"x", "x-signature: {KEY}", "x-signature:", "host: {signature}"} {
		if got, err := in.ParseHeader("KEY", bad); err == nil || got != (FieldTemplate{}) {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	if _, err := (Injector{Scheme: SchemeBearer}).ParseHeader("KEY", "x: {KEY}"); err == nil || !strings.Contains(err.Error(), "does not go with") {
		t.Error(err)
	}
}
