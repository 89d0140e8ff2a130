package tui

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/exp/teatest/v2"

	"torno.internal/protocol/control"
)

// window is the shortest run of a value that counts (design: between 8 and 12 bytes, half its length).
const window34 = 8

// leaks counts the runs of value, window34 bytes each, that text holds.
func leaks(text, value string) int {
	n := 0
	for i := range len(value) - window34 + 1 {
		if strings.Contains(text, value[i:i+window34]) {
			n++
		}
	}
	return n
}

// canary is a value that stands nowhere else. It holds all letters and digits but the q that leaves the desk.
func canary(t *testing.T) string {
	t.Helper()
	b := make([]byte, 60)
	_, _ = rand.Read(b)
	return strings.NewReplacer("q", "x", "+", "A", "/", "B", "=", "").Replace(base64.StdEncoding.EncodeToString(b))
}

// keyOf is the message of one key.
func keyOf(k string) tea.KeyPressMsg {
	named := map[string]rune{"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "down": tea.KeyDown, "up": tea.KeyUp, "end": tea.KeyEnd}
	if c, ok := named[k]; ok {
		return tea.KeyPressMsg{Code: c}
	}
	return tea.KeyPressMsg{Code: []rune(k)[0], Text: k}
}

// TestAttack34 types and pastes a value into the form, and wherever else a person may by mistake, and searches all
// that the desk ever wrote to the terminal, its last frames and what it sent for every run of the value.
func TestAttack34(t *testing.T) {
	value := canary(t)
	f := newFakeServer(t)
	populate(f)
	var out bytes.Buffer
	s := open(t, f, 120, 36, Options{Theme: ThemeDark})
	s.loaded(f)
	var frames strings.Builder
	look := func() {
		s.until("a frame", func(d *Desk) bool { frames.WriteString(d.screen()); return true })
	}
	paste := func() { s.tm.Send(tea.PasteMsg{Content: value + "\n"}); look() }
	for _, page := range []string{"1", "2", "3", "4", "5"} { // beside every form
		s.press(page)
		paste()
		s.press("/", value)
		look()
		paste()
		s.press("esc", "?")
		paste()
		s.press("?")
	}
	s.press("1", "d", value) // into a confirmation
	look()
	paste()
	s.press("esc", "2", "v", value)
	look()
	paste()
	s.press("esc", "1", "a") // pasted with the focus on the name
	paste()
	s.press("esc", "a", "ANTHROPIC_API_KEY", "enter", "enter", value) // typed
	look()
	s.press("backspace", value[len(value)-1:])
	s.press("enter")
	s.until("the secret is set", func(d *Desk) bool { return strings.Contains(d.note.text, "ANTHROPIC_API_KEY: set") })
	s.press("a", "OTHER_KEY", "tab", "api.example.org", "tab", "tab", "tab") // pasted, and refused by the broker
	f.mu.Lock()
	f.refuse["POST "+control.PathSecrets] = &control.Error{Code: control.CodeConflict, Message: "somebody else set it"}
	f.mu.Unlock()
	paste()
	s.press("enter")
	s.until("the refusal", func(d *Desk) bool { return strings.Contains(d.note.text, "somebody else") })
	look()
	s.press("esc")
	frames.WriteString(s.frame())
	if _, err := io.Copy(&out, s.tm.FinalOutput(t)); err != nil {
		t.Fatal(err)
	}

	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.stored) != 1 || f.stored[0].Meta.Name != "ANTHROPIC_API_KEY" || f.stored[0].Meta.Weak {
		t.Fatalf("stored: %d secrets", len(f.stored)) // else nothing was typed where it belongs
	}
	for what, text := range map[string]string{
		"the terminal": out.String(), "frames": frames.String(), "what was asked": strings.Join(f.asked, "\n"), "what was sent": string(f.stored[0].Sealed),
	} {
		if n := leaks(text, value); n > 0 {
			t.Errorf("%s: %d runs of the value in %d bytes", what, n, len(text))
		}
	}
	if !strings.Contains(frames.String(), fmt.Sprintf("%d bytes", len(value))) {
		t.Error("the form never showed that the value was typed") // the test drives the wrong keys
	}
	// The positive control: the same search finds a value that a visible field shows.
	shown := field{}
	for _, c := range value {
		shown.key(tea.KeyPressMsg{Code: c, Text: string(c)})
	}
	if leaks(out.String()+shown.text, value) != len(value)-window34+1 {
		t.Error("the search finds nothing")
	}
	t.Logf("%d bytes of terminal output and %d of frames searched", out.Len(), frames.Len())
}

