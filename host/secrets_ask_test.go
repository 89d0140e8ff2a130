package main_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

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

// A .env file is shown before it is set, without any of its values, and a person says yes or no.
func TestEnvFileIsAsked(t *testing.T) {
	h := newHouse(t, "")
	h.write("a.env", "ANTHROPIC_API_KEY="+anthropicKey+"\nDATABASE_URL=postgresql://app@db/app\nSHORT='abc'\nPORT=3000\n")
	file := h.work + "/a.env"
	h.must("secrets", "set", "my-agent", "SHORT=old", "--host", "api.example.org")
	seen := ""
	for _, c := range []struct{ keys, says, ended string }{{"n", "nothing was set", "1"}, {"", "nothing was set", "1"}, {"C-c", "not answered", "1"}, {"y", "SHORT: set, version 2", "0"}} {
		p := h.openTerminal(140, 30, "", "secrets set my-agent --from-env-file "+file+" ANTHROPIC_API_KEY SHORT DATABASE_URL")
		p.until(`(?s)ANTHROPIC_API_KEY +new +x-api-key +api.anthropic.com +preset anthropic
DATABASE_URL +new +exposed +inside the VM +preset database-url
SHORT +new version 2 +bearer, weak +api.example.org +version before
Set these secrets\? \[y/N\]`)
		if n := len(h.listed("my-agent")); n != 1 {
			t.Fatalf("%d secrets before an answer", n)
		}
		if c.keys != "" {
			p.press(c.keys)
		}
		p.press("Enter")
		p.until(`(?s)` + c.says + `.*ended ` + c.ended)
		seen += p.everything()
	}
	got := h.listed("my-agent")
	if len(got) != 3 || got["ANTHROPIC_API_KEY"].Version != 1 || got["DATABASE_URL"].Expose != control.ExposeEnv || got["SHORT"].Version != 2 {
		t.Errorf("%+v", got)
	}
	if n := runsOf(anthropicKey[len("sk-ant-api03-"):], seen) + runsOf("app@db/app", seen); n > 0 {
		t.Errorf("%d runs of a value were on the screen", n)
	}
}

// S1: what is typed at the prompt is not on the screen, not while it is typed and not afterwards, nor what is corrected.
func TestMissionS1Prompt(t *testing.T) {
	h := newHouse(t, "")
	const value = "typed-made-up-0918273645fedcba"
	p := h.openTerminal(100, 30, "", "secrets set my-agent ACME_TOKEN --host api.acme.example")
	for _, question := range []string{`ACME_TOKEN \(not shown\):`, `ACME_TOKEN again:`} {
		p.until(question + `\s*$`)
		p.write("wrong" + value)
		p.press("C-u")
		p.write(value + "x")
		p.press("BSpace", "Enter")
	}
	p.until(`(?s)ACME_TOKEN: set, version 1, goes to api.acme.example as bearer.*ended 0`)
	if n := runsOf(value, p.everything()+p.written()); n > 0 {
		t.Errorf("%d runs of the value were on the screen", n)
	}
	p.write("shown-now") // the control: the terminal shows what is typed again
	p.until(`shown-now`)
	for deadline := time.Now().Add(patience); !strings.Contains(p.written(), "shown-now"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("what is shown is not kept")
		}
	}
}
