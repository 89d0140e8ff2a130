package tui

import (
	"strings"

	tea "charm.land/bubbletea/v2"

	"charm.land/lipgloss/v2"
)

// A column of a list. Columns with a share get what fixed ones leave; where room is short those with the highest
// drop go first.
type column struct {
	title string
	width int // columns of the screen; with a share at least these
	share int // of the room that is left
	right bool
	drop  int // 0: stays
}

// A cell is text of the outside world, or ours; a list escapes both.
type cell struct {
	text string
	mood mood
}

// A row is one line of a list. Its key tells it from others while the list changes.
type row struct {
	key   string
	cells []cell
}

// A list shows rows, of which one is chosen. The choice stays with its row's key when rows come and go.
type list struct {
	chosen string
	index  int // of the chosen row, when last seen
	top    int
	height int  // rows that the last view had room for
	live   bool // while the first row is chosen, whatever comes first is
}

// sync finds the chosen row again. It returns its index, -1 if there are no rows.
func (l *list) sync(keys []string) int {
	if len(keys) == 0 {
		l.index, l.top = 0, 0
		return -1
	}
	if l.live && l.index == 0 {
		l.chosen = keys[0]
	}
	found := false
	for i, k := range keys {
		if k == l.chosen {
			l.index, found = i, true
			break
		}
	}
	if !found {
		l.index = min(max(l.index, 0), len(keys)-1)
		l.chosen = keys[l.index]
	}
	return l.index
}

// move chooses the row n further on.
func (l *list) move(keys []string, n int) {
	if l.sync(keys) < 0 {
		return
	}
	l.index = min(max(l.index+n, 0), len(keys)-1)
	l.chosen = keys[l.index]
}

// update takes a key or the mouse, and reports whether it was for the list. y is where the first row stands.
func (l *list) update(msg tea.Msg, keys []string, y int) bool {
	switch msg := msg.(type) {
	case tea.KeyPressMsg:
		return l.key(msg.String(), keys)
	case tea.MouseWheelMsg:
		step := 3
		if msg.Button == tea.MouseWheelUp {
			step = -step
		}
		l.move(keys, step)
		return true
	case tea.MouseClickMsg:
		if i := l.top + msg.Y - y; msg.Button == tea.MouseLeft && msg.Y >= y && i < len(keys) && msg.Y-y < l.height {
			l.index, l.chosen = i, keys[i]
			return true
		}
	}
	return false
}

func (l *list) key(k string, keys []string) bool {
	page := max(1, l.height-1)
	steps := map[string]int{
		"down": 1, "j": 1, "up": -1, "k": -1, "pgdown": page, "ctrl+f": page, "space": page, "pgup": -page, "ctrl+b": -page,
		"ctrl+d": (page + 1) / 2, "ctrl+u": -(page + 1) / 2, "home": -len(keys), "g": -len(keys), "end": len(keys), "G": len(keys),
	}
	n, ok := steps[k]
	if ok {
		l.move(keys, n)
	}
	return ok
}

// view draws a heading and as many rows as fit.
func (l *list) view(s *styles, columns []column, rows []row, width, height int) string {
	keys := make([]string, len(rows))
	for i := range rows {
		keys[i] = rows[i].key
	}
	at := l.sync(keys)
	l.height = max(1, height-1)
	l.top = min(max(l.top, at-l.height+1, 0), max(0, at))
	l.top = min(l.top, max(0, len(rows)-l.height))
	widths := share(columns, width-2)
	lines := []string{l.heading(s, columns, widths)}
	for i := l.top; i < min(len(rows), l.top+l.height); i++ {
		lines = append(lines, drawRow(s, columns, widths, rows[i].cells, i == at, width))
	}
	return strings.Join(lines, "\n")
}

func (l *list) heading(s *styles, columns []column, widths []int) string {
	var b strings.Builder
	b.WriteString("  ")
	first := true
	for i, c := range columns {
		if widths[i] == 0 {
			continue
		}
		if !first {
			b.WriteString("  ")
		}
		first = false
		b.WriteString(s.dim.Render(fit(c.title, widths[i], c.right)))
	}
	return b.String()
}

func drawRow(s *styles, columns []column, widths []int, cells []cell, chosen bool, width int) string {
	under := lipgloss.NewStyle()
	if chosen {
		under = s.chosen
	}
	var b strings.Builder
	used := 0
	for i, c := range columns {
		if widths[i] == 0 {
			continue
		}
		if used > 0 {
			b.WriteString(under.Render("  "))
			used += 2
		}
		text, m := "", moodText
		if i < len(cells) {
			text, m = cells[i].text, cells[i].mood
		}
		b.WriteString(s.of(m).Inherit(under).Render(fit(text, widths[i], c.right)))
		used += widths[i]
	}
	if rest := width - 2 - used; chosen && rest > 0 {
		b.WriteString(under.Render(strings.Repeat(" ", rest)))
	}
	return s.mark(chosen) + b.String()
}

// share distributes width over the columns, two apart. A column that is dropped gets 0.
func share(columns []column, width int) []int {
	widths := make([]int, len(columns))
	for limit := maxDrop(columns); ; limit-- {
		need, shares, n := 0, 0, 0
		for i, c := range columns {
			widths[i] = 0
			if c.drop <= limit {
				widths[i], need, shares, n = c.width, need+c.width, shares+c.share, n+1
			}
		}
		rest := width - need - 2*max(0, n-1)
		if rest < 0 && limit > 0 {
			continue
		}
		for i, c := range columns {
			if widths[i] > 0 && c.share > 0 && rest > 0 {
				part := rest * c.share / shares
				widths[i], rest, shares = widths[i]+part, rest-part, shares-c.share
			}
		}
		return widths
	}
}

func maxDrop(columns []column) int {
	n := 0
	for _, c := range columns {
		n = max(n, c.drop)
	}
	return n
}
