package config

import (
	"fmt"
	"strings"

	"torno.internal/protocol/control"
)

// Template returns the commented agent file that torno init writes for agent. It declares the first
// of each preset's Keys, and asks for a placeholder where the service's own packages refuse to start
// without a key.
func Template(agent string, presets ...control.Preset) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `# What the agent %[1]q may use and reach. This file may only narrow what its secrets are sealed with.
# It takes effect once it is approved:  torno trust
name = %[1]q

# The secrets to use. Where each may be sent was sealed when it was set; those hosts need no rule below.
`, agent)
	if len(presets) == 0 {
		b.WriteString("# Set one first:  torno secrets set " + agent + " ANTHROPIC_API_KEY\nsecrets = []\n")
	} else {
		b.WriteString("secrets = [\n")
		for _, p := range presets {
			fmt.Fprintf(&b, "  %q,%s\n", p.Keys[0], comment(p.Service))
		}
		b.WriteString("]\n")
	}
	for _, p := range presets {
		if p.SDKNeedsKey && p.Expose == control.ExposeNone {
			fmt.Fprintf(&b, "\n[secret.%s]\nplaceholder = true%s\n", p.Keys[0],
				comment("its packages refuse to start without a key; this one is worth nothing"))
		}
	}
	b.WriteString(`
[workload]
user = "agent" # or "root", for apt and docker inside the VM

[egress]
default = "deny" # or "allow": every public host
# Rules: [METHODS ][http://]host[:port][/path], "*" within a segment, "**" any rest.
# Try one:  torno policy check ` + agent + ` GET https://www.example.org/
allow = [
  # "GET *.example.org",
  # "github.com/*/*/git-upload-pack", "GET github.com/*/*/info/refs", # git clone
]
deny = []
`)
	return []byte(b.String())
}

// comment returns text as the comment at a line's end.
func comment(text string) string {
	if text == "" {
		return ""
	}
	return " # " + EscapeControl(text)
}
