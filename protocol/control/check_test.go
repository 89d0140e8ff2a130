package control

import (
	"strings"
	"testing"

	"torno.internal/protocol"
)

func headerMeta() Meta {
	return Meta{
		Agent: "my-agent", Name: "KEY", Version: 1, Audience: []string{"https://api.example.org"},
		Inject: Injector{Scheme: SchemeHeader, Fields: []FieldTemplate{{Name: "x-auth", Value: "v1 {KEY}"}}},
	}
}

func bearerMeta() Meta {
	m := headerMeta()
	m.Inject = Injector{Scheme: SchemeBearer}
	return m
}

func exposedMeta() Meta {
	return Meta{Agent: "my-agent", Name: "DATABASE_URL", Version: 1, Expose: ExposeEnv}
}

func TestCheckMeta(t *testing.T) {
	for _, m := range []Meta{headerMeta(), bearerMeta(), exposedMeta()} {
		if err := CheckMeta(m); err != nil {
			t.Errorf("CheckMeta(%+v) = %v", m, err)
		}
	}
	fields := func(f ...FieldTemplate) func(*Meta) {
		return func(m *Meta) { m.Inject.Fields = f }
	}
	audience := func(a ...string) func(*Meta) { return func(m *Meta) { m.Audience = a } }
	field := func(name string) func(*Meta) { return fields(FieldTemplate{name, "{KEY}"}) }
	tests := []struct {
		name   string
		change func(*Meta)
		want   string // in the error
	}{
		{"agent", func(m *Meta) { m.Agent = "My Agent" }, "agent"},
		{"name", func(m *Meta) { m.Name = "key" }, "secret"},
		{"version 0", func(m *Meta) { m.Version = 0 }, "version"},
		{"rotation", func(m *Meta) { m.Rotation = "never" }, "rotation"},
		{"preset", func(m *Meta) { m.Preset = "\x1b[2J" }, "preset"},
		{"expose", func(m *Meta) { m.Expose = "file" }, "expose"},
		{"exposed with a host", func(m *Meta) { m.Expose = ExposeEnv; m.Inject = Injector{} }, "exposed"},
		{"exposed with an injector", func(m *Meta) { m.Expose = ExposeEnv; m.Audience = nil }, "exposed"},
		{"no host", audience(), "--host"},
		{"http", audience("http://api.example.org"), "https alone"},
		{"wildcard", audience("https://*.example.org"), "exact hosts"},
		{"path", audience("https://api.example.org/v1"), "no path"},
		{"slash", audience("https://api.example.org/"), "no path"},
		{"query", audience("https://api.example.org?x"), "no path"},
		{"user information", audience("https://u@api.example.org"), "origin"},
		{"no scheme", audience("api.example.org"), "canonical"},
		{"default port", audience("https://api.example.org:443"), "canonical"},
		{"upper case", audience("https://API.example.org"), "canonical"},
		{"trailing dot", audience("https://api.example.org."), "canonical"},
		{"twice", audience("https://api.example.org", "https://api.example.org"), "twice"},
		{"too many hosts", audience(make([]string, MaxAudience+1)...), "at most"},
		{"scheme", func(m *Meta) { m.Inject.Scheme = "digest" }, "scheme"},
		{"bearer with headers", func(m *Meta) { m.Inject.Scheme = SchemeBearer }, "takes no headers"},
		{"no headers", fields(), "headers"},
		{"too many headers", fields(make([]FieldTemplate, MaxTemplates+1)...), "headers"},
		{"header twice", fields(FieldTemplate{"x-a", "{KEY}"}, FieldTemplate{"X-A", "{KEY}"}), "twice"},
		{"header with colon", field("x-a:"), "not a field name"},
		{"header with line break", field("x-a\r\nhost"), "not a field name"},
		{"pseudo-field", field(":authority"), "not a field name"},
		{"empty header", field(""), "not a field name"},
		{"host", field("Host"), "cannot go there"},
		{"connection", field("connection"), "cannot go there"},
		{"transfer-encoding", field("Transfer-Encoding"), "cannot go there"},
		{"content-length", field("content-length"), "cannot go there"},
		{"te", field("te"), "cannot go there"},
		{"upgrade", field("upgrade"), "cannot go there"},
		{"accept-encoding", field("accept-encoding"), "cannot go there"},
		{"proxy-authorization", field("proxy-authorization"), "cannot go there"},
		{"torno", field("Torno-Reason"), "cannot go there"},
		{"websocket", field("sec-websocket-key"), "cannot go there"},
		{"no hole", fields(FieldTemplate{"x-a", "KEY"}), "lacks {KEY}"},
	}
	for _, tt := range tests {
		m := headerMeta()
		tt.change(&m)
		if err := CheckMeta(m); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: CheckMeta = %v, want an error with %q", tt.name, err, tt.want)
		}
	}
}

