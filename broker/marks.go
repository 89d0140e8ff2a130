package broker

import (
	"encoding/binary"
	"io"
	"strings"

	"torno.internal/protocol/control"
)

// A markCounter counts placeholders in what is read through it.
type markCounter struct {
	r     io.Reader
	count *int
	tail  []byte // the end of what was read, shorter than a mark
}

func (m *markCounter) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.take(p[:n])
	return n, err
}

func (m *markCounter) take(b []byte) {
	const mark = control.PlaceholderMark
	border := append(m.tail, b[:min(len(b), len(mark)-1)]...)
	*m.count += strings.Count(string(border), mark) + countMarks(b)
	if len(b) >= len(mark)-1 {
		border = b
	}
	m.tail = append(m.tail[:0], border[max(0, len(border)-len(mark)+1):]...)
}

// gram is how many bytes of a mark are looked up at once, and markStep how far apart: of the places in the text that lie so far
// apart, exactly one has a whole gram of a mark that stands there. All uploads are looked through, so this is done as fast as
// memory is read, whatever the text; looking for the mark's first letter stops at every t of a text.
const (
	gram     = 4
	markStep = len(control.PlaceholderMark) - gram + 1
)

// markAt holds, for the low bits of a gram's hash, where in the mark the gram stands, and the gram.
var markAt = func() (t [256]struct {
	gram uint32
	at   int
}) {
	for i := range t {
		t[i].at = -1
	}
	for at := range markStep {
		g := binary.LittleEndian.Uint32([]byte(control.PlaceholderMark)[at:])
		slot := &t[markHash(g)]
		if slot.at >= 0 {
			panic("two grams of the placeholders' mark in one place of the table")
		}
		slot.gram, slot.at = g, at
	}
	return t
}()

func markHash(g uint32) uint32 { return g * 0x9E3779B1 >> 24 }

// countMarks counts the marks in b.
func countMarks(b []byte) (n int) {
	const mark = control.PlaceholderMark
	for i := 0; i+gram <= len(b); i += markStep {
		g := binary.LittleEndian.Uint32(b[i:])
		slot := &markAt[markHash(g)]
		if slot.gram != g {
			continue
		}
		if from := i - slot.at; slot.at >= 0 && from >= 0 && from+len(mark) <= len(b) && string(b[from:from+len(mark)]) == mark {
			n++
		}
	}
	return n
}
