package audit

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// time0 is when the examples of tests were recorded.
var time0 = time.Date(2026, 1, 31, 14, 30, 0, 123456789, time.UTC)

// encode writes a record as the table of members says.
func encode(r *control.AuditRecord) []byte {
	b := []byte("{")
	for i, m := range members {
		always := i < 4 || r.Type == control.AuditEnd && !r.Interrupted && strings.Contains(" status up down us ", " "+m.name+" ")
		value := encodeValue(m.at(r), always)
		if value == "" {
			continue
		}
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, `"`+m.name+`":`+value...)
	}
	return append(b, '}')
}

// encodeValue writes one value, or nothing if it is zero and may be left out.
func encodeValue(at any, always bool) string {
	number := func(n uint64) string {
		if n == 0 && !always {
			return ""
		}
		return strconv.FormatUint(n, 10)
	}
	quote := func(s string) string { return string(append(appendEscaped([]byte{'"'}, s, maxLine), '"')) }
	switch v := at.(type) {
	case *string:
		if *v == "" && !always {
			return ""
		}
		return quote(*v)
	case *time.Time:
		return quote(v.Format(time.RFC3339Nano))
	case *uint64:
		return number(*v)
	case *int64:
		return number(uint64(*v))
	case *int:
		return number(uint64(*v))
	case *bool:
		return map[bool]string{true: "true"}[*v]
	case *[]string:
		var all []string
		for _, s := range *v {
			all = append(all, quote(s))
		}
		return list(all)
	case *[]uint64:
		var all []string
		for _, n := range *v {
			all = append(all, strconv.FormatUint(n, 10))
		}
		return list(all)
	}
	panic("a member of another type")
}

func list(all []string) string {
	if len(all) == 0 {
		return ""
	}
	return "[" + strings.Join(all, ",") + "]"
}

// line0 is a beginning as the encoder writes it.
func line0(r *Record) []byte {
	return append(r.appendTo(appendHead(nil, 7, time0, &[32]byte{}, control.AuditBegin)), '}')
}

// What is written reads back as it was, whatever the strings are, and nothing of it is a line of its own.
func FuzzWriteRead(f *testing.F) {
	f.Add("GET", "x.example:443", "/a?token=s&b=1", "user-agent", "curl/8\x1b[2J", "127.0.0.1:1", "x.example/**")
	f.Add("\xff\xfe", "a\nb", "/\u202e\u2028\U000e0041", "", "\"\\", "\x00", "{\"seq\":9}")
	f.Fuzz(func(t *testing.T, method, authority, path, name, value, dialled, rule string) {
		r := &Record{Session: "s", Agent: "a", Method: method, Authority: authority, Path: path, Dialled: dialled, Rule: rule,
			Fields: protocol.Fields{{Name: name, Value: value}, {Name: "user-agent", Value: value}}}
		line := line0(r)
		if len(line) >= maxLine {
			return
		}
		checkLine(t, line)
		got, err := Decode(line)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if back := encode(&got); string(back) != string(line) {
			t.Errorf("read and written again:\n%q, was\n%q", back, line)
		}
		for _, c := range [][2]string{{got.Method, method}, {got.Authority, authority}, {got.Dialled, clip(dialled, maxDialled)}, {got.Rule, clip(rule, maxRule)}} {
			if c[0] != c[1] {
				t.Errorf("%q came back as %q", c[1], c[0])
			}
		}
		if want := "user-agent: " + clip(value, maxValue); got.Fields[1] != want {
			t.Errorf("field %q, want %q", got.Fields[1], want)
		}
		if !strings.ContainsAny(path, "=") && got.Path != clip(path, maxPath) {
			t.Errorf("path %q, want %q", got.Path, path)
		}
	})
}

// Every line that is read has one spelling.
func FuzzDecode(f *testing.F) {
	f.Add(line0(request("/v1/x?q=1")))
	f.Add([]byte(`{"seq":1,"time":"2026-01-31T14:30:00.123456789Z","prev":"` + strings.Repeat("0", 64) + `","type":"end","begin":7,"status":200,"up":0,"down":1,"us":2}`))
	f.Add(append(testSigner.appendSigned(appendHead(nil, 1, time0, &[32]byte{}, "checkpoint")), '}'))
	f.Fuzz(func(t *testing.T, line []byte) {
		r, err := Decode(line)
		if err != nil {
			return
		}
		if back := encode(&r); string(back) != string(line) {
			t.Errorf("%q is read as\n%q", line, back)
		}
	})
}

