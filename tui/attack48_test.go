package tui

import (
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/charmbracelet/x/ansi"

	"torno.internal/protocol/control"
)

// hostile is what a workload, an upstream or a file may put wherever it has a say: it sets titles, clears the
// screen, moves the cursor, asks the terminal, writes to the clipboard, and reorders and hides text.
const hostile = "\x1b]0;pwned\x07\x1b[2J\x1b[H\x1b[c\x1b]52;c;cHduZWQ=\x07\u009b31m\x00\x7f\b\r\u202e\u2066\u200b\u200d\ufeff\u2028\xff\xfetail"

// ours are the escapes that the desk itself writes: colours and weights.
var ours = regexp.MustCompile("\x1b\\[[0-9;:]*m")

// badRune finds what must not reach a terminal.
func badRune(frame string) (rune, bool) {
	for _, r := range ours.ReplaceAllString(frame, "") {
		if r != '\n' && (!unicode.IsPrint(r) || r == unicode.ReplacementChar) {
			return r, true
		}
	}
	return 0, false
}

// poison sets every string in v, however deep, to hostile. Strings that keep holds stay: they choose what is drawn.
func poison(v reflect.Value, keep map[string]bool) {
	switch v.Kind() {
	case reflect.String:
		if !keep[v.String()] {
			v.SetString(hostile)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			poison(v.Elem(), keep)
		}
	case reflect.Slice:
		for i := range v.Len() {
			poison(v.Index(i), keep)
		}
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			return
		}
		for i := range v.NumField() {
			poison(v.Field(i), keep)
		}
	}
}

// TestAttack48 has every string of a broker's answers be hostile, and looks at every page, sheet and dialog: no
// control character, no bidirectional or invisible one and no byte outside UTF-8 reaches the terminal.
func TestAttack48(t *testing.T) {
	keep := map[string]bool{"": true}
	for _, s := range []string{control.AuditBegin, control.AuditEnd, control.AuditRefused, control.AuditEvent, control.AuditCheckpoint, "proof",
		string(control.ExposeEnv), control.SchemeBearer, control.SchemeHeader, stateSuspended, stateLive} {
		keep[s] = true
	}
	frames, escaped := 0, 0
	for _, size := range sizes {
		for _, keys := range [][]string{{}, {"enter"}, {"end", "enter"}, {"r"}, {"d"}, {"2"}, {"2", "enter"}, {"2", "down", "enter", "end"}, {"2", "v"}, {"3"}, {"3", "enter"}, {"3", "down", "down", "enter"}, {"4"}, {"4", "enter"}, {"4", "down", "enter"}, {"5", "c"}, {"?"}} {
			for _, accessible := range []bool{false, true} {
				d := New(t.Context(), Options{Now: func() time.Time { return noon }, Accessible: accessible})
				d.width, d.height = size[0], size[1]
				f := &fakeServer{}
				populate(f)
				m := polledMsg{health: f.health, key: control.KeyInfo{ID: "x", Protected: "x"}, secrets: f.secrets, sessions: f.sessions, approvals: f.waiting}
				m.sessions[0].Console, m.sessions[0].Weaknesses = "x\ny", []string{"x"}
				poison(reflect.ValueOf(&m.health).Elem(), keep)
				poison(reflect.ValueOf(&m.key).Elem(), keep)
				poison(reflect.ValueOf(&m.secrets).Elem(), keep)
				poison(reflect.ValueOf(&m.sessions).Elem(), keep)
				poison(reflect.ValueOf(&m.approvals).Elem(), keep)
				poison(reflect.ValueOf(&f.records).Elem(), keep)
				d.update(m)
				d.update(recordsMsg{records: f.records})
				d.update(doneMsg{err: &control.Error{Message: hostile, Hint: hostile}})
				for _, k := range keys {
					d.update(keyOf(k))
					if p := d.pages[0].(*secretsPage); p.of != "" {
						d.update(historyMsg{of: p.of, versions: []control.SecretVersion{{Meta: m.secrets[0].Meta, State: hostile}}})
					}
					frames++
					frame := d.screen()
					if r, bad := badRune(frame); bad {
						t.Fatalf("%v %v accessible=%v: %U reaches the terminal", size, keys, accessible, r)
					}
					if strings.Contains(frame, `\x1b]0;`) {
						escaped++
					}
				}
			}
		}
	}
	if escaped < frames/2 {
		t.Errorf("hostile text is visible, escaped, in %d of %d frames: the test looks at too little", escaped, frames)
	}
	// The positive control: what a page would show without escaping is found.
	for _, part := range []string{"\x1b]0;x\x07", "\x1b[2J", "\u009b31m", "\u202e", "\u200b", "\r", "\xff"} {
		if _, bad := badRune("\x1b[1mtext\x1b[m" + part); !bad {
			t.Errorf("%q is not found", part)
		}
	}
	t.Logf("%d frames, hostile text visible as escaped in %d", frames, escaped)
}

// Long hostile text is cut and wrapped without tearing a wide character or an escape of ours.
func TestHostileWidths(t *testing.T) {
	for _, text := range []string{strings.Repeat("漢", 300), strings.Repeat("é\u0301", 300), strings.Repeat("👩‍👩‍👧", 100), strings.Repeat(hostile, 50), strings.Repeat("\\", 500)} {
		for _, n := range []int{0, 1, 2, 3, 17, 80} {
			if got := fit(text, n, false); ansi.StringWidth(got) != n {
				t.Errorf("fit(%.12q…, %d) has %d columns", text, n, ansi.StringWidth(got))
			}
			for _, l := range wrap(text, n) {
				if ansi.StringWidth(l) > max(2, n) {
					t.Errorf("wrap(%.12q…, %d): a line of %d columns", text, n, ansi.StringWidth(l))
				}
			}
		}
	}
}

// The desk draws something of the right size at every size, with every page, and never stops.
func TestEverySize(t *testing.T) {
	f := &fakeServer{}
	populate(f)
	d := New(t.Context(), Options{Now: func() time.Time { return noon }})
	d.update(polledMsg{health: f.health, secrets: f.secrets, sessions: f.sessions, approvals: f.waiting})
	d.update(recordsMsg{records: f.records})
	for page := range d.pages {
		for _, keys := range [][]string{{}, {"enter"}, {"?"}, {"esc"}, {"/"}, {"esc"}, {"a"}, {"esc"}} {
			d.at = page
			for _, k := range keys {
				d.update(keyOf(k))
			}
			for _, w := range []int{1, 10, leastWidth, 41, 57, 80, 119, 120, 300} {
				for _, h := range []int{1, 5, leastHeight, 11, 24, 90} {
					d.width, d.height = w, h
					frame := d.screen()
					if w < leastWidth || h < leastHeight {
						continue
					}
					checkFrame(t, frame, w, h)
				}
			}
			d.help = false
		}
	}
	if d.crash != nil {
		t.Error(d.crash)
	}
}
