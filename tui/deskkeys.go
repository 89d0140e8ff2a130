package tui

import (
	"context"
	"io"
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"charm.land/lipgloss/v2"
)

// key takes a key: for what is typed into, for the desk, or for the page.
func (d *Desk) key(k tea.KeyPressMsg) tea.Cmd {
	name := k.String()
	if name == "ctrl+c" {
		return tea.Quit
	}
	p := d.pages[d.at]
	if p.typing() && !d.help {
		return p.update(k, &d.world, d.ask)
	}
	switch {
	case name == "?":
		d.help = !d.help
		return nil
	case name == "q":
		return tea.Quit
	case d.help:
		d.help = name != "esc" && d.help
		return nil
	case d.world.heard.IsZero():
		return d.welcomeKey(name)
	}
	switch name {
	case "tab", "right", "l":
		d.turn(d.at + 1)
	case "shift+tab", "left", "h":
		d.turn(d.at - 1)
	case "m":
		d.mouse = !d.mouse
	case "f5", "ctrl+l":
		return tea.Batch(tea.ClearScreen, d.pollNow())
	default:
		if i := int(name[0] - '1'); len(name) == 1 && i >= 0 && i < len(d.pages) {
			d.turn(i)
			return nil
		}
		return p.update(k, &d.world, d.ask)
	}
	return nil
}

// turn goes to a page, round the ends.
func (d *Desk) turn(to int) { d.at = (to + len(d.pages)) % len(d.pages) }

func (d *Desk) click(msg tea.MouseClickMsg) tea.Cmd {
	if p := d.pages[d.at]; msg.Y >= headerHeight && !d.help {
		msg.Y -= headerHeight
		return p.update(msg, &d.world, d.ask)
	}
	if msg.Y != 0 || d.pages[d.at].typing() {
		return nil
	}
	for i, end := range d.tabs {
		if msg.X < end {
			d.turn(i)
			break
		}
	}
	return nil
}

// A helpGroup is keys that belong together.
type helpGroup struct {
	title string
	keys  []key.Binding
}

func (d *Desk) helpView(width, height int) string {
	s := d.styles
	groups := []helpGroup{
		{"Everywhere", []key.Binding{
			hint("tab, h l, 1…", "pages"), hint("j k, arrows", "rows"), hint("g G, pgup pgdn", "first, last, screens"), hint("enter", "details"),
			hint("esc", "back"), hint("/", "filter"), hint("m", "mouse on or off"), hint("ctrl+l", "draw anew"), hint("q, ctrl+c", "quit"),
		}},
		{d.pages[d.at].title(), d.pages[d.at].keys(&d.world)},
	}
	var columns []string
	for _, g := range groups {
		lines := []string{s.title.Render(g.title), ""}
		for _, k := range g.keys {
			lines = append(lines, s.accent.Render(fit(k.Help().Key, 15, false))+"  "+s.dim.Render(k.Help().Desc))
		}
		columns = append(columns, lipgloss.NewStyle().PaddingRight(6).Render(strings.Join(lines, "\n")))
	}
	return centred(lipgloss.JoinHorizontal(lipgloss.Top, columns...), width, height)
}

// welcome is what is shown as long as no broker has answered.
func (d *Desk) welcome(width, height int) string {
	s, w := d.styles, &d.world
	if w.reach == reachUnknown && !w.slow() {
		return centred(s.dim.Render("asking the broker …"), width, height)
	}
	title, steps := "No broker answers yet", []string{
		"The broker holds the secrets and sends each request. It runs in the", "background, as you, and ends ten minutes after its last session.",
	}
	if w.reach == reachUp {
		title, steps = "The broker can't say how it is", nil
	}
	lines := append([]string{s.title.Render(title), ""}, steps...)
	if d.o.Start != nil && w.reach != reachUp {
		lines = append(lines, "", s.accent.Render("enter")+"  start one here", s.dim.Render("       or in another terminal: torno serve"))
	}
	lines = append(lines, "", s.dim.Render(cut("asked at "+d.o.Place, width-8)))
	if w.problem != "" {
		for _, l := range wrap(w.problem, width-8) {
			lines = append(lines, s.bad.Render(l))
		}
	}
	return centred(strings.Join(lines, "\n"), width, height)
}

func (d *Desk) welcomeKeys() []key.Binding {
	keys := []key.Binding{hint("q", "quit")}
	if d.o.Start != nil && d.world.reach == reachDown {
		keys = append([]key.Binding{hint("enter", "start a broker")}, keys...)
	}
	return append(keys, hint("?", "help"))
}

func (d *Desk) welcomeKey(name string) tea.Cmd {
	if name != "enter" || d.o.Start == nil || d.world.reach != reachDown {
		return nil
	}
	return tea.Exec(starter{d.ask.ctx, d.o.Start}, func(err error) tea.Msg { return startedMsg{err} })
}

// A starter starts a broker while the terminal is as it was: the key's passphrase may be asked for.
type starter struct {
	ctx   context.Context
	start func(context.Context) error
}

func (s starter) Run() error        { return s.start(s.ctx) }
func (starter) SetStdin(io.Reader)  {}
func (starter) SetStdout(io.Writer) {}
func (starter) SetStderr(io.Writer) {}
