package manual

import (
	"embed"
	"fmt"
	"strconv"
	"strings"
)

//go:embed topic/*.txt
var topicFiles embed.FS

// A Topic is a page that is about no command.
type Topic struct {
	Name    string // "torno.toml"
	Section int
	Summary string
	Text    string // for "torno help", as it stands
}

// Topics returns every topic, by name. They are part of the program, so that a wrong one is our mistake: it panics.
func Topics() []Topic {
	entries, err := topicFiles.ReadDir("topic")
	if err != nil {
		panic(err)
	}
	var out []Topic
	for _, e := range entries {
		b, err := topicFiles.ReadFile("topic/" + e.Name())
		if err != nil {
			panic(err)
		}
		name := strings.TrimSuffix(e.Name(), ".txt")
		dot := strings.LastIndexByte(name, '.')
		section, err := strconv.Atoi(name[dot+1:])
		if err != nil {
			panic(err)
		}
		summary, text, _ := strings.Cut(string(b), "\n")
		out = append(out, Topic{Name: name[:dot], Section: section, Summary: summary, Text: strings.TrimSpace(text)})
	}
	return out
}

// Page returns the topic as a manual page.
func (t Topic) Page() Page {
	return Page{Name: t.Name, Section: t.Section, Summary: t.Summary, parts: sections(t.Text)}
}

// topicNames returns the topics as SEE ALSO names them.
func topicNames() []string {
	var out []string
	for _, t := range Topics() {
		out = append(out, fmt.Sprintf("%s(%d)", t.Name, t.Section))
	}
	return out
}