func TestAttack20BytesInValues(t *testing.T) {
	long := strings.Repeat("k", MaxValue+1)
	tests := []struct {
		name, value string
		bearer      string // in the error; empty: accepted
		header      string
		exposed     string
	}{
		{"plain", "sk-ant-api03-abc", "", "", ""},
		{"inner space", "a b", "space", "", ""},
		{"empty", "", "empty", "empty", "empty"},
		{"CR", "a\rb", "line break", "line break", ""},
		{"LF", "a\nx-evil: 1", "line break", "line break", ""},
		{"CR LF", "a\r\nhost: evil.example", "line break", "line break", ""},
		{"LF at the end", "a\n", "newline at its end", "newline at its end", ""},
		{"NUL", "a\x00b", "NUL", "NUL", "NUL"},
		{"tab", "a\tb", "control", "control", ""},
		{"escape", "a\x1b[2J", "control", "control", ""},
		{"DEL", "a\x7f", "control", "control", ""},
		{"UTF-8", "schlüssel", "not ASCII", "not ASCII", ""},
		{"Latin-1", "a\xff", "not ASCII", "not ASCII", ""},
		{"leading space", " a", "space", "space", ""},
		{"trailing space", "a ", "space", "space", ""},
		{"too long", long, "at most", "at most", "at most"},
		{"too long for a field", long[1:], "longer", "longer", ""},
		{"placeholder", "sk-" + PlaceholderMark + "abc", "placeholder", "placeholder", "placeholder"},
	}
	for _, tt := range tests {
		for _, c := range []struct {
			m    Meta
			want string
		}{{bearerMeta(), tt.bearer}, {headerMeta(), tt.header}, {exposedMeta(), tt.exposed}} {
			err := CheckValue(c.m, []byte(tt.value))
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s in %q: %v, want %q", tt.name, c.m.Inject.Scheme, err, c.want)
			}
			if err != nil && len(tt.value) > 3 && strings.Contains(err.Error(), tt.value) {
				t.Errorf("%s: the error quotes the value", tt.name)
			}
		}
	}
}

func TestAttack20BytesInTemplates(t *testing.T) {
	tests := []struct{ in, want string }{
		{"{KEY}", ""}, {"Token {KEY}", ""}, {"{\"k\":\"{KEY}\"}", ""}, {"{key}{KEY}{}", ""},
		{"", "lacks"}, {"KEY", "lacks"}, {"{OTHER}", "lacks"}, {"{ KEY }", "lacks"}, {"{key}", "lacks"},
		{"{KEY}{KEY}", "more than once"}, {"{KEY} {OTHER}", "names {OTHER}"}, {"{{KEY}}", ""},
		{"{KEY}\r\nhost: evil.example", "cannot stand"}, {"a\x00{KEY}", "cannot stand"}, {"\t{KEY}", "cannot stand"},
		{"ä{KEY}", "cannot stand"}, {" {KEY}", "space"}, {"{KEY} ", "space"},
		{"{KEY}" + strings.Repeat("x", MaxTemplate), "at most"},
	}
	for _, tt := range tests {
		got, err := ParseTemplate("KEY", tt.in)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("ParseTemplate(%q) = %v, want %q", tt.in, err, tt.want)
		}
		if err == nil && got.Prefix+"{KEY}"+got.Suffix != tt.in {
			t.Errorf("ParseTemplate(%q) = %+v", tt.in, got)
		}
		if err != nil && got != (Template{}) {
			t.Errorf("ParseTemplate(%q) = %+v beside an error", tt.in, got)
		}
	}
}

