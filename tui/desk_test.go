package tui

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"github.com/google/go-cmp/cmp"

	"torno.internal/protocol/control"
)

// A broker that takes questions and never answers leaves the desk as quick as ever, and people are told.
func TestNeverBlocks(t *testing.T) {
	f := newFakeServer(t)
	populate(f)
	now := noon
	s := open(t, f, 80, 24, Options{Now: func() time.Time { return now }})
	s.loaded(f)
	release := make(chan struct{})
	f.mu.Lock()
	f.hang = release
	f.mu.Unlock()
	s.tm.Send(tickMsg(noon.Add(pollEvery))) // asks, and waits
	s.tm.Send(tickMsg(noon.Add(pollEvery + slowAfter + time.Second)))
	start := time.Now()
	for range 200 {
		s.press("tab", "down", "enter", "esc")
	}
	s.until("800 keys", func(d *Desk) bool { return strings.Contains(d.screen(), "waiting for the broker") })
	if d := time.Since(start); d > patience/2 {
		t.Errorf("800 keys take %v", d)
	}
	close(release)
	s.frame()
}

// The desk survives its broker: it says that it is gone, keeps what it knew, and goes on with the next one.
func TestBrokerRestart(t *testing.T) {
	f := newFakeServer(t)
	populate(f)
	s := open(t, f, 80, 24, Options{Now: time.Now})
	s.loaded(f)
	f.stop()
	s.until("that it is gone", func(d *Desk) bool { return d.world.reach == reachDown && !d.world.log.live })
	s.until("what it knew", func(d *Desk) bool {
		return strings.Contains(d.screen(), "STRIPE_KEY") && strings.Contains(d.screen(), "no broker")
	})
	f.mu.Lock()
	f.secrets = f.secrets[:1]
	f.records = append(f.records, control.AuditRecord{Seq: uint64(len(f.records) + 1), Time: time.Now(), Type: control.AuditRefused, Agent: "research", Method: "GET", Authority: "new.example:443", Reason: "denied"})
	f.mu.Unlock()
	f.start(t)
	s.until("the next one", func(d *Desk) bool {
		e := d.world.log.entries
		return d.world.reach == reachUp && len(d.world.secrets) == 1 && d.world.log.live && e[len(e)-1].Authority == "new.example:443"
	})
	s.until("each record once", func(d *Desk) bool {
		seen := map[uint64]bool{}
		for _, e := range d.world.log.entries {
			if seen[e.Seq] {
				t.Errorf("record %d twice", e.Seq)
			}
			seen[e.Seq] = true
		}
		return true
	})
	f.more <- control.AuditRecord{Seq: uint64(len(f.records) + 1), Time: time.Now(), Type: control.AuditRefused, Agent: "research", Method: "GET", Authority: "live.example:443", Reason: "denied"}
	s.press("3")
	s.until("what comes", func(d *Desk) bool { return strings.Contains(d.screen(), "live.example") })
	s.frame()
}

// What a person wants done is asked of the broker, after the word that confirms it alone.
func TestActions(t *testing.T) {
	for _, tt := range []struct {
		name string
		keys []string
		want string
	}{
		{"delete", []string{"d", "LEGACY_PIN", "enter"}, "DELETE " + control.PathSecrets},
		{"revoke", []string{"2", "down", "v", "revoke", "enter"}, "DELETE " + control.PathSession + "01m8588eq2zh04vw8qn948688n"},
		{"revoke a secret", []string{"v", "LEGACY_PIN", "enter"}, "POST " + control.PathRevoke},
		{"resume", []string{"2", "end", "u"}, "POST " + control.PathSession + "01m8587zzzzh04vw8qn9k3xw7t/resume"},
		{"check", []string{"5", "c"}, "POST " + control.PathAuditVerify},
		{"add", []string{"a", "ANTHROPIC_API_KEY", "enter", "enter", "sk-ant-api03-0123456789abcdefghijk", "enter"}, "POST " + control.PathSecrets},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			f := newFakeServer(t)
			populate(f)
			s := open(t, f, 80, 24, Options{})
			s.loaded(f)
			last := len(tt.keys) - 1
			s.press(tt.keys[:last]...)
			s.until("all but the last key", func(*Desk) bool { return true })
			if f.was(tt.want) {
				t.Error("done before it was confirmed")
			}
			s.press(tt.keys[last])
			s.until(tt.want, func(d *Desk) bool { return f.was(tt.want) })
			s.frame()
		})
	}
	f := newFakeServer(t)
	populate(f)
	s := open(t, f, 80, 24, Options{})
	s.loaded(f)
	s.press("d", "LEGACY_PI", "enter", "esc", "d", "x", "enter", "esc")
	s.frame()
	if f.was("DELETE " + control.PathSecrets) {
		t.Error("deleted without the whole word")
	}
}

