package main_test

import (
	"encoding/json"
	"slices"
	"testing"

	"torno.internal/protocol/control"
)

// listed are an agent's secrets, by name.
func (h *house) listed(agent string) map[string]control.SecretInfo {
	h.t.Helper()
	var infos []control.SecretInfo
	if err := json.Unmarshal([]byte(h.must("secrets", "list", agent, "--json")), &infos); err != nil {
		h.t.Fatal(err)
	}
	all := map[string]control.SecretInfo{}
	for _, i := range infos {
		all[i.Name] = i
	}
	return all
}

// The host that a person names is for the one secret that they were asked about.
func TestAskedHostIsForOne(t *testing.T) {
	h := newHouse(t, "")
	p := h.openTerminal(120, 30, "", "secrets set my-agent ONE_TOKEN=one-made-up-0123456789 ANTHROPIC_API_KEY="+anthropicKey+" TWO_TOKEN=two-made-up-0123456789")
	p.until(`Host that ONE_TOKEN may be sent to`)
	p.write("one.example.org")
	p.press("Enter")
	p.until(`Host that TWO_TOKEN may be sent to`)
	p.write("two.example.org")
	p.press("Enter")
	p.until(`ended 0`)
	got := h.listed("my-agent")
	for name, want := range map[string]string{
		"ONE_TOKEN": "https://one.example.org", "ANTHROPIC_API_KEY": "https://api.anthropic.com", "TWO_TOKEN": "https://two.example.org",
	} {
		if !slices.Equal(got[name].Audience, []string{want}) {
			t.Errorf("%s goes to %q, want %s", name, got[name].Audience, want)
		}
	}
}
