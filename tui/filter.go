package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
)

// A filter narrows a list to the rows that hold a text. It takes only characters with which some row still does, so
// it never shows what is not on the screen anyway.
type filter struct {
	text   string
	typing bool
	missed bool // the last character matched nothing
}

// key takes a key while the filter is typed.
func (f *filter) key(k tea.KeyPressMsg, matches func(string) bool) {
	switch k.String() {
	case "enter":
		f.typing = false
		return
	case "esc":
		f.typing, f.text, f.missed = false, "", false
		return
	}
	before := field{text: f.text}
	after := before
	after.key(k)
	f.missed = after.text != "" && !matches(after.text)
	if !f.missed {
		f.text = after.text
	}
}

// holds reports whether one of texts holds text, in any case.
func holds(text string, texts ...string) bool {
	if text == "" {
		return true
	}
	text = strings.ToLower(text)
	for _, t := range texts {
		if strings.Contains(strings.ToLower(t), text) {
			return true
		}
	}
	return false
}

// height is how many lines the filter takes.
func (f *filter) height() int {
	if f.typing || f.text != "" {
		return 1
	}
	return 0
}

// view is the filter's line; empty if it does nothing.
func (f *filter) view(s *styles, rows int) string {
	if f.height() == 0 {
		return ""
	}
	line := " " + s.accent.Render("/") + " " + cut(f.text, 60)
	if f.typing {
		line += s.accent.Render("_")
	}
	line += s.dim.Render("   " + plural(rows, "row"))
	if f.missed {
		line += s.warn.Render("   nothing holds that")
	}
	return line
}
