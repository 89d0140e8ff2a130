package tui

import (
	"strings"

	"charm.land/bubbles/v2/help"
	"charm.land/lipgloss/v2"
	"github.com/charmbracelet/colorprofile"
)

// A palette is the few colours of a theme. Ordinary text has the terminal's own.
type palette struct{ dim, faint, accent, good, warn, bad, raised, onAccent string }

// palettes are chosen by hand for each number of colours: what is nearest to a grey among 256 is a blue.
var palettes = map[colorprofile.Profile]struct{ dark, light palette }{
	colorprofile.TrueColor: {
		dark:  palette{dim: "#97a1af", faint: "#3f4754", accent: "#7fb4ca", good: "#8fbf7f", warn: "#e0b060", bad: "#e57474", raised: "#242b35", onAccent: "#10151c"},
		light: palette{dim: "#5f6875", faint: "#c3c9d1", accent: "#1f6c8c", good: "#3c7a2e", warn: "#8f5f00", bad: "#b3261e", raised: "#e6edf3", onAccent: "#ffffff"},
	},
	colorprofile.ANSI256: {
		dark:  palette{dim: "247", faint: "239", accent: "110", good: "108", warn: "179", bad: "174", raised: "236", onAccent: "234"},
		light: palette{dim: "242", faint: "250", accent: "24", good: "64", warn: "94", bad: "124", raised: "254", onAccent: "231"},
	},
	colorprofile.ANSI: { // the terminal's own sixteen, which fit its background
		dark:  palette{dim: "7", faint: "8", accent: "6", good: "2", warn: "3", bad: "1", onAccent: "0"},
		light: palette{dim: "8", faint: "7", accent: "4", good: "2", warn: "3", bad: "1", onAccent: "15"},
	},
}

// styles are how things look.
type styles struct {
	text, dim, faint, accent, good, warn, bad lipgloss.Style
	title, tab, chosenTab, chosen             lipgloss.Style

	plain bool // no box drawing, no pictures
	help  help.Model
}

// newStyles returns the looks of a theme on a terminal with so many colours. Without any, what is chosen is reversed.
func newStyles(dark bool, profile colorprofile.Profile, plain bool) *styles {
	colours, ok := palettes[profile]
	p := colours.light
	if dark {
		p = colours.dark
	}
	fg := func(c string) lipgloss.Style {
		if c == "" {
			return lipgloss.NewStyle()
		}
		return lipgloss.NewStyle().Foreground(lipgloss.Color(c))
	}
	s := &styles{
		text: lipgloss.NewStyle(), dim: fg(p.dim), faint: fg(p.faint), accent: fg(p.accent),
		good: fg(p.good), warn: fg(p.warn), bad: fg(p.bad),
		title: lipgloss.NewStyle().Bold(true), tab: fg(p.dim),
		chosenTab: lipgloss.NewStyle().Reverse(true), chosen: lipgloss.NewStyle().Bold(true),
		plain: plain, help: help.New(),
	}
	if ok {
		s.chosenTab = fg(p.onAccent).Background(lipgloss.Color(p.accent)).Bold(true)
	}
	if p.raised != "" {
		s.chosen = s.chosen.Background(lipgloss.Color(p.raised))
	}
	s.help.Styles = help.Styles{
		Ellipsis: s.faint, ShortKey: s.accent, ShortDesc: s.dim, ShortSeparator: s.faint,
		FullKey: s.accent, FullDesc: s.dim, FullSeparator: s.faint,
	}
	s.help.ShortSeparator = "  "
	return s
}

// rule is a line across the screen, or an empty one.
func (s *styles) rule(width int) string {
	if s.plain {
		return ""
	}
	return s.faint.Render(strings.Repeat("─", max(0, width)))
}

// mark stands before the row that is chosen; blank before the others.
func (s *styles) mark(chosen bool) string {
	switch {
	case !chosen:
		return "  "
	case s.plain:
		return "> "
	}
	return s.accent.Render("▌ ")
}

// dot is a light: it says by its colour what text beside it says in words.
func (s *styles) dot(style lipgloss.Style) string {
	if s.plain {
		return ""
	}
	return style.Render("●") + " "
}

// of returns the style of a state, by what it means for people.
func (s *styles) of(m mood) lipgloss.Style {
	switch m {
	case moodGood:
		return s.good
	case moodWarn:
		return s.warn
	case moodBad:
		return s.bad
	case moodDim:
		return s.dim
	case moodAccent:
		return s.accent
	case moodTitle:
		return s.title
	}
	return s.text
}

// A mood is what something means for people; a theme makes a colour of it.
type mood int

const (
	moodText mood = iota
	moodDim
	moodGood
	moodWarn
	moodBad
	moodAccent
	moodTitle
)
