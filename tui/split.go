package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"
)

// besides is the width from which on details stand beside a list, and not in its place.
const besides = 120

// A split is a list and all about the row that is chosen in it: beside it where the screen is wide, else in its
// place while it is open. What is open has the keys.
type split struct {
	list   list
	sheet  sheet
	filter filter
	open   bool
	of     string // the row that the sheet was drawn of
	wide   bool
	width  int // of the list
}

func newSplit() split { return split{sheet: newSheet()} }

// update takes keys and the mouse, and reports whether they were for it.
func (p *split) update(msg tea.Msg, keys []string, matches func(string) bool) bool {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		if p.filter.typing {
			p.filter.key(msg, matches)
			return true
		}
		switch msg.String() {
		case "enter":
			p.open = len(keys) > 0
			return true
		case "esc":
			if !p.open {
				p.filter.text = ""
			}
			p.open = false
			return true
		case "/":
			if len(keys) > 0 {
				p.filter.typing, p.open = true, false
			}
			return true
		}
		if p.open {
			if msg.Text != "" && !strings.Contains("jkgG ", msg.Text) {
				return false // what may be done with the chosen one
			}
			p.sheet.update(msg)
			return true
		}
	case tea.MouseWheelMsg:
		if p.open && !p.wide || p.wide && msg.X > p.width {
			p.sheet.update(msg)
			return true
		}
	case tea.MouseClickMsg:
		if p.open && !p.wide || p.wide && msg.X > p.width {
			p.open = true
			return true
		}
	}
	return p.list.update(msg, keys, 1)
}

// view draws the list, and facts, which are asked for the chosen row.
func (p *split) view(s *styles, columns []column, rows []row, facts func(key string) []fact, width, height int) string {
	p.wide, p.width = width >= besides, width
	if p.wide {
		p.width = width * 3 / 5
	}
	height -= p.filter.height()
	left := p.list.view(s, columns, rows, p.width, height)
	if p.of != p.list.chosen {
		p.of = p.list.chosen
		p.sheet.port.GotoTop()
	}
	if len(rows) == 0 {
		p.open = false
	}
	switch {
	case p.wide && len(rows) > 0:
		left = p.beside(s, left, facts(p.list.chosen), width, height)
	case p.open:
		left = " " + strings.ReplaceAll(p.sheet.view(s, facts(p.list.chosen), width-2, height), "\n", "\n ")
	}
	if line := p.filter.view(s, len(rows)); line != "" {
		left = strings.Join(append(block(left, width, height), line), "\n")
	}
	return left
}

// beside puts the sheet to the right of the list.
func (p *split) beside(s *styles, left string, facts []fact, width, height int) string {
	bar, style := "│", s.faint
	if p.open {
		style = s.accent
	}
	if s.plain {
		bar = " "
	}
	lines := block(left, p.width, height)
	for i, l := range lines {
		lines[i] = l + strings.Repeat(" ", max(0, p.width-ansi.StringWidth(l))) + " " + style.Render(bar) + " "
	}
	right := p.sheet.view(s, facts, width-p.width-4, height)
	return lipgloss.JoinHorizontal(lipgloss.Top, strings.Join(lines, "\n"), right)
}
