package control

import "testing"

// TestBinds wants of formulas what they bind, and nothing of those whose pieces could be moved.
func TestBinds(t *testing.T) {
	const target = BindsPath | BindsQuery
	for text, want := range map[string]Bound{
		"": 0, "{method}": BindsMethod, "{method} {url}": BindsMethod | BindsHost | target, "{method}{path}": BindsMethod | BindsPath, "{method}{target}": BindsMethod | target,
		"{method}{lf}{host}{lf}{path}{lf}{query}{lf}{body}": BindsAll, "{time:s}{lf}{method} {url}{lf}{body:sha256:hex}": BindsAll, "{body:sha256:hex}{method} {url}": BindsAll,
		"{time:s}{method}{target}{lf}{body}":       0, // "1" and "23GET" is "12" and "3GET"
		"{time:rfc3339}{method}{target}{lf}{body}": BindsMethod | target | BindsContent, "{method}{target}{body}": 0, "{path}{query}": 0, "{path}?{query}": target, "{path}{lf}{query:sorted}": BindsPath,
		"{body}{method}": 0, "{field:a}{lf}{method}": BindsMethod, "{field:a} {method}": 0, "{host}{path}": BindsHost | BindsPath, "{host}:{path}": 0, "{url} {method}": BindsHost | target | BindsMethod,
		"{target}h{method}": 0, "{method}{url}": 0, "{form-sorted}": 0, "{form:a}{lf}{method}": 0, "{id}{method}": BindsMethod, "{inner:sha256:raw}": 0,
	} {
		f, err := ParseFormula(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := f.Binds(nil); got != want {
			t.Errorf("%s binds %b, want %b", text, got, want)
		}
	}
	inner, _ := ParseFormula("{method} {url}{lf}{body}")
	outer, _ := ParseFormula("{inner:sha512:hex}")
	if got := outer.Binds(inner); got != BindsAll {
		t.Errorf("a digest of all binds %b", got)
	}
	for _, name := range HMACPresets() { // no service known by name binds the host
		in, _, _, _ := HMACPresetOf(name)
		h, err := ParseHMAC(in)
		if err != nil || h.Bound() == BindsAll {
			t.Errorf("%s binds %b, %v", name, h.Bound(), err)
		}
	}
}