func TestParseHeader(t *testing.T) {
	got, err := ParseHeader("CUSTOM_API_SECRET", "X-Custom-Auth: {CUSTOM_API_SECRET}")
	if want := (FieldTemplate{"x-custom-auth", "{CUSTOM_API_SECRET}"}); err != nil || got != want {
		t.Errorf("ParseHeader = %+v, %v; want %+v", got, err, want)
	}
	for _, line := range []string{"", "X-A", "X-A {K}", ": {K}", "X A: {K}", "Host: {K}", "X-A: K", "X-A: {K}\r\nX-B: 1"} {
		if got, err := ParseHeader("K", line); err == nil || got != (FieldTemplate{}) {
			t.Errorf("ParseHeader(%q) = %+v, %v; want an error", line, got, err)
		}
	}
}

func TestParseOrigin(t *testing.T) {
	tests := []struct{ in, want string }{
		{"https://api.example.org", "https://api.example.org"},
		{"API.example.org.", "https://api.example.org"},
		{"api.example.org:443", "https://api.example.org"},
		{"https://api.example.org:8443", "https://api.example.org:8443"},
		{"[2001:DB8::1]", "https://[2001:db8::1]"},
	}
	for _, tt := range tests {
		a, err := ParseOrigin(tt.in)
		if err != nil || FormatOrigin(a) != tt.want {
			t.Errorf("ParseOrigin(%q) = %v, %v; want %s", tt.in, a, err, tt.want)
		}
	}
	for _, in := range []string{"", "https://", "http://a.example", "ftp://a.example", "*.example", "a.example/x", "https://https://a.example"} {
		if a, err := ParseOrigin(in); err == nil || a != (protocol.Authority{}) {
			t.Errorf("ParseOrigin(%q) = %v, %v; want an error", in, a, err)
		}
	}
}

func TestIsWeak(t *testing.T) {
	prefixes := []string{"sk-", "sk-proj-"}
	tests := []struct {
		value string
		want  bool
	}{
		{"", true},
		{"abc123", true},
		{"fifteen-bytes-x", true},
		{"sixteen-bytes-xy", false},
		{"sk-proj-fifteen-bytes-x", true},
		{"sk-proj-sixteen-bytes-xy", false},
		{"sk-sk-proj-sixteen", true}, // one prefix goes, and 15 bytes stay
		{strings.Repeat("a", 64), true},
		{strings.Repeat("abcde", 20), true},
		{"1234567890123456", true}, // 53 bits
		{"12345678901234567890", false},
		{"0123456789abcdef", false},
	}
	for _, tt := range tests {
		if got := IsWeak([]byte(tt.value), prefixes); got != tt.want {
			t.Errorf("IsWeak(%q) = %v, want %v", tt.value, got, tt.want)
		}
	}
}

func FuzzParseTemplate(f *testing.F) {
	for _, s := range []string{"{KEY}", "Token {KEY}", "{KEY}{OTHER}", "{{KEY}}", "{KEY}\r\n", "{", "}{KEY", ""} {
		f.Add(s, "value")
	}
	f.Fuzz(func(t *testing.T, s, value string) {
		tmpl, err := ParseTemplate("KEY", s)
		if err != nil {
			if tmpl != (Template{}) {
				t.Fatalf("%q: %+v beside %v", s, tmpl, err)
			}
			return
		}
		if tmpl.Prefix+"{KEY}"+tmpl.Suffix != s {
			t.Fatalf("%q parses to %+v", s, tmpl)
		}
		m := headerMeta()
		m.Inject.Fields[0].Value = s
		if CheckValue(m, []byte(value)) != nil {
			return
		}
		if sent := tmpl.Prefix + value + tmpl.Suffix; !protocol.IsFieldValue(sent) || len(sent) > protocol.MaxFieldValue+len("{KEY}") {
			t.Fatalf("template %q and value %q make %q, which cannot be sent", s, value, sent)
		}
	})
}
