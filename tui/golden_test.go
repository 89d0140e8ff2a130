package tui

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/exp/golden"
	"github.com/charmbracelet/x/exp/teatest/v2"
)

// patience is how long a test waits for what comes at once on an idle machine.
const patience = 30 * time.Second

// A probe is a desk whose state tests can wait for.
type probe struct {
	*Desk
	when func(*Desk) bool
	then chan struct{} // closed when it holds
}

func (p *probe) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	if w, ok := msg.(waitMsg); ok {
		p.when, p.then = w.when, w.then
		return p, p.check()
	}
	_, cmd := p.Desk.Update(msg)
	return p, tea.Batch(cmd, p.check())
}

func (p *probe) check() tea.Cmd {
	if p.when != nil && p.when(p.Desk) {
		close(p.then)
		p.when = nil
	}
	return nil
}

type waitMsg struct {
	when func(*Desk) bool
	then chan struct{}
}

// A screen is a desk that runs.
type screen struct {
	t    *testing.T
	tm   *teatest.TestModel
	desk *Desk
}

func open(t *testing.T, f *fakeServer, width, height int, o Options) *screen {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	if o.Broker == nil {
		o.Broker = newFakeBroker(t, f.socket)
	}
	if o.Now == nil {
		o.Now = func() time.Time { return noon }
	}
	o.Place = "/run/user/1000/torno/control"
	d := New(ctx, o)
	tm := teatest.NewTestModel(t, &probe{Desk: d}, teatest.WithInitialTermSize(width, height),
		teatest.WithProgramOptions(tea.WithColorProfile(colorprofile.TrueColor)))
	return &screen{t, tm, d}
}

// until waits until the desk is as when says.
func (s *screen) until(what string, when func(*Desk) bool) {
	s.t.Helper()
	then := make(chan struct{})
	s.tm.Send(waitMsg{when, then})
	select {
	case <-then:
	case <-time.After(patience):
		s.t.Fatalf("not within %v: %s", patience, what)
	}
}

// loaded waits until all that the server has is there.
func (s *screen) loaded(f *fakeServer) {
	s.t.Helper()
	f.mu.Lock()
	last := uint64(len(f.records))
	f.mu.Unlock()
	s.until("the broker's state", func(d *Desk) bool {
		return d.world.reach == reachUp && d.world.log.last == last && d.world.presets != nil && d.world.asked.IsZero()
	})
}

// press presses keys by name; what is no key's name is typed.
func (s *screen) press(keys ...string) {
	named := map[string]tea.KeyPressMsg{
		"enter": {Code: tea.KeyEnter}, "esc": {Code: tea.KeyEscape}, "tab": {Code: tea.KeyTab}, "down": {Code: tea.KeyDown}, "up": {Code: tea.KeyUp},
		"right": {Code: tea.KeyRight}, "left": {Code: tea.KeyLeft}, "backspace": {Code: tea.KeyBackspace}, "end": {Code: tea.KeyEnd},
		"shift+tab": {Code: tea.KeyTab, Mod: tea.ModShift}, "ctrl+u": {Code: 'u', Mod: tea.ModCtrl},
	}
	for _, k := range keys {
		if msg, ok := named[k]; ok {
			s.tm.Send(msg)
			continue
		}
		s.tm.Type(k)
	}
}

// frame ends the desk and returns what it showed last.
func (s *screen) frame() string {
	s.t.Helper()
	if err := s.tm.Quit(); err != nil {
		s.t.Fatal(err)
	}
	s.tm.WaitFinished(s.t, teatest.WithFinalTimeout(patience))
	return s.desk.screen()
}

var sizes = [][2]int{{80, 24}, {120, 36}, {200, 50}}

