package control

import (
	"regexp"
	"strings"
	"testing"
)

func TestNames(t *testing.T) {
	agent := regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	key := regexp.MustCompile(`^[A-Z_][A-Z0-9_]{0,127}$`)
	names := []string{
		"", "a", "0", "-", "-a", "a-", "my-agent", "My-agent", "a_b", "a.b", "a/b", "..", "ä", "a\n", "a\x00", " a",
		"A", "_", "_1", "1A", "API_KEY", "API-KEY", "api_key", "A\n", "Ä", "A=B",
		strings.Repeat("a", 63), strings.Repeat("a", 64), strings.Repeat("A", 128), strings.Repeat("A", 129),
	}
	for _, s := range names {
		// $ in Go matches at the end of the text alone, so "a\n" is no match.
		if got, want := ValidAgent(s), agent.MatchString(s); got != want {
			t.Errorf("ValidAgent(%q) = %v", s, got)
		}
		if got, want := ValidKey(s), key.MatchString(s); got != want {
			t.Errorf("ValidKey(%q) = %v", s, got)
		}
	}
}
