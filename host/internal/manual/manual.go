// Package manual makes torno's manual pages: one for each command from the command itself, and one for each topic from
// text that "torno help" prints too. The pages are roff for man(7), without a word that a formatter would warn of.
package manual

import (
	"fmt"
	"io"
	"strings"
)

// A Page is one manual page.
type Page struct {
	Name    string // "torno-run"
	Section int    // 1, 5 or 8
	Summary string // what stands behind the dash in NAME
	parts   []part
}

// File returns the name of the page's file, as in torno.toml.5.
func (p Page) File() string { return fmt.Sprintf("%s.%d", p.Name, p.Section) }

// A part is a section of a page; parts of level 2 belong to the one before.
type part struct {
	title  string
	level  int
	blocks []block
}

// The kinds of blocks.
const (
	prose   = iota // filled
	literal        // as it stands
	tagged         // a term, and prose that explains it
	usage          // a command line, whose first words are bold
)

// A block is what stands between two empty lines.
type block struct {
	kind int
	tag  string // of a tagged one; bold
	text string
}

// Roff writes the page. Date is that of the text, as in 2006-01-02; version is the program's.
func (p Page) Roff(w io.Writer, date, version string) error {
	var b strings.Builder
	fmt.Fprintf(&b, ".TH %s %d %s \"torno %s\" \"torno\"\n", quoted(strings.ToUpper(p.Name)), p.Section, date, version)
	fmt.Fprintf(&b, ".SH NAME\n%s \\- %s\n", escaped(p.Name), escaped(p.Summary))
	for _, s := range p.parts {
		macro := ".SH"
		if s.level == 2 {
			macro = ".SS"
		}
		fmt.Fprintf(&b, "%s %s\n", macro, quoted(s.title))
		for i, block := range s.blocks {
			block.roff(&b, i == 0)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (b block) roff(w *strings.Builder, first bool) {
	switch b.kind {
	case prose:
		if !first {
			w.WriteString(".PP\n")
		}
		w.WriteString(wrapped(b.text))
	case literal:
		if !first {
			w.WriteString(".PP\n")
		}
		fmt.Fprintf(w, ".RS 4\n.EX\n%s.EE\n.RE\n", lines(b.text))
	case tagged:
		fmt.Fprintf(w, ".TP\n\\fB%s\\fR\n%s", escaped(b.tag), wrapped(b.text))
	case usage:
		if !first {
			w.WriteString(".br\n")
		}
		w.WriteString(strings.TrimRight(fmt.Sprintf("\\fB%s\\fR %s", escaped(b.tag), escaped(b.text)), " ") + "\n")
	}
}

// width is how long lines of filled text are in the file, in bytes.
const width = 78

// wrapped escapes text that is filled anyway, in lines that fit a terminal.
func wrapped(text string) string {
	var b strings.Builder
	column := 0
	for _, word := range strings.Fields(text) {
		word = escaped(word)
		switch {
		case column > 0 && column+1+len(word) <= width:
			b.WriteByte(' ')
			column++
		case column > 0:
			b.WriteByte('\n')
			column = 0
		}
		if column == 0 {
			word = inert(word)
		}
		b.WriteString(word)
		column += len(word)
	}
	return b.String() + "\n"
}

// lines escapes text of several lines, none of which begins with what roff takes for a request.
func lines(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(inert(escaped(strings.TrimRight(line, "\n"))) + "\n")
	}
	return b.String()
}

// inert returns a line that roff does not take for a request.
func inert(line string) string {
	if line == "" || line[0] == '.' {
		return `\&` + line
	}
	return line
}

// escaped returns text in which roff finds nothing to obey. Hyphens are those that are typed.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\e`)
		case r == '-':
			b.WriteString(`\-`)
		case r == '\'':
			b.WriteString(`\(aq`)
		case r == '`':
			b.WriteString(`\(ga`)
		case r == '^':
			b.WriteString(`\(ha`)
		case r == '~':
			b.WriteString(`\(ti`)
		case r == '\t':
			b.WriteString("    ")
		case r > '~':
			fmt.Fprintf(&b, `\[u%04X]`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// quoted returns text as one argument of a macro.
func quoted(text string) string {
	return `"` + strings.ReplaceAll(escaped(text), `"`, `\(dq`) + `"`
}
