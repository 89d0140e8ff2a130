package torno_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// link is a link of Markdown to a place in the repository.
var link = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)\s]*)?\)`)

// heading is one of Markdown, whose name links can have.
var heading = regexp.MustCompile(`(?m)^#+ (.*)$`)

// TestDocsLinks follows every link from one page to another, and to a heading there.
func TestDocsLinks(t *testing.T) {
	pages := []string{"README.md", "SECURITY.md", "CHANGELOG.md", "images/README.md", "protocol/SPEC.md"}
	err := filepath.WalkDir("docs", func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			pages = append(pages, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	links := 0
	for _, page := range pages {
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			target := filepath.Join(filepath.Dir(page), m[1])
			switch {
			case strings.Contains(m[1], ":"): // elsewhere
				continue
			case m[1] == "":
				target = page
			}
			links++
			text, err := os.ReadFile(target)
			if info, statErr := os.Stat(target); statErr == nil && info.IsDir() {
				continue
			}
			if err != nil {
				t.Errorf("%s: %s leads nowhere", page, m[0])
			} else if m[2] != "" && !hasAnchor(string(text), m[2][1:]) {
				t.Errorf("%s: %s: no such heading", page, m[0])
			}
		}
	}
	if links < 100 {
		t.Errorf("only %d links found", links)
	}
}

// hasAnchor reports whether a page has a heading that is linked to so.
func hasAnchor(text, anchor string) bool {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		name := regexp.MustCompile(`[^\p{L}\p{N}_ -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(name, " ", "-") == anchor {
			return true
		}
	}
	return false
}

// TestArchitecture has every package that docs/architecture.md draws, and draws those of guest and host.
func TestArchitecture(t *testing.T) {
	b, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	for _, room := range []string{"protocol", "guest/internal", "host/internal", "broker/internal"} {
		entries, err := os.ReadDir(room)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			drawn := regexp.MustCompile(`\b` + e.Name() + `\b`).MatchString(page)
			if e.IsDir() && !drawn && (room == "host/internal" || room == "guest/internal") && !strings.HasSuffix(e.Name(), "test") {
				t.Errorf("docs/architecture.md lacks %s/%s", room, e.Name())
			}
		}
	}
	for _, name := range regexp.MustCompile(`(?m)\|      (\w+)  `).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("host/internal", name[1])); err != nil {
			t.Errorf("docs/architecture.md draws host/%s, which is not there", name[1])
		}
	}
	for _, name := range regexp.MustCompile(`(?m)^     (\w+) .*\|`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("guest/internal", name[1])); err != nil {
			t.Errorf("docs/architecture.md draws guest/%s, which is not there", name[1])
		}
	}
	for _, name := range regexp.MustCompile(`(?m) {5,}(session|policy|credential|sign|mint|upstream|redact|audit|store|keyring) +\S`).FindAllStringSubmatch(page, -1) {
		if _, err := os.Stat(filepath.Join("broker/internal", name[1])); err != nil {
			t.Errorf("docs/architecture.md draws broker/%s, which is not there", name[1])
		}
	}
}
