package control

import (
	"strings"
	"testing"
)

func TestParseSource(t *testing.T) {
	for source, want := range map[string][2]string{
		"vault:secret/data/app#key": {"vault", "secret/data/app#key"},
		"op:op://vault/item/field":  {"op", "op://vault/item/field"},
		"a:b":                       {"a", "b"},
		"kms-2:alias/x y":           {"kms-2", "alias/x y"},
	} {
		plugin, ref, err := ParseSource(source)
		if err != nil || plugin != want[0] || ref != want[1] {
			t.Errorf("%q: %q, %q, %v", source, plugin, ref, err)
		}
	}
	for _, bad := range []string{
		"", "vault", "vault:", ":x", "Vault:x", "2a:x", "-a:x", "a_b:x", "a: x", "a:x ", "a:x\n", "a:ä", "a:\x00",
		strings.Repeat("a", MaxPluginName+1) + ":x", "a:" + strings.Repeat("x", MaxSource),
	} {
		if plugin, ref, err := ParseSource(bad); err == nil || plugin+ref != "" {
			t.Errorf("%q passes: %q, %q", bad, plugin, ref)
		}
	}
}

func FuzzParseSource(f *testing.F) {
	f.Add("vault:secret/data/app#key")
	f.Fuzz(func(t *testing.T, s string) {
		plugin, ref, err := ParseSource(s)
		switch {
		case err != nil && plugin+ref != "":
			t.Errorf("%q, %q beside an error", plugin, ref)
		case err == nil && plugin+":"+ref != s:
			t.Errorf("%q becomes %q, %q", s, plugin, ref)
		}
	})
}

func TestCheckSealed(t *testing.T) {
	m := Meta{Agent: "a", Name: "K", Version: 1, Audience: []string{"https://x.example"}, Inject: Injector{Scheme: SchemeBearer}, Source: "vault:x"}
	if err := CheckMeta(m); err != nil {
		t.Error(err)
	}
	if err := CheckSealed(m, []byte("vault:x")); err != nil {
		t.Error(err)
	}
	if CheckSealed(m, []byte("vault:y")) == nil || CheckSealed(m, nil) == nil {
		t.Error("another place passes")
	}
	for _, change := range []func(*Meta){
		func(m *Meta) { m.Source = "nowhere" },
		func(m *Meta) { m.Weak = true },
		func(m *Meta) {
			m.Inject = Injector{Scheme: SchemeRefresh, Params: []Param{{"id", "i"}, {"token", "https://id.example/t"}}}
		},
	} {
		bad := m
		change(&bad)
		if CheckMeta(bad) == nil {
			t.Errorf("%+v passes", bad)
		}
	}
	m.Source = ""
	if CheckSealed(m, []byte("a b")) == nil || CheckSealed(m, []byte("ab")) != nil {
		t.Error("a value that is kept here is not checked")
	}
}
