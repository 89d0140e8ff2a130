package tui

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"charm.land/bubbles/v2/key"
	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
)

// The lines of a secretForm.
const (
	lineAgent = iota
	lineName
	lineHosts
	lineHow
	lineHeader // or the scheme
	lineExpires
	lineValue
	lineCount
)

// The ways in which a secret that no preset knows is used.
var ways = []string{"bearer", "header", "other", "variable"}

const (
	wayBearer = iota
	wayHeader
	wayScheme
	wayVariable
)

// A secretForm sets a secret: a new one, or a new version of one. What has the focus changes at once with the key
// that moves it, never by a message that comes later, so that no key of a value lands in a field that is shown.
type secretForm struct {
	fields [lineCount]field
	way    int
	value  hidden
	at     int
	old    *control.SecretInfo // whose new version it is; nil: a new secret
	busy   bool                // the broker is being asked
	err    error
}

func newSecretForm(agent string) *secretForm {
	f := &secretForm{}
	f.fields[lineAgent] = field{text: agent, accept: func(t string) bool { return control.ValidAgent(t) }}
	f.fields[lineName].accept = control.ValidKey
	f.fields[lineHosts].accept = func(t string) bool { return only(t, "abcdefghijklmnopqrstuvwxyz0123456789.-: ", 256) }
	f.fields[lineHeader].accept = func(t string) bool {
		return only(t, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_: {}=,/@.%", 96)
	}
	f.fields[lineExpires].accept = func(t string) bool { return only(t, "0123456789dhmsTZ:-+ ", 25) }
	if agent != "" {
		f.at = lineName
	}
	return f
}

// newRotateForm is a form for a new version of a secret, which goes where the old one went.
func newRotateForm(old *control.SecretInfo) *secretForm {
	f := newSecretForm(old.Agent)
	f.fields[lineName].text, f.old, f.at = old.Name, old, lineValue
	return f
}

// only reports whether text holds at most n characters, all of them of set.
func only(text, set string, n int) bool {
	return len(text) <= n && strings.Trim(text, set) == "" && !strings.ContainsFunc(text, func(r rune) bool { return !strings.ContainsRune(set, r) })
}

func (*secretForm) keys() []key.Binding {
	return []key.Binding{hint("enter", "next"), hint("shift+tab", "back"), hint("ctrl+u", "clear"), hint("esc", "leave it")}
}

// kept is the secret whose audience and use the new version takes over: one that a person described, not a preset.
func (f *secretForm) kept(w *world) *control.SecretInfo {
	i, ok := w.secret(f.fields[lineAgent].text, f.fields[lineName].text)
	if !ok || i.Missing || i.Broken != "" || i.Preset != "" {
		return nil
	}
	return &i
}

// has reports whether a line is asked for.
func (f *secretForm) has(line int, w *world) bool {
	_, known := w.preset(f.fields[lineName].text)
	known = known || f.kept(w) != nil
	switch line {
	case lineAgent, lineName:
		return f.old == nil
	case lineHow:
		return !known
	case lineHosts:
		return !known && f.way != wayVariable
	case lineHeader:
		return !known && (f.way == wayHeader || f.way == wayScheme)
	}
	return true
}

// move goes to the next line that is asked for, or the one before.
func (f *secretForm) move(step int, w *world) {
	for at := f.at + step; at >= 0 && at < lineCount; at += step {
		if f.has(at, w) {
			f.at = at
			return
		}
	}
}

// key takes a key. left means that the form is over, with nothing done.
func (f *secretForm) key(k tea.KeyPressMsg, w *world, a asker) (cmd tea.Cmd, left bool) {
	switch name := k.String(); {
	case f.busy:
		return nil, false
	case name == "esc":
		return nil, true
	case name == "enter" && f.at == lineValue:
		return f.submit(w, a), false
	case name == "enter" || name == "tab" || name == "down":
		f.move(1, w)
	case name == "shift+tab" || name == "up":
		f.move(-1, w)
	case f.at == lineValue:
		f.value.key(k)
		f.err = nil
	case f.at == lineHow:
		switch name {
		case "right", "space", "l":
			f.way = (f.way + 1) % len(ways)
		case "left", "h":
			f.way = (f.way + len(ways) - 1) % len(ways)
		}
	default:
		if f.at == lineName {
			k.Text = strings.ToUpper(k.Text)
		}
		f.fields[f.at].key(k)
		f.err = nil
	}
	return nil, false
}

// paste takes what is pasted as the value's, whatever has the focus: what people paste here is a secret.
func (f *secretForm) paste(text string) {
	if !f.busy {
		f.at = lineValue
		f.value.add(text)
	}
}

func (f *secretForm) wipe() { f.value.value.Wipe() }

// submit hands the secret to the broker, if all is there.
func (f *secretForm) submit(w *world, a asker) tea.Cmd {
	m, prefixes, err := f.meta(w)
	if err != nil {
		f.err = err
		return nil
	}
	value := f.value.take()
	err = value.Use(func(v []byte) error {
		m.Weak = m.IsWeak(v, prefixes)
		return control.CheckValue(m, v)
	})
	if err != nil {
		value.Wipe()
		f.err = err
		return nil
	}
	f.busy, f.err = true, nil
	return a.set(m, value)
}

// ended takes how setting ended, and reports whether the form is over.
func (f *secretForm) ended(m setMsg) bool {
	f.busy, f.err = false, m.err
	return m.err == nil
}

// meta describes the secret as the form says, and the public beginnings that its preset knows.
func (f *secretForm) meta(w *world) (m control.Meta, prefixes []string, err error) {
	m = control.Meta{Agent: f.fields[lineAgent].text, Name: f.fields[lineName].text, Version: 1, Created: w.now}
	if !control.ValidAgent(m.Agent) || !control.ValidKey(m.Name) {
		return m, nil, errors.New("an agent and a name are needed")
	}
	if old, ok := w.secret(m.Agent, m.Name); ok {
		m.Rotation = old.Rotation
	}
	if old := f.kept(w); old != nil {
		m.Audience, m.Inject, m.Expose = old.Audience, old.Inject, old.Expose
	} else if p, known := w.preset(m.Name); known {
		m.Audience, m.Inject, m.Expose, m.Preset, prefixes = p.Audience, p.Inject, p.Expose, p.Name, p.Prefix
	} else {
		err = f.custom(&m)
	}
	if text := strings.TrimSpace(f.fields[lineExpires].text); err == nil && text != "" {
		m.Expires, err = control.ParseExpiry(text, w.now)
	}
	if err == nil {
		err = control.CheckMeta(m)
	}
	return m, prefixes, err
}

// custom describes what no preset knows.
func (f *secretForm) custom(m *control.Meta) error {
	if f.way == wayVariable {
		m.Expose = control.ExposeEnv
		return nil
	}
	hosts := strings.Fields(f.fields[lineHosts].text)
	if len(hosts) == 0 {
		return errors.New("say which host it may be sent to")
	}
	for _, h := range hosts {
		a, err := control.ParseOrigin(h)
		if err != nil {
			return err
		}
		if o := control.FormatOrigin(a); !slices.Contains(m.Audience, o) {
			m.Audience = append(m.Audience, o)
		}
	}
	var err error
	text := f.fields[lineHeader].text
	switch f.way {
	case wayBearer:
		m.Inject.Scheme = control.SchemeBearer
	case wayHeader:
		m.Inject.Scheme, m.Inject.Fields = control.SchemeHeader, make([]control.FieldTemplate, 1)
		m.Inject.Fields[0], err = control.ParseHeader(m.Name, text)
	case wayScheme:
		m.Inject, err = control.ParseScheme(text)
	}
	if err != nil {
		return fmt.Errorf("used as %s: %w", ways[f.way], err)
	}
	return nil
}
