package config

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

// TestLimits reads the same limits in both files.
func TestLimits(t *testing.T) {
	const text = `requests_per_second = 5
burst = 20
concurrent = 8
mib_up_per_hour = 64
mib_down_per_hour = 1024
idle_seconds = 1800
total_seconds = 28800
`
	const rules = `match = "POST api.example.com"
requests_per_second = 0.1
`
	want := control.AgentLimits{
		Bounds:      control.Bounds{RequestsPerSecond: 5, Burst: 20, Concurrent: 8, MiBUpPerHour: 64, MiBDownPerHour: 1024},
		IdleSeconds: 1800, TotalSeconds: 28800,
		Rules: []control.RuleLimits{{Rule: "POST api.example.com", Bounds: control.Bounds{RequestsPerSecond: 0.1}}},
	}
	agent, err := ParseAgent("torno.toml", []byte("name = \"a\"\n[limits]\n"+text+"[[limits.rule]]\n"+rules))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, agent.Limits); diff != "" {
		t.Errorf("torno.toml (-want +got):\n%s", diff)
	}
	broker, err := ParseBroker("broker.toml", []byte("[agents.a.limits]\n"+text+"[[agents.a.limits.rule]]\n"+rules))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, broker.Agents["a"].Limits); diff != "" {
		t.Errorf("broker.toml (-want +got):\n%s", diff)
	}
	for bad, message := range map[string]string{
		"[limits]\nrequests_per_second = 0\n":                "limits.requests_per_second is 0, not from 1e-05 to 1048576",
		"[limits]\nrequests_per_second = nan\n":              "limits.requests_per_second is NaN",
		"[limits]\nrequests_per_second = \"5\"\n":            "limits.requests_per_second must be a number",
		"[limits]\nburst = 5\n":                              "burst is of requests_per_second, and there is none",
		"[limits]\nidle_secs = 5\n":                          `unknown key "limits.idle_secs" (did you mean "limits.idle_seconds"?)`,
		"[[limits.rule]]\nconcurrent = 5\n":                  "limits.rule without match",
		"[[limits.rule]]\nmatch = \"a.example\"\n":           "limits.rule bounds nothing",
		"[limits.rule]\nmatch = \"a.example\"\n":             "array of tables",
		"[limits]\nmib_up_per_hour = -1\n":                   "limits.mib_up_per_hour is -1",
		"[[limits.rule]]\nmatch = \"x\"\nidle_seconds = 5\n": "unknown key",
	} {
		if _, err := ParseAgent("torno.toml", []byte("name = \"a\"\n"+bad)); err == nil || !strings.Contains(err.Error(), message) {
			t.Errorf("%q: %v, want %q", bad, err, message)
		}
	}
}

// TestRulesPage reads every block of TOML in the page about rules, by the file that its first line names.
func TestRulesPage(t *testing.T) {
	b, err := os.ReadFile("../../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(b, -1)
	if len(blocks) < 3 {
		t.Errorf("%d blocks", len(blocks))
	}
	for i, block := range blocks {
		if strings.HasPrefix(string(block[1]), "# broker.toml") {
			_, err = ParseBroker("broker.toml", block[1])
		} else {
			_, err = ParseAgent("torno.toml", append([]byte("name = \"a\"\n"), block[1]...))
		}
		if err != nil {
			t.Errorf("block %d: %v", i+1, err)
		}
	}
}
