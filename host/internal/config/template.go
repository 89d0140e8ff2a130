package config

import (
	"fmt"
	"strings"
)

// A Draft is what an agent file is to say, and why. What is off stands there as a comment.
type Draft struct {
	Agent   string
	Secrets []DraftSecret
	Allow   []DraftRule
	Notes   []string // about the workload
}

// A DraftSecret is a secret of a Draft.
type DraftSecret struct {
	Key         string
	Why         string
	Placeholder bool // its packages refuse to start without a key
	Off         bool
}

// A DraftRule is a rule of a Draft's list allow.
type DraftRule struct {
	Rule string
	Why  string
	Off  bool
}

// Template returns the commented agent file that torno init writes. Every line that it has from elsewhere says why.
func Template(d Draft) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, `# What the agent %[1]q may use and reach. This file may only narrow what its secrets are sealed with.
# It takes effect once it is approved:  torno trust
name = %[1]q

# The secrets to use. Where each may be sent was sealed when it was set; those hosts need no rule below.
`, d.Agent)
	writeSecrets(&b, d)
	b.WriteString("\n[workload]\n")
	for _, n := range d.Notes {
		b.WriteString("# " + EscapeControl(n) + "\n")
	}
	b.WriteString(`user = "agent" # or "root", for apt and docker inside the VM

[egress]
default = "deny" # or "allow": every public host
# Rules: [METHODS ][http://]host[:port][/path], "*" within a segment, "**" any rest.
# Try one:  torno policy check ` + d.Agent + ` GET https://www.example.org/
allow = [
`)
	for _, r := range d.Allow {
		writeElement(&b, r.Rule, r.Why, r.Off)
	}
	if len(d.Allow) == 0 {
		b.WriteString("  # \"GET *.example.org\",\n  # \"github.com/*/*/git-upload-pack\", \"GET github.com/*/*/info/refs\", # git clone\n")
	}
	b.WriteString("]\ndeny = []\n")
	return []byte(b.String())
}

func writeSecrets(b *strings.Builder, d Draft) {
	if len(d.Secrets) == 0 {
		b.WriteString("# Set one first:  torno secrets set " + d.Agent + " ANTHROPIC_API_KEY\nsecrets = []\n")
		return
	}
	b.WriteString("secrets = [\n")
	for _, s := range d.Secrets {
		writeElement(b, s.Key, s.Why, s.Off)
	}
	b.WriteString("]\n")
	for _, s := range d.Secrets {
		if s.Placeholder && !s.Off {
			fmt.Fprintf(b, "\n[secret.%s]\nplaceholder = true%s\n", s.Key,
				comment("its packages refuse to start without a key; this one is worth nothing"))
		}
	}
}

// writeElement writes one line of an array.
func writeElement(b *strings.Builder, value, why string, off bool) {
	sign := ""
	if off {
		sign = "# "
	}
	fmt.Fprintf(b, "  %s%q,%s\n", sign, value, comment(why))
}

// comment returns text as the comment at a line's end.
func comment(text string) string {
	if text == "" {
		return ""
	}
	return " # " + EscapeControl(text)
}
