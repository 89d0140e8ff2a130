package broker

import (
	"errors"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol/control"
	"torno.internal/protocol/seal"
)

// elsewhere seals a secret as another machine does, to the broker's public key.
func (d *desk) elsewhere(agent, name, value string, change func(*control.Meta)) control.SealedSecret {
	d.t.Helper()
	var pk control.PublicKey
	d.must(d.call("GET", control.PathPublicKey, nil, &pk))
	key, err := seal.ParsePublicKey(pk.Key)
	d.must(err)
	m := control.Meta{Agent: agent, Name: name, Audience: []string{"https://example.com"}, Inject: control.Injector{Scheme: control.SchemeBearer}, Created: time.Now()}
	if change != nil {
		change(&m)
	}
	b, err := key.Seal([]byte(value), control.AssociatedData(m, pk.ID))
	d.must(err)
	return control.SealedSecret{Meta: m, KeyID: pk.ID, Sealed: b}
}

func (d *desk) importing(agent string, secrets ...control.SealedSecret) error {
	return d.call("POST", control.PathImport, control.Import{Agent: agent, Secrets: secrets}, nil)
}

// value is what a secret opens to in the broker.
func (d *desk) value(agent, name string) string {
	d.t.Helper()
	v, err := d.broker.store.Unseal(agent, name, 0)
	d.must(err)
	return string(v.AppendTo(nil))
}

// What was sealed elsewhere becomes the next version, and is opened like any other.
func TestImport(t *testing.T) {
	d := newDesk(t, nil)
	d.must(d.set("a", "K", testKey, 1))
	d.must(d.importing("a", d.elsewhere("a", "K", testKey+"2", nil), d.elsewhere("a", "L", testKey+"3", nil)))
	if got := d.value("a", "K") + d.value("a", "L"); got != testKey+"2"+testKey+"3" {
		t.Errorf("values %q", got)
	}
	var infos []control.SecretInfo
	d.must(d.call("GET", control.PathSecrets+"?agent=a", nil, &infos))
	if len(infos) != 2 || infos[0].Version != 2 || infos[1].Version != 1 || infos[0].Weak {
		t.Errorf("%+v", infos)
	}
	d.must(d.importing("", d.elsewhere("a", "K", "abc123", nil)))
	d.must(d.call("GET", control.PathSecrets+"?agent=a", nil, &infos))
	if !infos[0].Weak {
		t.Error("a weak value is not marked: who sealed it says what it likes")
	}
}

// Everything that is not what was sealed, or is older than what is here, is refused by name, and nothing of the
// same import is stored.
func TestImportRefuses(t *testing.T) {
	d := newDesk(t, nil)
	first := d.elsewhere("a", "K", testKey, nil)
	d.must(d.importing("", first))
	other := newDesk(t, nil)
	change := func(f func(*control.SealedSecret)) control.SealedSecret {
		s := d.elsewhere("a", "K", testKey, nil)
		f(&s)
		return s
	}
	deleted := d.elsewhere("a", "D", testKey, nil)
	d.must(d.importing("", deleted))
	d.must(d.call("DELETE", control.PathSecrets+"?agent=a&name=D", nil, nil))
	for name, c := range map[string]struct {
		agent string
		s     control.SealedSecret
		want  string
	}{
		"again":               {"", first, "imported before"},
		"after its deletion":  {"", deleted, "imported before"},
		"older":               {"", d.elsewhere("a", "K", testKey, func(m *control.Meta) { m.Created = m.Created.Add(-time.Hour) }), "imported before"},
		"from the future":     {"", d.elsewhere("a", "K", testKey, func(m *control.Meta) { m.Created = m.Created.Add(time.Hour) }), "has not come yet"},
		"another agent's":     {"b", d.elsewhere("a", "K", testKey, nil), `not for "b"`},
		"agent changed":       {"", change(func(s *control.SealedSecret) { s.Meta.Agent = "b" }), `of agent "b": it does not open`},
		"name changed":        {"", change(func(s *control.SealedSecret) { s.Meta.Name = "L" }), `secret "L"`},
		"audience changed":    {"", change(func(s *control.SealedSecret) { s.Meta.Audience = []string{"https://evil.example"} }), "does not open"},
		"time changed":        {"", change(func(s *control.SealedSecret) { s.Meta.Created = s.Meta.Created.Add(time.Second) }), "does not open"},
		"exposed":             {"", change(func(s *control.SealedSecret) { s.Meta.Expose = control.ExposeEnv }), "exposed"},
		"rotation changed":    {"", change(func(s *control.SealedSecret) { s.Meta.Rotation = control.RotationFollow }), "does not open"},
		"another version":     {"", d.elsewhere("a", "K", testKey, func(m *control.Meta) { m.Version = 7 }), "version 7, the next one is 2"},
		"another broker's":    {"", other.elsewhere("a", "K", testKey, nil), "sealed to another key"},
		"key id changed":      {"", change(func(s *control.SealedSecret) { s.KeyID = "0123456789abcdef" }), "sealed to another key"},
		"cut":                 {"", change(func(s *control.SealedSecret) { s.Sealed = s.Sealed[:40] }), "does not open"},
		"a value not for use": {"", d.elsewhere("a", "K", "a\nb", nil), "line break"},
		"no agent":            {"", d.elsewhere("A B", "K", testKey, nil), "agent"},
	} {
		good := d.elsewhere("a", "GOOD", testKey, nil)
		err := d.importing(c.agent, good, c.s)
		if c.agent != "" {
			err = d.importing(c.agent, c.s)
		}
		var refused *control.Error
		if !errors.As(err, &refused) || !strings.Contains(refused.Message, c.want) || strings.Contains(refused.Message, testKey) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if version, _, err := d.broker.store.Last("a", "GOOD"); err != nil || version != 0 {
			t.Fatalf("%s: the other one was stored", name)
		}
	}
	twice := d.elsewhere("a", "T", testKey, nil)
	if err := d.importing("", twice, twice); err == nil {
		t.Error("the same twice in one import")
	}
	d.must(d.importing("a", d.elsewhere("a", "K", testKey+"new", nil)))
	if got := d.value("a", "K"); got != testKey+"new" {
		t.Errorf("the control: %q", got)
	}
}
