package policy

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// examples returns the lines of the code blocks of docs/rules.md in the given language, each split
// where two spaces or more stand.
func examples(t *testing.T, language string) [][]string {
	t.Helper()
	page, err := os.ReadFile("../../../docs/rules.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines [][]string
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(string(page), -1) {
		for line := range strings.Lines(block[1]) {
			lines = append(lines, regexp.MustCompile(` {2,}`).Split(strings.TrimSpace(line), -1))
		}
	}
	if len(lines) == 0 {
		t.Fatalf("docs/rules.md has no %s examples", language)
	}
	return lines
}

func TestDocumentedRules(t *testing.T) {
	for _, e := range examples(t, "rules") {
		if len(e) != 3 {
			t.Fatalf("example %q is not a rule, yes or no, and a request", e)
		}
		p := compile(t, control.Egress{Allow: []string{e[0]}}, nil)
		if got := decide(t, p, e[2]); (got.Verdict == Allow) != (e[1] == "yes") {
			t.Errorf("%q on %q: %+v, the page says %s", e[0], e[2], got, e[1])
		}
	}
}

func TestDocumentedErrors(t *testing.T) {
	for _, e := range examples(t, "errors") {
		if r, err := ParseRule(e[0]); err == nil {
			t.Errorf("%q parses as %q; the page calls it an error", e[0], r)
		}
	}
}
