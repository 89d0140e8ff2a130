package credential

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"testing"
	"testing/iotest"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// replacer is a use of a secret whose placeholder is replaced in content.
func replacer(t testing.TB, value string, places ...control.Place) (*Use, string) {
	t.Helper()
	p := placeholder(t, "OPENAI_API_KEY")
	m := meta("K", "https://a.example")
	m.Inject, m.Replace = control.Injector{Scheme: control.SchemeContent}, places
	set, err := NewSet([]Secret{{Meta: m, Value: secret.New([]byte(value)), Placeholder: p}})
	if err != nil {
		t.Fatal(err)
	}
	use, err := pick(set, authority(t, "a.example"), "https", nil, "")
	if err != nil {
		t.Fatal(err)
	}
	return use, p
}

func TestReplaces(t *testing.T) {
	form, _ := replacer(t, "v", control.PlaceForm)
	both, _ := replacer(t, "v", control.PlaceForm, control.PlaceJSON)
	none, _, _ := newWorld(t).Select(authority(t, "b.example"), "https", nil, "")
	for _, tt := range []struct {
		use  *Use
		kind string
		want control.Place
	}{
		{form, "application/x-www-form-urlencoded", control.PlaceForm},
		{form, "Application/X-WWW-Form-URLencoded; charset=UTF-8", control.PlaceForm},
		{form, "application/json", ""}, {both, "application/json", control.PlaceJSON}, {both, "application/json;charset=utf-8", control.PlaceJSON},
		{both, "application/vnd.api+json", control.PlaceJSON}, {both, "text/plain", ""}, {both, "", ""}, {both, "application/json; =", ""},
		{both, "application/jsonp", ""}, {both, "multipart/form-data; boundary=x", ""}, {none, "application/json", ""},
	} {
		got, ok := tt.use.Replaces(tt.kind)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("%q: %q %v, want %q", tt.kind, got, ok, tt.want)
		}
	}
}

// TestReplacer cuts content at every place, and into single bytes.
func TestReplacer(t *testing.T) {
	const value = "s\"e\\c&r=e t+é%\n\x01"
	use, p := replacer(t, value, control.PlaceForm, control.PlaceJSON)
	for place, content := range map[control.Place]string{
		control.PlaceForm: "a=" + p + "&b=" + p + p + "&c=" + p[:len(p)-1] + "&d=" + p[1:] + "&" + p[:20],
		control.PlaceJSON: `{"a":"` + p + `","b":["` + p[:7] + p + `"],"c":"` + p[:len(p)-1] + `"}`,
	} {
		escaped := strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
		if place == control.PlaceJSON {
			escaped = `s\"e\\c&r=e t+é%\u000a\u0001`
			var back string
			if err := json.Unmarshal([]byte(`"`+escaped+`"`), &back); err != nil || back != value {
				t.Fatalf("%q, %v", back, err)
			}
		}
		want := strings.ReplaceAll(content, p, escaped)
		read := func(r io.Reader) string {
			rep := use.Replacer(place, r)
			defer rep.Close()
			got, err := io.ReadAll(rep)
			if err != nil {
				t.Fatal(err)
			}
			return string(got)
		}
		for i := range len(content) {
			cut := io.MultiReader(strings.NewReader(content[:i]), strings.NewReader(content[i:]))
			if got := read(cut); got != want {
				t.Fatalf("%s cut at %d: %q, want %q", place, i, got, want)
			}
		}
		if got := read(iotest.OneByteReader(strings.NewReader(content))); got != want {
			t.Errorf("%s byte by byte: %q, want %q", place, got, want)
		}
		if got := read(iotest.DataErrReader(strings.NewReader(content))); got != want {
			t.Errorf("%s with its end: %q, want %q", place, got, want)
		}
	}
}

// TestReplacerHoldsNothingBack gives out what can't be part of a placeholder at once.
func TestReplacerHoldsNothingBack(t *testing.T) {
	use, p := replacer(t, "value", control.PlaceJSON)
	pr, pw := io.Pipe()
	r := use.Replacer(control.PlaceJSON, pr)
	defer r.Close()
	buf := make([]byte, 256)
	for _, step := range [][2]string{{`{"a":1}`, `{"a":1}`}, {"x" + p[:5], "x"}, {p[5:], "value"}, {p[:5] + "y", p[:5] + "y"}} {
		go func() { _, _ = pw.Write([]byte(step[0])) }()
		n, err := r.Read(buf)
		if string(buf[:n]) != step[1] || err != nil {
			t.Errorf("%q: %q, %v, want %q", step[0], buf[:n], err, step[1])
		}
	}
}

// TestReplacerWipes looks for the value where a Replacer had it.
func TestReplacerWipes(t *testing.T) {
	use, p := replacer(t, "a-value-to-be-found", control.PlaceJSON)
	r := use.Replacer(control.PlaceJSON, strings.NewReader(p))
	first := make([]byte, 7)
	if n, err := r.Read(first); string(first[:n]) != "a-value" || err != nil {
		t.Fatalf("%q, %v", first[:n], err)
	}
	room, value := r.room[:cap(r.room)], r.value[:cap(r.value)]
	if !bytes.Contains(room, []byte("value-to")) || !bytes.Contains(value, []byte("value-to")) {
		t.Error("it is not where it is looked for")
	}
	r.Close()
	if bytes.Contains(room, []byte("value-to")) || bytes.Contains(value, []byte("value-to")) {
		t.Error("it is there still")
	}
	if n, err := r.Read(first); err == nil || n > 0 {
		t.Error("a closed one is read")
	}
}

