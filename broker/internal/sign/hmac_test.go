package sign

import (
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"maps"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// hmacSigner returns the signer of --as and --header.
func hmacSigner(t testing.TB, as string, headers ...string) Signer {
	t.Helper()
	in, err := control.ParseScheme(as)
	for _, h := range headers {
		var f control.FieldTemplate
		if err == nil {
			f, err = in.ParseHeader("KEY", h)
		}
		in.Fields = append(in.Fields, f)
	}
	s := New(control.Meta{Name: "KEY", Inject: in})
	if err != nil || s == nil {
		t.Fatalf("%s %q: %v, %v", as, headers, s, err)
	}
	return s
}

// An hmacVector is a published example of one service.
type hmacVector struct {
	Name, Source, As, Value string
	Headers                 []string
	Millis                  int64 `json:"time_ms"`
	Method, URL, Content    string
	Fields, Want            map[string]string
}

// TestHMACVectors signs what services' own documentation signs.
func TestHMACVectors(t *testing.T) {
	b, err := os.ReadFile("testdata/hmac.json")
	if err != nil {
		t.Fatal(err)
	}
	var all []hmacVector
	if err := json.Unmarshal(b, &all); err != nil || len(all) < 8 {
		t.Fatalf("%d vectors: %v", len(all), err)
	}
	for _, v := range all {
		t.Run(v.Name, func(t *testing.T) {
			u, err := url.Parse(v.URL)
			if err != nil {
				t.Fatal(err)
			}
			r := &Request{Method: v.Method, Host: u.Host, Target: u.RequestURI(), Content: []byte(v.Content), Whole: true}
			for _, name := range slices.Sorted(maps.Keys(v.Fields)) {
				r.Fields = append(r.Fields, protocol.Field{Name: name, Value: v.Fields[name]})
			}
			proof, err := proveAt(hmacSigner(t, v.As, v.Headers...), v.Value, r, time.UnixMilli(v.Millis))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(v.Want, fieldsOf(proof)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A delivery is a request as its receiver sees it.
type delivery struct {
	method, host, target, content string
	fields                        map[string]string
	now                           time.Time
}

func (d *delivery) path() string  { p, _, _ := strings.Cut(d.target, "?"); return p }
func (d *delivery) query() string { _, q, _ := strings.Cut(d.target, "?"); return q }

// fresh reports whether a moment in a unit is that of the delivery, give or take.
func (d *delivery) fresh(text string, unit time.Duration) bool {
	var n int64
	_, err := fmt.Sscan(text, &n)
	return err == nil && d.now.Sub(time.Unix(0, n*int64(unit))).Abs() < 5*time.Minute
}

func mac(h func() hash.Hash, key, text string) string {
	m := hmac.New(h, []byte(key))
	m.Write([]byte(text))
	return string(m.Sum(nil))
}

func decoded64(s string) string {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return "\x00"
	}
	return string(b)
}

const (
	hookKey = "whsec_5WbX0hTa8bFY6pXTq5hX5v1wS3Wm6jyu"
	binKey  = "kQH5HW/8p1uGOVjbgWA7FunAmGO8lsSUXNsu3eow76sz84Q18fWxnyRzBHCd3pd5nE9qa99HAZtuZuj6F1huXg=="
)

// verifiers check deliveries as each service's receivers do, written from its documentation. binds is what they notice.
var verifiers = map[string]struct {
	value, binds string
	verify       func(d *delivery) bool
}{
	"slack": {hookKey, "content time", func(d *delivery) bool {
		at := d.fields["x-slack-request-timestamp"]
		return d.fresh(at, time.Second) && d.fields["x-slack-signature"] == "v0="+hex.EncodeToString([]byte(mac(sha256.New, hookKey, "v0:"+at+":"+d.content)))
	}},
	"stripe": {hookKey, "content time", func(d *delivery) bool {
		at, signature, ok := strings.Cut(strings.TrimPrefix(d.fields["stripe-signature"], "t="), ",v1=")
		return ok && d.fresh(at, time.Second) && signature == hex.EncodeToString([]byte(mac(sha256.New, hookKey, at+"."+d.content)))
	}},
	"github": {hookKey, "content", func(d *delivery) bool {
		return d.fields["x-hub-signature-256"] == "sha256="+hex.EncodeToString([]byte(mac(sha256.New, hookKey, d.content)))
	}},
	"standard-webhooks": {hookKey, "content time", func(d *delivery) bool {
		at := d.fields["webhook-timestamp"]
		text := d.fields["webhook-id"] + "." + at + "." + d.content
		return d.fresh(at, time.Second) && d.fields["webhook-signature"] == "v1,"+base64.StdEncoding.EncodeToString([]byte(mac(sha256.New, decoded64(hookKey[6:]), text)))
	}},
	"twilio": {hookKey, "host path query content", func(d *delivery) bool {
		form, err := url.ParseQuery(d.content)
		text := "https://" + d.host + d.target
		for _, name := range slices.Sorted(maps.Keys(form)) {
			for _, value := range slices.Compact(slices.Sorted(slices.Values(form[name]))) {
				text += name + value
			}
		}
		return err == nil && d.fields["x-twilio-signature"] == base64.StdEncoding.EncodeToString([]byte(mac(sha1.New, hookKey, text)))
	}},
	"twilio-json": {hookKey, "host path query content", func(d *delivery) bool {
		query, err := url.ParseQuery(d.query())
		sum := sha256.Sum256([]byte(d.content))
		return err == nil && query.Get("bodySHA256") == hex.EncodeToString(sum[:]) &&
			d.fields["x-twilio-signature"] == base64.StdEncoding.EncodeToString([]byte(mac(sha1.New, hookKey, "https://"+d.host+d.target)))
	}},
	"binance": {"id1:" + hookKey, "query content time", func(d *delivery) bool {
		signed, signature, _ := strings.Cut(d.query(), "&signature=")
		query, err := url.ParseQuery(signed)
		return err == nil && d.fresh(query.Get("timestamp"), time.Millisecond) && d.fields["x-mbx-apikey"] == "id1" &&
			signature == hex.EncodeToString([]byte(mac(sha256.New, hookKey, signed+d.content)))
	}},
	"coinbase-exchange": {"id1:" + binKey + ":pass:phrase", "method path query content time", func(d *delivery) bool {
		at := d.fields["cb-access-timestamp"]
		return d.fresh(at, time.Second) && d.fields["cb-access-key"] == "id1" && d.fields["cb-access-passphrase"] == "pass:phrase" &&
			d.fields["cb-access-sign"] == base64.StdEncoding.EncodeToString([]byte(mac(sha256.New, decoded64(binKey), at+d.method+d.target+d.content)))
	}},
	"coinbase-app": {"id1:" + hookKey, "method path content time", func(d *delivery) bool {
		at := d.fields["cb-access-timestamp"]
		return d.fresh(at, time.Second) && d.fields["cb-access-key"] == "id1" &&
			d.fields["cb-access-sign"] == hex.EncodeToString([]byte(mac(sha256.New, hookKey, at+d.method+d.path()+d.content)))
	}},
	"kraken": {"id1:" + binKey, "path content", func(d *delivery) bool {
		form, err := url.ParseQuery(d.content)
		inner := sha256.Sum256([]byte(form.Get("nonce") + d.content))
		return err == nil && d.fields["api-key"] == "id1" &&
			d.fields["api-sign"] == base64.StdEncoding.EncodeToString([]byte(mac(sha512.New, decoded64(binKey), d.path()+string(inner[:]))))
	}},
}

// deliver signs a request by a preset, as if the workload had set the preset's fields itself, and returns it as it arrives.
func deliver(t *testing.T, preset, value, content string) delivery {
	t.Helper()
	s := hmacSigner(t, "hmac:preset="+preset)
	r := &Request{Method: "POST", Host: "hooks.example.org", Target: "/a/b?q=1&r=%2F", Content: []byte(content), Whole: true,
		Fields: protocol.Fields{{Name: "content-type", Value: "application/x-www-form-urlencoded"}, {Name: "authorization", Value: "own"}}}
	in, _, _, _ := control.HMACPresetOf(preset)
	for _, name := range in.FieldNames() {
		r.Fields = append(r.Fields, protocol.Field{Name: name, Value: "own"})
	}
	fields, err := signMessage(s, value, r)
	if err != nil {
		t.Fatalf("%s: %v", preset, err)
	}
	d := delivery{r.Method, r.Host, r.Target, content, map[string]string{}, testNow}
	for _, f := range fields {
		if _, twice := d.fields[f.Name]; twice || f.Value == "own" {
			t.Errorf("%s: %s: %s stays", preset, f.Name, f.Value)
		}
		d.fields[f.Name] = f.Value
	}
	if target, ok := d.fields[Target]; ok {
		d.target = target
	}
	return d
}

// TestHMACPresets has every preset's signature verified by what its service documents, and again with one thing of the request
// changed: what the scheme binds is refused, and what it does not bind is known.
func TestHMACPresets(t *testing.T) {
	const content = "nonce=1616492376594&b=2&a=%C3%BC+x&a=1&a=1"
	for _, preset := range control.HMACPresets() {
		v, ok := verifiers[preset]
		if !ok {
			t.Errorf("preset %s has no verifier", preset)
			continue
		}
		d := deliver(t, preset, v.value, content)
		if !v.verify(&d) {
			t.Errorf("%s: refused: %+v", preset, d)
			continue
		}
		for what, change := range map[string]func(d *delivery){
			"method":  func(d *delivery) { d.method = "PUT" },
			"host":    func(d *delivery) { d.host = "hooks.example.net" },
			"path":    func(d *delivery) { d.target = strings.Replace(d.target, "/a/b", "/a/c", 1) },
			"query":   func(d *delivery) { d.target = strings.Replace(d.target, "q=1", "q=2", 1) },
			"content": func(d *delivery) { d.content = strings.Replace(d.content, "b=2", "b=3", 1) },
			"time":    func(d *delivery) { d.now = d.now.Add(time.Hour) },
		} {
			changed := deliver(t, preset, v.value, content)
			change(&changed)
			if bound := slices.Contains(strings.Fields(v.binds), what); v.verify(&changed) == bound {
				t.Errorf("%s: with another %s accepted: %v", preset, what, bound)
			}
		}
	}
}

// TestFormulas fills in formulas.
func TestFormulas(t *testing.T) {
	f := &facts{
		r: &Request{Method: "POST", Host: "api.example.org:8443", Content: []byte("b=2&a=%2B&a=1"), Fields: protocol.Fields{
			{Name: "content-type", Value: "application/x-www-form-urlencoded; charset=utf-8"}, {Name: "x-id", Value: " 1 "}, {Name: "x-id", Value: "2"}}},
		target: "/a%20b/?z=1&b&a=2", now: time.Date(2026, 11, 28, 10, 20, 30, 123_456_789, time.FixedZone("CET", 3600)),
		nonce: [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, signature: []byte("SIG"),
		keys: control.HMACKeys{ID: []byte("ID"), Passphrase: []byte("PASS")}, inner: control.Formula{{Kind: control.TermMethod}},
	}
	post := sha256.Sum256([]byte("POST"))
	for formula, want := range map[string]string{
		"":        "",
		"v0:x y!": "v0:x y!", "{method}{lf}{host}": "POST\napi.example.org:8443", "{url}": "https://api.example.org:8443/a%20b/?z=1&b&a=2",
		"{target}|{path}|{query}|{query:sorted}": "/a%20b/?z=1&b&a=2|/a%20b/|z=1&b&a=2|a=2&b&z=1",
		"{field:x-id}{field?:x-none}.":           "1, 2.", "{form:b}": "2", "{form-sorted}": "a+a1b2",
		"{time:s} {time:ms} {time:us}": "1795857630 1795857630123 1795857630123456", "{time:rfc3339} {time:rfc3339ms}": "2026-11-28T09:20:30Z 2026-11-28T09:20:30.123Z",
		"{time:http-date} {time:compact}": "Sat, 28 Nov 2026 09:20:30 GMT 20261128T092030Z",
		"{nonce:hex} {nonce:uuid}":        "000102030405060708090a0b0c0d0e0f 00010203-0405-4607-8809-0a0b0c0d0e0f",
		"{body}":                          "b=2&a=%2B&a=1", "{body:sha1:hex}": fmt.Sprintf("%x", sha1.Sum([]byte("b=2&a=%2B&a=1"))),
		"{inner:sha256:base64}": base64.StdEncoding.EncodeToString(post[:]),
		"{id}{passphrase}":      "IDPASS", "v1={signature}": "v1=SIG",
	} {
		parsed, err := control.ParseFormula(formula)
		if err != nil {
			t.Fatal(err)
		}
		got, err := f.appendTo(nil, parsed)
		if err != nil || string(got) != want {
			t.Errorf("%s: %q, %v; want %q", formula, got, err, want)
		}
	}
	f.target = "/"
	for formula, bad := range map[string]*Request{
		"{field:x-id}":  {},
		"{form:a}":      {Content: []byte("a=1&a=1"), Fields: f.r.Fields},
		"{form:b}":      {Content: []byte("a=1"), Fields: f.r.Fields},
		"{form:c}":      {Content: []byte("c=%zz"), Fields: f.r.Fields},
		"{form:d}":      {Content: []byte(`{"d":1}`), Fields: protocol.Fields{{Name: "content-type", Value: "application/json"}}},
		"{form-sorted}": {Content: []byte(strings.Repeat("a&", maxForm) + "a"), Fields: f.r.Fields},
	} {
		parsed, _ := control.ParseFormula(formula)
		f.r = bad
		if got, err := f.appendTo(nil, parsed); err == nil || got != nil {
			t.Errorf("%s: %q", formula, got)
		}
	}
}

// TestHMACDemand holds that content is held where it is signed and nowhere else.
func TestHMACDemand(t *testing.T) {
	for as, want := range map[string]Demand{
		"hmac:sign={time:s}{method}{target}": DemandNothing, "hmac:sign={url}{field?:x-id}": DemandNothing,
		"hmac:sign={body}": DemandWhole, "hmac:sign={path}{form:a}": DemandWhole, "hmac:sign={url}{form-sorted}": DemandWhole,
		"hmac:sign={path}{inner:sha1:hex},inner={body}": DemandWhole, "hmac:sign={url},query=d={body:sha256:hex}": DemandWhole,
	} {
		p, err := hmacSigner(t, as, "x-signature: {signature}").Plan(&Request{Method: "GET", Target: "/"})
		if err != nil || p.Demand() != want {
			t.Errorf("%s: %v, %v", as, p, err)
		}
	}
}

// TestHMACRefused signs what lacks something, and values that are not as the formulas want them.
func TestHMACRefused(t *testing.T) {
	post := func(fields ...protocol.Field) *Request {
		return &Request{Method: "POST", Host: "a.example", Target: "/a", Fields: fields, Content: []byte("x"), Whole: true}
	}
	cut, star := post(), post()
	cut.Whole, star.Target = false, "*"
	long := post()
	long.Target = "/" + strings.Repeat("a", protocol.MaxPath-2)
	for name, c := range map[string]struct {
		as, value string
		r         *Request
	}{
		"a field":             {"hmac:sign={body}{field:x-id}", "k", post()},
		"no path":             {"hmac:sign={body}", "k", star},
		"content not whole":   {"hmac:sign={body}", "k", cut},
		"no form":             {"hmac:sign={url}{form-sorted}", "k", post(protocol.Field{Name: "content-type", Value: "text/plain"})},
		"target too long":     {"hmac:sign={url},query=s={signature}", "k", long},
		"key not hex":         {"hmac:sign={body},key=hex", "xyz", post()},
		"key not base64":      {"hmac:sign={body},key=base64", "a*c", post()},
		"no id":               {"hmac:sign={body}{id}", "k", post()},
		"id that ends a line": {"hmac:sign={body}{id}", "a\r\nb:k", post()},
		"nothing but an id":   {"hmac:sign={body}{id}", "a:", post()},
	} {
		if proof, err := prove(hmacSigner(t, c.as, "x-signature: {signature}"), c.value, c.r); err == nil {
			t.Errorf("%s: %v", name, fieldsOf(proof))
		} else if strings.Contains(err.Error(), c.value) && len(c.value) > 1 {
			t.Errorf("%s: the error quotes the value: %v", name, err)
		}
	}
	_, err := (&facts{}).appendPart(nil, &control.Term{Kind: 99})
	if err == nil || errors.Is(err, ErrContent) {
		t.Error(err)
	}
}

// FuzzHMAC signs hostile requests by many formulas: what comes out can be sent, and holds the workload's parameters but for those
// that are set.
func FuzzHMAC(f *testing.F) {
	f.Add("sign={body}", "/?a=1", "x=1", "v")
	f.Add("preset=binance", "/a?timestamp=1&%73ignature=x;timestamp&q", "", "")
	f.Add("preset=twilio", "/a", "a=%41&b", "")
	f.Add("sign={path}{query:sorted}{field:x-id}{time:ms}{nonce:uuid},query=a={nonce:hex}&s={signature}", "/?", "", "\t")
	f.Add("preset=kraken", "/0/private/x", "nonce=1&nonce=2", "")
	f.Fuzz(func(t *testing.T, params, target, content, value string) {
		if !protocol.IsPath(target) || !protocol.IsFieldValue(value) || len(target) > protocol.MaxPath {
			return
		}
		in, err := control.ParseScheme("hmac:" + params)
		if err != nil {
			return
		}
		if in.Param(control.ParamPreset) == "" {
			in.Fields = []control.FieldTemplate{{Name: "x-signature", Value: "t={time:s},v1={signature}"}}
		}
		if control.CheckMeta(control.Meta{Agent: "a", Name: "K", Version: 1, Audience: []string{"https://a.example"}, Inject: in}) != nil {
			return
		}
		s := New(control.Meta{Inject: in})
		if s == nil {
			t.Fatalf("%s passes the check, and has no signer", params)
		}
		r := &Request{Method: "POST", Host: "a.example", Target: target, Content: []byte(content), Whole: true, Fields: protocol.Fields{
			{Name: "x-id", Value: value}, {Name: "content-type", Value: "application/x-www-form-urlencoded"}}}
		proof, err := prove(s, "id:a2V5:pass", r)
		if err != nil {
			return
		}
		for name, value := range fieldsOf(proof) {
			switch {
			case name == Target && (!protocol.IsPath(value) || len(value) > protocol.MaxPath):
				t.Fatalf("target %q becomes %q", target, value)
			case name != Target && (!protocol.IsToken(name) || !protocol.IsFieldValue(value)):
				t.Fatalf("field %q: %q", name, value)
			}
		}
	})
}
