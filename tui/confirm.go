package tui

import (
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
)

// A confirm asks a person to type a word before something is done that can't be undone. It takes the word's own
// characters alone, so it shows nothing else.
type confirm struct {
	title, text string
	want        string
	typed       string
	cmd         tea.Cmd // what is done then
}

func (*confirm) keys() []key.Binding {
	return []key.Binding{hint("enter", "do it"), hint("esc", "leave it")}
}

// key takes a key. left means that the question is over.
func (c *confirm) key(k tea.KeyPressMsg) (cmd tea.Cmd, left bool) {
	switch k.String() {
	case "esc":
		return nil, true
	case "enter":
		if c.typed == c.want {
			return c.cmd, true
		}
	case "backspace", "ctrl+h":
		c.typed = c.typed[:max(0, len(c.typed)-1)]
	default:
		if k.Text != "" && strings.HasPrefix(c.want, c.typed+k.Text) {
			c.typed += k.Text
		}
	}
	return nil, false
}

func (c *confirm) view(s *styles, width, height int) string {
	lines := []string{s.bad.Bold(true).Render(cut(c.title, width-8)), ""}
	lines = append(lines, wrap(c.text, min(64, width-8))...)
	lines = append(lines, "", s.dim.Render("type ")+s.title.Render(cut(c.want, width-24))+s.dim.Render(" to go on:"),
		"", s.accent.Render("> ")+cut(c.typed, width-12)+s.accent.Render("_"))
	return centred(strings.Join(lines, "\n"), width, height)
}
