package cli

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestDocsCommands reads every torno command in the shell blocks of the pages for people: it is there, and so are its flags.
func TestDocsCommands(t *testing.T) {
	blocks := regexp.MustCompile("(?s)```sh\n(.*?)```")
	for _, page := range []string{"../../../README.md", "../../../docs/rules.md"} {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for _, block := range blocks.FindAllSubmatch(b, -1) {
			for line := range strings.Lines(string(block[1])) {
				command, _, _ := strings.Cut(line, " #")
				command, _, _ = strings.Cut(command, " | ")
				words := strings.Fields(command)
				if len(words) < 2 || words[0] != "torno" {
					continue
				}
				found++
				cmd, rest, err := newRoot("test").Find(words[1:])
				if err != nil || !cmd.Runnable() || cmd.HasSubCommands() {
					t.Errorf("%s: %s: no such command: %v", page, command, err)
					continue
				}
				if err := cmd.ParseFlags(rest); err != nil {
					t.Errorf("%s: %s: %v", page, command, err)
				}
			}
		}
		if found == 0 {
			t.Errorf("%s has no command", page)
		}
	}
}