// What the form can't use is refused with the reason, and nothing is sent.
func TestFormRefuses(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"X_KEY\t\t\t\tvalue", "which host"},
		{"X_KEY\t127.0.0.1:99999\t\t\tvalue", "port"},
		{"X_KEY\tapi.example.org\t\t\t", "empty"},
		{"X_KEY\tapi.example.org\t\t\ttornoInert-abc", "placeholder"},
		{"X_KEY\tapi.example.org\t\t2020-01-01\tvalue", "past"},
		{"\tapi.example.org\t\t\tvalue", "a name are needed"},
	} {
		w := &world{now: noon}
		f := newSecretForm("research")
		for _, c := range tt.name {
			k := tea.KeyPressMsg{Code: c, Text: string(c)}
			if c == '\t' {
				k = tea.KeyPressMsg{Code: tea.KeyTab}
			}
			f.key(k, w, asker{})
		}
		cmd, left := f.key(keyOf("enter"), w, asker{})
		if cmd != nil || left || f.err == nil || !strings.Contains(f.err.Error(), tt.want) {
			t.Errorf("%q: %v, want %q", tt.name, f.err, tt.want)
		}
	}
}

// A paused page stands still while requests go on, and a filter takes only what is there.
func TestPauseAndFilter(t *testing.T) {
	f := &fakeServer{}
	populate(f)
	d := New(t.Context(), Options{Now: func() time.Time { return noon }})
	d.update(polledMsg{health: f.health})
	d.update(recordsMsg{records: f.records})
	press := func(keys string) {
		for _, k := range keys {
			d.update(tea.KeyPressMsg{Code: k, Text: string(k)})
		}
	}
	press("3p")
	seq := uint64(len(f.records))
	d.update(recordsMsg{records: []control.AuditRecord{{Seq: seq + 1, Time: noon, Type: control.AuditRefused, Authority: "later.example:443"}}})
	if s := d.screen(); strings.Contains(s, "later.example") || !strings.Contains(s, "1 request came since") {
		t.Error("a paused page moves, or does not say what came")
	}
	press("p")
	if !strings.Contains(d.screen(), "later.example") {
		t.Error("it does not go on")
	}
	press("/githzub")
	if p := d.pages[2].(*requestsPage); p.filter.text != "github" { // with the z nothing holds it
		t.Errorf("filter %q", p.filter.text)
	}
}

// The log is bounded, whatever comes.
func TestLogBounded(t *testing.T) {
	var l requestLog
	for i := range 3 * maxEntries {
		l.add([]control.AuditRecord{{Seq: uint64(i + 1), Type: control.AuditRefused}})
	}
	if len(l.entries) > maxEntries*11/10 || l.dropped+uint64(len(l.entries)) != 3*maxEntries {
		t.Errorf("%d entries, %d dropped", len(l.entries), l.dropped)
	}
	if len(l.entries) < maxEntries {
		t.Error("fewer than fit")
	}
}

// Without a broker the desk leads to one.
func TestWelcome(t *testing.T) {
	d := New(t.Context(), Options{Now: func() time.Time { return noon }, Place: "/run/x"})
	d.update(polledMsg{err: errors.New("no broker answers on /run/x")})
	if s := d.screen(); !strings.Contains(s, "No broker answers yet") || strings.Contains(s, "start one here") {
		t.Error("no welcome, or an offer that can't be kept")
	}
	if cmd := d.update(keyOf("enter")); cmd != nil {
		t.Error("starts what it can't")
	}
}

