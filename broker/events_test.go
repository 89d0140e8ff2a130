package broker

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// Every event that the broker records is described.
func TestEventsDescribed(t *testing.T) {
	page, err := os.ReadFile("../docs/audit.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("events.go")
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.ReadFile("internal/store/secrets.go")
	if err != nil {
		t.Fatal(err)
	}
	events := regexp.MustCompile(`(?m)^\t[eE]vent\w+ += "(\w+)"`).FindAllSubmatch(append(source, more...), -1)
	if len(events) < 10 {
		t.Fatalf("%d events found", len(events))
	}
	for _, e := range events {
		if !strings.Contains(string(page), "`"+string(e[1])+"`") {
			t.Errorf("docs/audit.md lacks event %s", e[1])
		}
	}
}
