package tui

import (
	"fmt"
	"strings"

	"torno.internal/protocol/control"
)

// formLabel is how wide the names of a form's lines are.
const formLabel = 10

var formLabels = [lineCount]string{"agent", "name", "goes to", "used as", "", "expires", "value"}

// formHelp says of each line what belongs there.
var formHelp = [lineCount]string{
	control.AgentGrammar, control.KeyGrammar, "hosts, over https; a space between: api.example.org files.example.org:8443",
	"left and right choose; a variable is visible inside the VM, to the agent's code", "",
	"30d, 12h, 2027-01-31; nothing: never", "not shown, also when pasted; enter sets it",
}

func (f *secretForm) view(s *styles, w *world, width, height int) string {
	inner := min(70, width-6)
	title := "Add a secret"
	if f.old != nil {
		title = fmt.Sprintf("New version of %s of %s", f.old.Name, f.old.Agent)
		if f.old.Missing || f.old.Broken != "" {
			title = fmt.Sprintf("Set %s of %s", f.old.Name, f.old.Agent)
		}
	}
	lines := []string{s.title.Render(cut(title, inner)), ""}
	for line := range lineCount {
		if f.has(line, w) {
			lines = append(lines, f.lineView(s, line, inner))
		}
		if line == lineName {
			lines = append(lines, f.fate(s, w, inner)...)
		}
	}
	lines = append(lines, "")
	switch {
	case f.err != nil:
		for _, l := range wrap(errorText(f.err), inner) {
			lines = append(lines, s.bad.Render(l))
		}
	case f.busy:
		lines = append(lines, s.accent.Render("sealing it to the broker's key …"))
	default:
		for _, l := range wrap(f.help(), inner) {
			lines = append(lines, s.dim.Render(l))
		}
	}
	lines = append(lines, strings.Repeat(" ", inner)) // as wide whatever stands in it
	return centred(strings.Join(lines, "\n"), width, height)
}

// help says what belongs into the line that has the focus.
func (f *secretForm) help() string {
	switch {
	case f.at == lineHeader && f.way == wayHeader:
		return "a field of the request, such as  X-Custom-Auth: {NAME}"
	case f.at == lineHeader:
		return "basic:user=U, git, query:name=N, path:template=/bot{NAME}/, cookie:name=N"
	}
	return formHelp[f.at]
}

// label names a line.
func (f *secretForm) label(line int) string {
	if line == lineHeader {
		return map[int]string{wayHeader: "field", wayScheme: "scheme"}[f.way]
	}
	return formLabels[line]
}

func (f *secretForm) lineView(s *styles, line, width int) string {
	label, cursor := s.dim, ""
	if line == f.at && !f.busy {
		label, cursor = s.accent, s.accent.Render("_")
	}
	text, room := "", width-2-formLabel-1
	switch line {
	case lineHow:
		text = f.waysView(s)
		cursor = ""
	case lineValue:
		text = f.value.view(s, room)
	default:
		t := []rune(f.fields[line].text)
		text = cut(string(t[max(0, len(t)-room):]), room)
	}
	return s.mark(line == f.at) + label.Render(fit(f.label(line), formLabel, false)) + text + cursor
}

func (f *secretForm) waysView(s *styles) string {
	var parts []string
	for i, way := range ways {
		switch {
		case i == f.way && s.plain:
			parts = append(parts, "["+way+"]")
		case i == f.way:
			parts = append(parts, s.chosenTab.Render(" "+way+" "))
		default:
			parts = append(parts, s.dim.Render(" "+way+" "))
		}
	}
	return strings.Join(parts, "")
}

// view draws that something was typed, and how long it is.
func (h *hidden) view(s *styles, width int) string {
	n := h.value.Len()
	if n == 0 {
		return ""
	}
	count := fmt.Sprintf(" %d bytes ", n)
	dot := "•"
	if s.plain {
		dot = "*"
	}
	return strings.Repeat(dot, min(n, 24, max(1, width-len(count)))) + s.dim.Render(count)
}

// fate says what the name means for the secret.
func (f *secretForm) fate(s *styles, w *world, width int) []string {
	name := f.fields[lineName].text
	var lines []string
	show := func(style func(...string) string, text string) {
		for _, l := range wrap(text, width-2-formLabel) {
			lines = append(lines, strings.Repeat(" ", 2+formLabel)+style(l))
		}
	}
	p, known := w.preset(name)
	_, exists := w.secret(f.fields[lineAgent].text, name)
	switch old := f.kept(w); {
	case old != nil:
		show(s.dim.Render, "goes where the old one goes: "+audience(old)+" as "+kind(old))
	case known && p.Expose != control.ExposeNone:
		show(s.warn.Render, p.Service+": a variable inside the VM, which the agent's code can read")
	case known:
		i := control.SecretInfo{Meta: control.Meta{Audience: p.Audience, Inject: p.Inject}}
		show(s.good.Render, p.Service+": goes to "+audience(&i)+" as "+kind(&i))
	}
	if f.old == nil && exists {
		show(s.warn.Render, "is set already; this makes a new version")
	}
	return lines
}