// pictures are what is kept as golden frames.
var pictures = []struct {
	name   string
	every  bool // at each size and in both themes; else once
	keys   []string
	change func(*fakeServer)
}{
	{name: "secrets", every: true},
	{name: "secrets-details", keys: []string{"down", "down", "enter"}},
	{name: "secrets-filter", keys: []string{"/", "stri"}},
	{name: "secrets-none", change: func(f *fakeServer) { f.secrets = nil }},
	{name: "add", every: true, keys: []string{"a", "CUSTOM_TOKEN", "tab", "api.example.org", "tab", "right", "tab", "X-Auth: {CUSTOM_TOKEN}", "tab", "30d", "tab", "s3cret-s3cret-s3cret"}},
	{name: "rotate", keys: []string{"r"}},
	{name: "delete", keys: []string{"d", "LEGA"}},
	{name: "sessions", every: true, keys: []string{"2", "end"}},
	{name: "sessions-details", keys: []string{"2", "down", "enter"}},
	{name: "sessions-revoke", keys: []string{"2", "down", "v", "rev"}},
	{name: "requests", every: true, keys: []string{"3", "down", "down", "down"}},
	{name: "requests-details", keys: []string{"3", "down", "enter"}},
	{name: "requests-filter", keys: []string{"3", "/", "stripe"}},
	{name: "requests-refused", keys: []string{"3", "f", "p"}},
	{name: "approvals", every: true, keys: []string{"4"}},
	{name: "approvals-details", keys: []string{"4", "enter"}},
	{name: "approvals-none", keys: []string{"4"}, change: func(f *fakeServer) { f.waiting = nil }},
	{name: "health", every: true, keys: []string{"5"}},
	{name: "help", keys: []string{"3", "?"}},
}

// Frames are as they were looked at: at three sizes and in both themes. Run with -update to keep new ones, and look
// at them.
func TestGolden(t *testing.T) {
	for _, p := range pictures {
		for i, size := range sizes {
			for _, theme := range []Theme{ThemeDark, ThemeLight} {
				if !p.every && (i > 0 || theme != ThemeDark) {
					continue
				}
				t.Run(fmt.Sprintf("%s/%dx%d-%s", p.name, size[0], size[1], theme), func(t *testing.T) {
					t.Parallel()
					golden.RequireEqual(t, picture(t, p.keys, p.change, size, Options{Theme: theme}))
				})
			}
		}
		t.Run(p.name+"/accessible", func(t *testing.T) {
			t.Parallel()
			frame := picture(t, p.keys, p.change, sizes[0], Options{Theme: ThemeDark, Accessible: true})
			if i := strings.IndexFunc(ansi.Strip(frame), func(r rune) bool { return 0x2500 <= r && r <= 0x25ff }); i >= 0 {
				t.Errorf("box drawing or pictures at byte %d", i)
			}
			golden.RequireEqual(t, ansi.Strip(frame))
		})
	}
}

// picture is the frame after keys.
func picture(t *testing.T, keys []string, change func(*fakeServer), size [2]int, o Options) string {
	f := newFakeServer(t)
	populate(f)
	if change != nil {
		change(f)
	}
	s := open(t, f, size[0], size[1], o)
	s.loaded(f)
	s.press(keys...)
	s.until("versions, where they are shown", func(d *Desk) bool {
		p := d.pages[0].(*secretsPage)
		i, ok := p.current(&d.world)
		return !ok || i.Missing || i.Broken != "" || !p.open && !d.world.wide || len(p.versions) > 0
	})
	frame := s.frame()
	checkFrame(t, frame, size[0], size[1])
	return frame
}

// checkFrame wants every line there, and none too long.
func checkFrame(t *testing.T, frame string, width, height int) {
	t.Helper()
	lines := strings.Split(frame, "\n")
	if len(lines) != height {
		t.Errorf("%dx%d: %d lines", width, height, len(lines))
	}
	for i, l := range lines {
		if n := ansi.StringWidth(l); n > width {
			t.Errorf("%dx%d: line %d has %d columns: %q", width, height, i, n, ansi.Strip(l))
		}
	}
}

// Every golden file belongs to a picture.
func TestGoldenFilesUsed(t *testing.T) {
	files, err := filepath.Glob("testdata/TestGolden/*")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d golden directories, %v", len(files), err)
	}
	for _, file := range files {
		used := false
		for _, p := range pictures {
			used = used || p.name == filepath.Base(file)
		}
		if info, err := os.Stat(file); err != nil || !info.IsDir() || !used {
			t.Errorf("%s belongs to no picture", file)
		}
	}
}
