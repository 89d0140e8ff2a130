package tui

import (
	"errors"
	"fmt"
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/x/ansi"

	"torno.internal/protocol/control"
)

const (
	headerHeight = 2 // lines above a page
	footerHeight = 2 // and below
	leastWidth   = 40
	leastHeight  = 10
)

// View implements tea.Model.
func (d *Desk) View() (v tea.View) {
	defer func() {
		if r := recover(); r != nil {
			d.crash = crashed(r)
			v = tea.NewView("")
		}
	}()
	v = tea.NewView(d.screen())
	v.AltScreen = true // what was shown is gone from the scrollback when the desk is
	v.WindowTitle = "torno"
	if d.mouse {
		v.MouseMode = tea.MouseModeCellMotion
	}
	return v
}

// screen draws every line of the terminal.
func (d *Desk) screen() string {
	if d.crash != nil {
		return ""
	}
	if d.width < leastWidth || d.height < leastHeight {
		return cut(fmt.Sprintf("torno needs %d columns and %d lines", leastWidth, leastHeight), d.width)
	}
	height := d.height - headerHeight - footerHeight
	body := d.body(d.width, height)
	lines := append([]string{d.header(), d.styles.rule(d.width)}, block(body, d.width, height)...)
	return strings.Join(append(lines, d.status(), d.footer()), "\n")
}

func (d *Desk) body(width, height int) string {
	w := &d.world
	switch {
	case d.help:
		return d.helpView(width, height)
	case w.heard.IsZero():
		return d.welcome(width, height)
	}
	return d.pages[d.at].view(w, d.styles, width, height)
}

// block cuts text to a rectangle of lines.
func block(text string, width, height int) []string {
	lines := strings.Split(text, "\n")
	lines = lines[:min(len(lines), height)]
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, width, "")
	}
	for len(lines) < height {
		lines = append(lines, "")
	}
	return lines
}

// header is the line of the tabs, and at its right who we talk to. Where they do not fit, the chosen tab alone is there.
func (d *Desk) header() string {
	left := " " + d.styles.title.Render("torno") + " "
	d.tabs = d.tabs[:0]
	tabs := left
	for i := range d.pages {
		tabs += d.tab(i)
		d.tabs = append(d.tabs, ansi.StringWidth(tabs))
	}
	right := d.brokerLight()
	if ansi.StringWidth(tabs) > d.width {
		tabs, d.tabs = left+d.tab(d.at), d.tabs[:0]
	}
	if room := d.width - ansi.StringWidth(tabs) - ansi.StringWidth(right) - 1; room > 0 {
		return tabs + strings.Repeat(" ", room) + right
	}
	return tabs
}

func (d *Desk) tab(i int) string {
	s, p := d.styles, d.pages[i]
	name := p.title()
	if d.width >= 100 {
		name = fmt.Sprintf("%d %s", i+1, name)
	}
	if n := p.badge(&d.world); n > 0 {
		name += fmt.Sprintf(" %d", n)
	}
	switch {
	case i == d.at && s.plain:
		return "[" + name + "]"
	case i == d.at:
		return s.chosenTab.Render(" " + name + " ")
	}
	return s.tab.Render(" " + name + " ")
}

// brokerLight says in a word whether the broker answers.
func (d *Desk) brokerLight() string {
	s, w := d.styles, &d.world
	light, text := s.good, "up"
	switch {
	case w.reach == reachUnknown:
		light, text = s.dim, "asking"
	case w.reach == reachDown:
		light, text = s.bad, "no broker"
	case w.slow():
		light, text = s.warn, "slow"
	case d.width >= 100:
		text = fmt.Sprintf("%s, %s", cut(w.health.Version, 20), plural(len(w.sessions), "session"))
	}
	return s.dot(light) + light.Render(text)
}

// status is the line of what happened last, or of what is wrong.
func (d *Desk) status() string {
	w := &d.world
	n := d.note
	switch {
	case n.text != "" && w.now.Sub(n.at) < noteFor:
	case w.reach == reachDown && !w.heard.IsZero():
		n = note{text: fmt.Sprintf("the broker does not answer; shown is what it said %s ago. Trying again.", since(w.now, w.heard, w.still)), mood: moodBad}
	case w.slow():
		n = note{text: "waiting for the broker", mood: moodWarn}
	case len(w.waiting) > 0 && d.pages[d.at].title() != "Approvals":
		n = note{text: plural(len(w.waiting), "request") + " waiting for you: press 4", mood: moodWarn}
	case w.problem != "" && w.reach == reachUp:
		n = note{text: w.problem, mood: moodBad}
	default:
		return ""
	}
	return " " + d.styles.of(n.mood).Render(cut(n.text, d.width-2))
}

// footer is the line of the keys that a person may want now.
func (d *Desk) footer() string {
	var keys []key.Binding
	switch {
	case d.help:
		keys = []key.Binding{hint("esc", "back"), hint("q", "quit")}
	case d.world.heard.IsZero():
		keys = d.welcomeKeys()
	default:
		keys = d.pages[d.at].keys(&d.world)
		if !d.pages[d.at].typing() {
			keys = append(keys, hint("?", "help"), hint("q", "quit"))
		}
	}
	return ansi.Truncate(" "+d.styles.help.ShortHelpView(keys), d.width, "")
}

// hint is a key and what it does, for people.
func hint(k, does string) key.Binding {
	return key.NewBinding(key.WithKeys(k), key.WithHelp(k, does))
}

// errorText is an error for people, with what can be done about it.
func errorText(err error) string {
	text := err.Error()
	var answered *control.Error
	if errors.As(err, &answered) && answered.Hint != "" {
		text += " (" + answered.Hint + ")"
	}
	return text
}

// centred puts text, as one block, into the middle of a rectangle.
func centred(text string, width, height int) string {
	return lipgloss.Place(width, height, lipgloss.Center, lipgloss.Center, lipgloss.NewStyle().Width(lipgloss.Width(text)).Render(text))
}
