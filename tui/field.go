package tui

import (
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A field is a line that a person types and sees. It takes only keys that accept allows, so that it never shows
// anything of a value that was typed by mistake but what a name or a host may look like.
type field struct {
	text   string
	accept func(text string) bool
}

// key takes a key. Nothing is pasted into a field.
func (f *field) key(k tea.KeyPressMsg) {
	switch k.String() {
	case "backspace", "ctrl+h":
		if f.text != "" {
			_, n := utf8.DecodeLastRuneInString(f.text)
			f.text = f.text[:len(f.text)-n]
		}
	case "ctrl+u", "ctrl+w":
		f.text = ""
	default:
		if next := f.text + k.Text; k.Text != "" && (f.accept == nil || f.accept(next)) {
			f.text = next
		}
	}
}

// A hidden field takes a secret's value. Nothing reads its bytes but take; what is drawn of it is its length.
type hidden struct{ value secret.Value }

func (h *hidden) key(k tea.KeyPressMsg) {
	switch k.String() {
	case "backspace", "ctrl+h":
		h.cut()
	case "ctrl+u", "ctrl+w":
		h.value.Wipe()
	default:
		h.add(k.Text)
	}
}

// add appends text as far as a value may be long, and wipes the bytes that it moves.
func (h *hidden) add(text string) {
	n := min(len(text), control.MaxValue+1-h.value.Len()) // one too many is refused by name when it is set
	larger := append(h.value.AppendTo(make([]byte, 0, h.value.Len()+n)), text[:n]...)
	h.replace(larger)
}

// cut removes the last character.
func (h *hidden) cut() {
	var kept []byte
	_ = h.value.Use(func(b []byte) error {
		_, n := utf8.DecodeLastRune(b)
		kept = append(make([]byte, 0, len(b)), b[:len(b)-n]...)
		return nil
	})
	h.replace(kept)
}

// replace wipes the value and takes b instead, which swap and core files do not get where the kernel allows that.
func (h *hidden) replace(b []byte) {
	h.value.Wipe()
	h.value = secret.New(b)
	h.value.Lock()
}

// take hands the value over, without the newline that a paste may end with, and empties the field.
func (h *hidden) take() secret.Value {
	v := h.value
	h.value = secret.Value{}
	_ = v.Use(func(b []byte) error {
		for range 2 {
			if n := len(b); n > 0 && (b[n-1] == '\n' || b[n-1] == '\r') {
				b = b[:n-1]
			}
		}
		v = secret.New(b)
		return nil
	})
	return v
}
