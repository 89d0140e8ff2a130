// Package dotenv reads .env files: one NAME=VALUE a line, as the libraries of many languages do. There is no
// standard, and those readers differ; a secret that is read another way than its owner's program reads it is a
// wrong secret that nobody sees. So what they take in different ways is an error that says how to write it. Two
// differences are left, where no way of writing suits all: Node's dotenv keeps the backslash of \" \\ and \$, and
// python-dotenv replaces ${…} in single quotes too. Here, as in a shell, neither is so.
//
//	file     = [BOM] *line                      UTF-8; a line ends with LF or CR LF
//	line     = blank / comment / ["export" 1*WSP] name *WSP "=" *WSP value *WSP [1*WSP comment]
//	comment  = "#" …
//	name     = (ALPHA / "_") *(ALPHA / DIGIT / "_" / "." / "-")
//	value    = plain / "'" literal "'" / DQUOTE escaped DQUOTE
//
//	plain    up to the end of the line, spaces inside it too; # and $ need quotes, and so does \ at its end
//	literal  as it stands, of several lines too; \\ and \' need double quotes
//	escaped  of several lines too; \n \r \" \\ \$ mean what they do in most readers, $ alone and other escapes
//	         are refused
package dotenv

import (
	"bytes"
	"fmt"
	"unicode/utf8"

	"torno.internal/protocol/secret"
)

// Bounds of a file.
const (
	MaxFile    = 1 << 20 // bytes
	MaxEntries = 256     // names
	MaxName    = 128     // bytes of a name
)

// An Entry is one name of a file and its value, which may be empty.
type Entry struct {
	Name  string // as the grammar has it, which is wider than that of secrets' names
	Line  int    // on which it stands, from 1
	Value secret.Value
}

// An Error says what is wrong with a file, and where. It holds nothing of what stands in the file, for any of that may
// be a secret.
type Error struct {
	Path    string
	Line    int // from 1; 0: the file as a whole
	Message string
	Hint    string // what to write instead; empty: the message says it
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Path + ": " + e.Message
	}
	return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Message)
}

// Parse reads a file's bytes, which it does not keep: the caller wipes them, and the values. path is for errors,
// which are all of type *Error; beside one there are no entries.
func Parse(path string, b []byte) ([]Entry, error) {
	p := &parser{rest: b, line: 1}
	entries, err := p.file()
	if err == nil {
		return entries, nil
	}
	for i := range entries {
		entries[i].Value.Wipe()
	}
	err.Path = path
	return nil, err
}

// A parser reads from the beginning of rest.
type parser struct {
	rest []byte
	line int
}

var (
	bom   = []byte("\xef\xbb\xbf")
	utf16 = [][]byte{{0xff, 0xfe}, {0xfe, 0xff}}
)

// file reads all of it. Beside an error it returns what it read before.
func (p *parser) file() (entries []Entry, err *Error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	p.rest = bytes.TrimPrefix(p.rest, bom)
	lines := map[string]int{}
	for p.blank() {
		e, err := p.entry()
		if err != nil {
			return entries, err
		}
		entries = append(entries, e)
		switch first := lines[e.Name]; {
		case first > 0:
			return entries, &Error{Line: e.Line, Message: fmt.Sprintf("the name stands in line %d already", first), Hint: "readers take the first or the last; leave one"}
		case len(entries) > MaxEntries:
			return entries, &Error{Line: e.Line, Message: fmt.Sprintf("more than %d names", MaxEntries)}
		}
		lines[e.Name] = e.Line
	}
	return entries, nil
}

// check refuses what is no text of the kind before anything of it is taken.
func (p *parser) check() *Error {
	if len(p.rest) > MaxFile {
		return &Error{Message: fmt.Sprintf("more than %d bytes", MaxFile)}
	}
	for _, mark := range utf16 {
		if bytes.HasPrefix(p.rest, mark) {
			return &Error{Line: 1, Message: "UTF-16", Hint: "save it as UTF-8"}
		}
	}
	line := 1
	for i := 0; i < len(p.rest); {
		r, size := utf8.DecodeRune(p.rest[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Error{Line: line, Message: "not UTF-8", Hint: "save it as UTF-8"}
		case r == 0:
			return &Error{Line: line, Message: "a NUL byte"}
		case r == '\r' && (i+1 == len(p.rest) || p.rest[i+1] != '\n'):
			return &Error{Line: line, Message: "a carriage return in the middle of a line", Hint: `\r in double quotes is one`}
		case r == '\n':
			line++
		}
		i += size
	}
	return nil
}

// blank skips lines that say nothing, and the spaces before what does, and reports whether anything is left.
func (p *parser) blank() bool {
	for {
		p.spaces()
		if len(p.rest) == 0 {
			return false
		}
		if p.rest[0] != '#' && !p.atEnd() {
			return true
		}
		p.take(len(p.untilEnd()))
		p.newline()
	}
}

// spaces skips spaces and tabs and reports whether there were any.
func (p *parser) spaces() bool {
	n := 0
	for n < len(p.rest) && isSpace(p.rest[n]) {
		n++
	}
	p.take(n)
	return n > 0
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

func (p *parser) take(n int) { p.rest = p.rest[n:] }

// untilEnd is what is left of the line, without what ends it.
func (p *parser) untilEnd() []byte {
	line, _, _ := bytes.Cut(p.rest, []byte("\n"))
	return bytes.TrimSuffix(line, []byte("\r"))
}

func (p *parser) atEnd() bool { return len(p.untilEnd()) == 0 }

// newline takes the end of a line, if it is there.
func (p *parser) newline() {
	p.rest = bytes.TrimPrefix(p.rest, []byte("\r"))
	if len(p.rest) > 0 {
		p.take(1)
		p.line++
	}
}

// fail is an error on the line where the parser stands.
func (p *parser) fail(message, hint string) *Error {
	return &Error{Line: p.line, Message: message, Hint: hint}
}

// entry reads a name and its value, to the end of the line.
func (p *parser) entry() (Entry, *Error) {
	const export = "export"
	if bytes.HasPrefix(p.rest, []byte(export)) && len(p.rest) > len(export) && isSpace(p.rest[len(export)]) {
		p.take(len(export))
		p.spaces()
	}
	e := Entry{Line: p.line}
	n := 0
	for n < len(p.rest) && isName(p.rest[n], n) {
		n++
	}
	if n == 0 {
		return e, p.fail("no name where one is wanted", "a line is NAME=VALUE; a value of several lines needs quotes")
	}
	if n > MaxName {
		return e, p.fail(fmt.Sprintf("a name of more than %d bytes", MaxName), "")
	}
	e.Name = string(p.rest[:n])
	p.take(n)
	p.spaces()
	if len(p.rest) == 0 || p.rest[0] != '=' {
		return e, p.fail("no = after the name", "a line is NAME=VALUE; a value of several lines needs quotes")
	}
	p.take(1)
	p.spaces()
	value, err := p.value()
	e.Value = secret.New(value)
	if err != nil {
		e.Value.Wipe()
	}
	return e, err
}

func isName(c byte, at int) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '_':
		return true
	case '0' <= c && c <= '9', c == '.', c == '-':
		return at > 0
	}
	return false
}
