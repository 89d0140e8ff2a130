package tui

import (
	"context"
	"fmt"
	"time"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"

	"torno.internal/protocol/control"
)

// A page is one tab of the desk. Its update has no effect but on the page itself and in the commands it returns.
type page interface {
	title() string
	// update takes a message. Positions of the mouse are counted from the page's own corner.
	update(msg tea.Msg, w *world, a asker) tea.Cmd
	view(w *world, s *styles, width, height int) string
	keys(w *world) []key.Binding
	// typing reports whether the page takes every key: a person types into it.
	typing() bool
	// badge counts what waits for a person there.
	badge(w *world) int
}

// A Desk is the whole screen: a bubbletea model.
type Desk struct {
	o      Options
	ask    asker
	world  world
	pages  []page
	at     int
	help   bool
	mouse  bool
	dark   bool
	colour colorprofile.Profile
	styles *styles

	width, height int
	note          note
	polled        time.Time // when the broker was asked last
	following     bool      // the stream of the audit is open, or being opened
	listening     bool      // and that of events
	again         bool      // something has changed since the question that is open
	crash         *CrashError
	tabs          []int // where each tab ends on the first line
}

// A note is the last thing that happened to what a person wanted.
type note struct {
	text string
	mood mood
	at   time.Time
}

// noteFor is how long a note is shown.
const noteFor = 8 * time.Second

// New returns a desk that shows nothing yet. Its commands end with ctx.
func New(ctx context.Context, o Options) *Desk {
	if o.Now == nil {
		o.Now = time.Now
	}
	d := &Desk{
		o: o, ask: asker{ctx, o.Broker}, dark: o.Theme != ThemeLight, mouse: !o.NoMouse, width: 80, height: 24, colour: colorprofile.TrueColor,
		pages: []page{newSecretsPage(), newSessionsPage(), newRequestsPage(), newApprovalsPage(), newHealthPage()},
		world: world{now: o.Now(), still: o.Accessible},
	}
	d.restyle()
	return d
}

func (d *Desk) restyle() { d.styles = newStyles(d.dark, d.colour, d.o.Accessible) }

// Init implements tea.Model.
func (d *Desk) Init() tea.Cmd {
	d.world.asked = d.o.Now()
	cmds := []tea.Cmd{d.ask.poll(), d.tick()}
	if d.o.Theme == ThemeAuto || d.o.Theme == "" {
		cmds = append(cmds, tea.RequestBackgroundColor)
	}
	return tea.Batch(cmds...)
}

func (d *Desk) tick() tea.Cmd {
	now := d.o.Now
	return tea.Tick(time.Second, func(time.Time) tea.Msg { return tickMsg(now()) })
}

// Update implements tea.Model. A mistake of ours ends the desk in order, with the terminal as it was.
func (d *Desk) Update(msg tea.Msg) (_ tea.Model, cmd tea.Cmd) {
	defer func() {
		if r := recover(); r != nil {
			d.crash, cmd = crashed(r), tea.Quit
		}
	}()
	return d, d.update(msg)
}

func (d *Desk) update(msg tea.Msg) tea.Cmd {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		d.width, d.height = msg.Width, msg.Height
		d.world.wide = d.width >= besides
	case tea.BackgroundColorMsg:
		if d.o.Theme == ThemeAuto || d.o.Theme == "" {
			d.dark = msg.IsDark()
			d.restyle()
		}
	case tea.ColorProfileMsg:
		d.colour = msg.Profile
		d.restyle()
	case requestsOfMsg:
		d.show(string(msg))
	case crashMsg:
		d.crash = msg.crash
		return tea.Quit
	case tea.KeyPressMsg:
		return d.key(msg)
	case tea.PasteMsg:
		return d.pages[d.at].update(msg, &d.world, d.ask)
	case tea.MouseClickMsg:
		return d.click(msg)
	case tea.MouseWheelMsg:
		msg.Y -= headerHeight
		return d.pages[d.at].update(msg, &d.world, d.ask)
	default:
		return d.heard(msg)
	}
	return nil
}

