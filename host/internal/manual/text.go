package manual

import (
	"regexp"
	"strings"
)

// heading is a line of text that begins a section: upper case, not indented.
var heading = regexp.MustCompile(`(?m)^[A-Z][A-Z ]+$`)

// sections splits a topic's text at its headings.
func sections(text string) []part {
	var parts []part
	at := heading.FindAllStringIndex(text, -1)
	for i, h := range at {
		end := len(text)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		parts = append(parts, part{title: text[h[0]:h[1]], level: 1, blocks: blocks(text[h[1]:end])})
	}
	return parts
}

// blocks reads plain text: indented lines are literal, a line that indented ones follow at once is the term that they
// explain, and all else is prose.
func blocks(text string) []block {
	var out []block
	for _, chunk := range chunks(text) {
		first, rest, _ := strings.Cut(chunk, "\n")
		switch {
		case strings.HasPrefix(first, "  "):
			if n := len(out); n > 0 && out[n-1].kind == literal {
				out[n-1].text += "\n" + dedent(chunk)
			} else {
				out = append(out, block{kind: literal, text: dedent(chunk)})
			}
		case strings.HasPrefix(rest, "    "):
			out = append(out, terms(chunk)...)
		default:
			out = append(out, block{kind: prose, text: chunk})
		}
	}
	return out
}

// terms reads terms and their explanations, one below the other.
func terms(chunk string) []block {
	var out []block
	for line := range strings.Lines(chunk) {
		line = strings.TrimRight(line, "\n")
		if n := len(out); strings.HasPrefix(line, "    ") && n > 0 {
			out[n-1].text += strings.TrimSpace(line) + "\n"
		} else {
			out = append(out, block{kind: tagged, tag: line})
		}
	}
	return out
}

// chunks splits text at empty lines.
func chunks(text string) []string {
	var out []string
	for _, c := range regexp.MustCompile(`\n[ \t]*\n`).Split(strings.Trim(text, "\n"), -1) {
		if strings.TrimSpace(c) != "" {
			out = append(out, strings.Trim(c, "\n"))
		}
	}
	return out
}

// dedent removes the indentation that all lines share.
func dedent(text string) string {
	indent := -1
	for line := range strings.Lines(text) {
		if n := len(line) - len(strings.TrimLeft(line, " ")); indent < 0 || n < indent {
			indent = n
		}
	}
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(line[indent:])
	}
	return b.String()
}