func FuzzReplacer(f *testing.F) {
	f.Add([]byte("xPyP"), uint8(3), true)
	f.Add([]byte("PP"), uint8(0), false)
	f.Add([]byte("QPQ"), uint8(40), true)
	f.Add([]byte(`\u0073P\\\\P\nP`), uint8(9), false)
	f.Add([]byte("%73P%25P%2"), uint8(2), true)
	const value = "the\"value\\&"
	use, p := replacer(f, value, control.PlaceForm, control.PlaceJSON)
	f.Fuzz(func(t *testing.T, pattern []byte, cut uint8, form bool) {
		var b bytes.Buffer
		for i, c := range pattern { // P stands for the placeholder, Q for a part of it
			switch c {
			case 'P':
				b.WriteString(p)
			case 'Q':
				b.WriteString(p[:i%len(p)])
			default:
				b.WriteByte(c)
			}
		}
		place, read := control.PlaceJSON, func(b []byte) (text string, err error) {
			err = json.Unmarshal([]byte(`"`+string(b)+`"`), &text)
			return text, err
		}
		if form {
			place, read = control.PlaceForm, func(b []byte) (string, error) { return url.PathUnescape(string(b)) }
		}
		text, readable := read(b.Bytes())
		at := min(int(cut), b.Len())
		r := use.Replacer(place, io.MultiReader(bytes.NewReader(b.Bytes()[:at]), iotest.HalfReader(bytes.NewReader(b.Bytes()[at:]))))
		defer r.Close()
		got, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if readable != nil { // what is no JSON, or no form, is only copied without harm
			return
		}
		if back, err := read(got); err != nil || back != strings.ReplaceAll(text, p, value) {
			t.Errorf("%q becomes %q, %v", b.Bytes(), got, err)
		}
	})
}

// TestReplacerEscaped spells placeholders as encoders may, whole or in part, and cuts the content at every place. What only
// looks like an escape is text.
func TestReplacerEscaped(t *testing.T) {
	const value = "the-value"
	use, p := replacer(t, value, control.PlaceForm, control.PlaceJSON)
	each := func(format string) string {
		var b strings.Builder
		for _, c := range []byte(p) {
			fmt.Fprintf(&b, format, c)
		}
		return b.String()
	}
	for _, tt := range []struct {
		place         control.Place
		content, want string
	}{
		{control.PlaceForm, "a=" + each("%%%02x") + "&b=" + each("%%%02X") + "&c=" + p, "a=@&b=@&c=@"},
		{control.PlaceForm, "a=" + strings.Replace(p, "-", "%2D", 1) + "&b=" + fmt.Sprintf("%%%02x", p[0]) + p[1:], "a=@&b=@"},
		{control.PlaceForm, "a=%25" + each("%02x") + "&b=%" + p + "&c=%zz" + p + "%", "a=%25" + each("%02x") + "&b=%@&c=%zz@%"},
		{control.PlaceForm, each(`\u%04x`), each(`\u%04x`)},
		{control.PlaceJSON, `{"a":"` + each(`\u%04x`) + `","b":"` + each(`\u%04X`) + `","c":"` + p + `"}`, `{"a":"@","b":"@","c":"@"}`},
		{control.PlaceJSON, `["` + strings.Replace(p, "-", `\u002d`, 1) + `","\n` + p + `\"` + p + `\\` + p + `"]`, `["@","\n@\"@\\@"]`},
		{control.PlaceJSON, `["\\` + each(`\u%04x`)[1:] + `"]`, `["\\` + each(`\u%04x`)[1:] + `"]`},
		{control.PlaceJSON, `["` + each("%%%02x") + `"]`, `["` + each("%%%02x") + `"]`},
		{control.PlaceJSON, each(`\u%04x`)[:40] + `\u`, each(`\u%04x`)[:40] + `\u`},
	} {
		want := strings.ReplaceAll(tt.want, "@", value)
		readers := []io.Reader{strings.NewReader(tt.content), iotest.OneByteReader(strings.NewReader(tt.content))}
		for i := range tt.content {
			readers = append(readers, io.MultiReader(strings.NewReader(tt.content[:i]), strings.NewReader(tt.content[i:])))
		}
		for _, r := range readers {
			rep := use.Replacer(tt.place, r)
			got, err := io.ReadAll(rep)
			rep.Close()
			if err != nil || string(got) != want {
				t.Fatalf("%s: %q becomes %q, %v; want %q", tt.place, tt.content, got, err, want)
			}
		}
	}
}

// BenchmarkReplacer reads JSON of much text and few escapes.
func BenchmarkReplacer(b *testing.B) {
	use, p := replacer(b, "value", control.PlaceJSON)
	content := []byte(`{"key":"` + p + `","text":"` + strings.Repeat(`some text that says nothing, in lines.\n`, 1<<15) + `"}`)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		rep := use.Replacer(control.PlaceJSON, bytes.NewReader(content))
		if _, err := io.Copy(io.Discard, rep); err != nil {
			b.Fatal(err)
		}
		rep.Close()
	}
}