func TestDecodeRefuses(t *testing.T) {
	good := string(line0(&Record{Session: "s", Path: "/é", Version: 1}))
	if r, err := Decode([]byte(good)); err != nil || r.Path != "/é" || r.Seq != 7 || !r.Time.Equal(time0) {
		t.Fatalf("%+v, %v", r, err)
	}
	for name, change := range map[string][2]string{
		"space":                {`,"session"`, `, "session"`},
		"unknown member":       {`"session"`, `"sessions"`},
		"another order":        {`"session":"s","path":"/é"`, `"path":"/é","session":"s"`},
		"twice":                {`"session":"s"`, `"session":"s","session":"s"`},
		"escaped for nothing":  {`"s"`, `"\u0073"`},
		"upper-case escape":    {`"s"`, `"\u001B"`},
		"short escape":         {`"s"`, `"\n"`},
		"raw control":          {`"s"`, "\"\x1b\""},
		"raw newline":          {`"s"`, "\"\n\""},
		"raw override":         {`"s"`, "\"\u202e\""},
		"not UTF-8":            {`"s"`, "\"\xff\""},
		"lone high surrogate":  {`"s"`, `"\ud800"`},
		"ASCII as a raw byte":  {`"s"`, `"\udc41"`},
		"valid as raw bytes":   {`"s"`, `"\udcc3\udca9"`},
		"empty":                {`"s"`, `""`},
		"leading zero":         {`"version":1`, `"version":01`},
		"zero":                 {`"version":1`, `"version":0`},
		"negative":             {`"version":1`, `"version":-1`},
		"exponent":             {`"version":1`, `"version":1e0`},
		"too large":            {`"version":1`, `"version":9223372036854775808`},
		"no number":            {`"seq":7,`, ``},
		"time of another zone": {`789Z`, `789+00:00`},
		"trailing zeros":       {`789Z`, `7890Z`},
		"hash too short":       {`"prev":"0`, `"prev":"`},
		"upper-case hash":      {`"prev":"0`, `"prev":"A`},
		"unknown type":         {`"begin"`, `"began"`},
		"begin of a begin":     {`"session"`, `"begin":1,"session"`},
		"an end without one":   {`"type":"begin"`, `"type":"end"`},
		"trailing":             {`1}`, `1} `},
		"unclosed":             {`1}`, `1`},
		"false":                {`"version":1`, `"version":1,"aborted":false`},
		"empty list":           {`"path"`, `"fields":[],"path"`},
	} {
		bad := strings.Replace(good, change[0], change[1], 1)
		if bad == good {
			t.Errorf("%s: nothing changes", name)
		}
		if r, err := Decode([]byte(bad)); err == nil {
			t.Errorf("%s is read: %s\n%+v", name, bad, r)
		}
	}
	if _, err := Decode(make([]byte, maxLine)); err == nil {
		t.Error("a line that is too long is read")
	}
}

// Credentials in a path are masked, whatever a server takes for a separator.
func TestMaskedPath(t *testing.T) {
	for path, want := range map[string]string{
		"/v1/models":                         "/v1/models",
		"/?q=1&page=2":                       "/?q=1&page=2",
		"/?key=s":                            "/?key=***",
		"/?KEY=s&x=1":                        "/?KEY=***&x=1",
		"/?a=1&access_token=s&b=2":           "/?a=1&access_token=***&b=2",
		"/?X-Amz-Signature=s&X-Amz-Date=1":   "/?X-Amz-Signature=***&X-Amz-Date=1",
		"/?x-my-api-key=s":                   "/?x-my-api-key=***",
		"/?auth[token]=s":                    "/?auth[token]=***",
		"/?%6bey=s":                          "/?%6bey=***",
		"/?key=a/b?c&d=1":                    "/?key=***&d=1",
		"/?a=1;key=s":                        "/?a=1;key=***",
		"/?key=s;a=1":                        "/?key=***",
		"/?a=1;b=2&c=3":                      "/?a=1;b=2&c=3",
		"/a;token=s/b?x":                     "/a;token=***/b?x",
		"/key=s/b":                           "/key=***/b",
		"/?key":                              "/?key",
		"/?key=":                             "/?key=***",
		"/?" + strings.Repeat("n", 65) + "=": "/?" + strings.Repeat("n", 65) + "=***",
		"?":                                  "?",
		"/?&&=":                              "/?&&=",
	} {
		r, err := Decode(line0(&Record{Path: path}))
		if err != nil || r.Path != want {
			t.Errorf("%q is recorded as %q (%v), want %q", path, r.Path, err, want)
		}
	}
	long := "/" + strings.Repeat("a", maxPath) + "?key=secret"
	r, err := Decode(line0(&Record{Path: long}))
	if err != nil || len(r.Path) != maxPath || int(r.PathBytes) != len(long) || len(r.PathSHA256) != 64 {
		t.Errorf("a long path: %d, %d, %q, %v", len(r.Path), r.PathBytes, r.PathSHA256, err)
	}
}

// An end fits into the room that was kept for it, whatever it says.
func TestEndFits(t *testing.T) {
	big := strings.Repeat("\xff", 1<<16)
	o := Outcome{Status: 999, Reason: big, BytesUp: 1<<63 - 1, BytesDown: 1<<63 - 1, Dial: 1<<63 - 1, Head: 1<<63 - 1,
		Duration: 1<<63 - 1, Upstream: big, Via: big, Masked: 1<<63 - 1, Aborted: true}
	now := time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	line := append(o.appendTo(appendHead(nil, 1<<63-1, now, &[32]byte{}, control.AuditEnd), 1<<63-1), "}\n"...)
	if len(line) > maxEnd {
		t.Errorf("%d bytes, want at most %d", len(line), maxEnd)
	}
	r, err := Decode(line[:len(line)-1])
	if err != nil {
		t.Fatal(err)
	}
	if got := encode(&r); cmp.Diff(string(line[:len(line)-1]), string(got)) != "" {
		t.Error(cmp.Diff(string(line), string(got)))
	}
	t.Logf("%d bytes of %d", len(line), maxEnd)
}