// heard takes what a command told: first the world, then the pages that wait for it.
func (d *Desk) heard(msg tea.Msg) tea.Cmd {
	w := &d.world
	cmds := []tea.Cmd{d.streamed(msg)}
	switch msg := msg.(type) {
	case tickMsg:
		w.now = time.Time(msg)
		cmds = append(cmds, d.tick(), d.pollIfDue())
	case polledMsg:
		before := w.reach
		w.take(msg)
		if w.reach == reachUp && before != reachUp {
			cmds = append(cmds, d.ask.presets(), d.streams())
		}
	case presetsMsg:
		w.presets = msg
	case doneMsg:
		cmds = append(cmds, d.tell(msg.what, msg.err))
	case setMsg:
		cmds = append(cmds, d.tell(setText(msg), msg.err))
	case startedMsg:
		cmds = append(cmds, d.tell("the broker runs", msg.err))
	}
	for _, p := range d.pages {
		cmds = append(cmds, p.update(msg, w, d.ask))
	}
	return tea.Batch(cmds...)
}

// streamed takes what the streams told, and goes on with them.
func (d *Desk) streamed(msg tea.Msg) tea.Cmd {
	w := &d.world
	switch msg := msg.(type) {
	case streamMsg:
		w.log.live = true
		return d.ask.read(msg.r)
	case recordsMsg:
		w.log.add(msg.records)
		return d.ask.read(msg.r)
	case streamEndMsg:
		w.log.live, d.following = false, false
		return reopen()
	case eventStreamMsg:
		return d.ask.hear(msg.r)
	case eventsMsg:
		return tea.Batch(d.ask.hear(msg.r), d.pollSoon())
	case eventEndMsg:
		d.listening = false
		return reopen()
	case reopenMsg:
		if w.reach == reachUp {
			return d.streams()
		}
	}
	return nil
}

// pollIfDue asks the broker again, if it has answered a while ago or something has changed since.
func (d *Desk) pollIfDue() tea.Cmd {
	if !d.again && d.world.now.Sub(d.polled) < pollEvery {
		return nil
	}
	return d.pollNow()
}

// pollSoon asks at once where the last question is not too new, else with the next tick.
func (d *Desk) pollSoon() tea.Cmd {
	if d.o.Now().Sub(d.polled) < pollPause {
		d.again = true
		return nil
	}
	return d.pollNow()
}

// pollNow asks at once, unless a question is open: one at a time.
func (d *Desk) pollNow() tea.Cmd {
	if d.again = !d.world.asked.IsZero(); d.again {
		return nil
	}
	d.polled = d.o.Now()
	d.world.asked = d.polled
	return d.ask.poll()
}

// streams opens the streams that are not open.
func (d *Desk) streams() tea.Cmd {
	var cmds []tea.Cmd
	if !d.following {
		d.following = true
		cmds = append(cmds, d.ask.follow())
	}
	if !d.listening {
		d.listening = true
		cmds = append(cmds, d.ask.listen())
	}
	return tea.Batch(cmds...)
}

// tell shows how something ended that a person wanted, and asks how it is now.
func (d *Desk) tell(what string, err error) tea.Cmd {
	d.note = note{what, moodGood, d.world.now}
	if err != nil {
		d.note = note{errorText(err), moodBad, d.world.now}
	}
	return d.pollNow()
}

func setText(m setMsg) string {
	i := control.SecretInfo{Meta: m.meta}
	text := fmt.Sprintf("%s: set, version %d, goes to %s", m.meta.Name, m.meta.Version, audience(&i))
	if m.meta.Weak {
		text += "; weak, outside the guarantee"
	}
	return text
}

// show turns to the requests that hold a text.
func (d *Desk) show(text string) {
	for i, p := range d.pages {
		if r, ok := p.(*requestsPage); ok {
			d.at, r.open, r.filter = i, false, filter{text: text}
		}
	}
}
