package tui

import (
	"strings"

	"charm.land/bubbles/v2/viewport"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"torno.internal/protocol/control"
)

// A fact is one line of a sheet: a name and what is known. Without a name it is a heading.
type fact struct {
	name, value string
	mood        mood
}

// A sheet shows all about one thing, and scrolls.
type sheet struct{ port viewport.Model }

func newSheet() sheet { return sheet{viewport.New()} }

// view draws facts, escaped and wrapped. Facts without a value are left out.
func (h *sheet) view(s *styles, facts []fact, width, height int) string {
	h.port.SetWidth(width)
	h.port.SetHeight(height)
	h.port.SetContent(strings.Join(drawFacts(s, facts, width), "\n"))
	return h.port.View()
}

func (h *sheet) update(msg tea.Msg) {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		switch msg.String() {
		case "home", "g":
			h.port.GotoTop()
			return
		case "end", "G":
			h.port.GotoBottom()
			return
		}
	case tea.MouseWheelMsg:
	default:
		return
	}
	h.port, _ = h.port.Update(msg)
}

// drawFacts aligns values behind the longest name.
func drawFacts(s *styles, facts []fact, width int) []string {
	indent := 0
	for _, f := range facts {
		if f.value != "" {
			indent = max(indent, len(f.name)+2)
		}
	}
	var lines []string
	for _, f := range facts {
		switch {
		case f.name == "" && f.value == "":
			lines = append(lines, "")
			continue
		case f.name == "":
			for _, l := range wrap(f.value, width) {
				lines = append(lines, s.of(f.mood).Render(l))
			}
			continue
		case f.value == "":
			continue
		}
		name := s.dim.Render(fit(f.name, indent, false))
		for _, l := range wrap(f.value, max(8, width-indent)) {
			lines = append(lines, name+s.of(f.mood).Render(l))
			name = strings.Repeat(" ", indent)
		}
	}
	return lines
}

// wrap escapes text, whose lines stay lines, and breaks it at width.
func wrap(text string, width int) []string {
	var lines []string
	for _, l := range strings.Split(text, "\n") {
		l = ansi.Wrap(control.Escape(l), max(1, width), "/?&")
		lines = append(lines, strings.Split(ansi.Hardwrap(l, max(1, width), true), "\n")...) // what has no place to break
	}
	return lines
}
