package spelling

import "testing"

// TestDropParameter removes a parameter in many spellings, and no other.
func TestDropParameter(t *testing.T) {
	for target, want := range map[string]string{
		"/": "/", "/?": "/?", "/?a=1": "/?a=1", "/?api_key=1": "/", "/?a=1&Api-Key=2&b": "/?a=1&b", "/?a&%61pi%2Ekey=1": "/?a", "/?a&%2561pi_key[0]=1&": "/?a&",
		"/?a=1;api_key=2": "/", "/?xapi_key=1&api_key2=2&a=api_key": "/?xapi_key=1&api_key2=2&a=api_key", "/api_key=1": "/api_key=1", "/?a=%zz&+api.key+": "/?a=%zz",
	} {
		if got := DropParameter(target, "api_key"); got != want {
			t.Errorf("of %s stays %s, want %s", target, got, want)
		}
	}
}

func TestUnescape(t *testing.T) {
	for s, want := range map[string]string{"": "", "a%41%4": "aA%4", "%zz%": "%zz%", "%2541": "%41"} {
		if got := Unescape(s, "%"); got != want {
			t.Errorf("%q becomes %q", s, got)
		}
	}
	if got := Unescape(`\u0041\u0100`, `\u00`); got != `A\u0100` {
		t.Errorf("%q", got)
	}
}