// Nothing that prints a form, or the whole desk, prints the value; and wiping empties it.
func TestAttack34Printers(t *testing.T) {
	value := canary(t)
	d := New(t.Context(), Options{})
	p := newSecretsPage()
	p.form = newSecretForm("a")
	p.form.paste(value)
	d.pages[0] = p
	var b strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		fmt.Fprintf(&b, verb+verb+verb, *d, *p.form, p.form.value)
	}
	if n := leaks(b.String(), value) + leaks(b.String(), fmt.Sprintf("%x", value)); n > 0 {
		t.Errorf("%d runs of the value are printed", n)
	}
	var kept []byte
	_ = p.form.value.value.Use(func(b []byte) error { kept = b; return nil })
	if string(kept) != value {
		t.Fatalf("the form holds %d bytes of %d", len(kept), len(value))
	}
	p.form.wipe()
	if strings.Trim(string(kept), "\x00") != "" {
		t.Error("bytes are left")
	}
}

// A panicPage has a mistake while a person types.
type panicPage struct{ *secretsPage }

func (p *panicPage) update(msg tea.Msg, w *world, a asker) tea.Cmd {
	switch m := msg.(type) {
	case tea.PasteMsg:
		panic(m.Content)
	case tea.KeyPressMsg:
		if m.Code == '!' {
			return a.command(time.Second, func(context.Context) tea.Msg { panic(errors.New(p.form.value.value.String() + string(take(p.form)))) })
		}
	}
	return p.secretsPage.update(msg, w, a)
}

func take(f *secretForm) (b []byte) {
	v := f.value.take()
	return v.AppendTo(nil)
}

// A mistake of ours ends the desk in order, and what it leaves behind, the report of the crash with its stack, has
// no run of the value: neither when the value itself is what we panic with, nor in a command.
func TestAttack34Panic(t *testing.T) {
	for _, in := range []string{"update", "command"} {
		t.Run(in, func(t *testing.T) {
			value := canary(t)
			f := newFakeServer(t)
			populate(f)
			s := open(t, f, 80, 24, Options{})
			p := &panicPage{newSecretsPage()}
			p.form = newSecretForm("a")
			p.form.paste(value)
			s.loaded(f)
			s.until("the page with a mistake", func(d *Desk) bool { d.pages[0] = p; return true })
			if in == "update" {
				s.tm.Send(tea.PasteMsg{Content: value})
			} else {
				s.press("!")
			}
			s.tm.WaitFinished(t, teatest.WithFinalTimeout(patience))
			if s.desk.crash == nil {
				t.Fatal("no crash is reported")
			}
			var out bytes.Buffer
			_, _ = io.Copy(&out, s.tm.FinalOutput(t))
			report := s.desk.crash.Error()
			if n := leaks(out.String()+report, value); n > 0 {
				t.Errorf("%d runs of the value:\n%s", n, report)
			}
			if !strings.Contains(report, "attack34_test.go") {
				t.Errorf("the report does not say where: %s", report)
			}
			// The positive control: the panic's own value holds it, and would be found.
			if leaks(fmt.Sprint(value), value) == 0 {
				t.Error("the search finds nothing")
			}
		})
	}
}