// One key decides on the request that the person looked at, and on no other that took its place.
func TestApprovals(t *testing.T) {
	f := newFakeServer(t)
	populate(f)
	now := noon
	s := open(t, f, 80, 24, Options{Now: func() time.Time { return now }})
	s.loaded(f)
	s.press("4", "s") // the first: 28 seconds are left
	s.until("a decision", func(*Desk) bool { return f.was("POST " + control.PathApprovals) })
	s.press("s") // the second can't be allowed for a session
	s.press("n")
	s.until("both gone", func(d *Desk) bool { return len(d.world.waiting) == 0 && d.world.asked.IsZero() })
	f.mu.Lock()
	want := []control.ApprovalDecision{{ID: "7", Allow: true, Session: true}, {ID: "9"}}
	if diff := cmp.Diff(want, f.decided); diff != "" {
		t.Error(diff)
	}
	f.mu.Unlock()
	s.frame()

	d := New(t.Context(), Options{Now: func() time.Time { return noon }})
	populate(f)
	d.update(polledMsg{health: f.health, approvals: f.waiting})
	d.update(keyOf("4"))
	d.screen()
	p := d.pages[3].(*approvalsPage)
	d.update(tickMsg(noon.Add(29 * time.Second))) // the first is over
	if cmd := p.decide("y", &d.world, d.ask); cmd != nil || p.list.chosen != "9" {
		t.Errorf("a key that was meant for another decides on %q", p.list.chosen)
	}
	d.update(tickMsg(noon.Add(29*time.Second + takeCare)))
	if cmd := p.decide("y", &d.world, d.ask); cmd == nil {
		t.Error("and later none does")
	}
}

// What the broker refuses to decide waits on.
func TestApprovalRefused(t *testing.T) {
	f := newFakeServer(t)
	populate(f)
	f.refuse["POST "+control.PathApprovals] = &control.Error{Code: control.CodeConflict, Message: "the disk is full"}
	s := open(t, f, 80, 24, Options{})
	s.loaded(f)
	s.press("4", "y")
	s.until("the refusal", func(d *Desk) bool { return strings.Contains(d.screen(), "the disk is full") })
	s.until("it waits on", func(d *Desk) bool { return strings.Contains(d.screen(), "api.stripe.example") })
	s.frame()
}

// An event has the desk ask at once, long before it would by itself.
func TestEvents(t *testing.T) {
	f := newFakeServer(t)
	populate(f)
	now := noon
	s := open(t, f, 80, 24, Options{Now: func() time.Time { now = now.Add(pollPause); return now }})
	s.loaded(f)
	f.mu.Lock()
	f.waiting = f.waiting[:1]
	f.mu.Unlock()
	f.nudge <- struct{}{}
	s.until("what the event was about", func(d *Desk) bool { return len(d.world.waiting) == 1 })
	s.frame()
}

// Each number of colours has its own palette; without any, none is written, and what is chosen is still marked.
func TestPalettes(t *testing.T) {
	colours := regexp.MustCompile("\x1b\\[[0-9;]*(3[0-8]|4[0-8]|9[0-7])[;m]")
	for profile, want := range map[colorprofile.Profile]string{
		colorprofile.TrueColor: "38;2;", colorprofile.ANSI256: "38;5;", colorprofile.ANSI: "\x1b[36m", colorprofile.ASCII: "", colorprofile.NoTTY: "",
	} {
		f := &fakeServer{}
		populate(f)
		d := New(t.Context(), Options{Now: func() time.Time { return noon }})
		d.update(tea.ColorProfileMsg{Profile: profile})
		d.update(polledMsg{health: f.health, secrets: f.secrets})
		s := d.screen()
		if want == "" && colours.MatchString(s) || !strings.Contains(s, want) {
			t.Errorf("%v: other colours than wanted:\n%q", profile, s)
		}
		if !strings.Contains(s, "▌") || !strings.Contains(s, "\x1b[1") && !strings.Contains(s, "\x1b[7m") {
			t.Errorf("%v: what is chosen can't be told", profile)
		}
	}
}
