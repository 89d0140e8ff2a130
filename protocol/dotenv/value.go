package dotenv

import "bytes"

// What errors advise.
const (
	hintSingle = "put the value in single quotes"
	hintDouble = "put the value in double quotes"
)

// value reads a value and the end of its line.
func (p *parser) value() ([]byte, *Error) {
	if p.atEnd() {
		p.newline()
		return nil, nil
	}
	var value []byte
	var err *Error
	switch p.rest[0] {
	case '\'':
		value, err = p.literal()
	case '"':
		value, err = p.escaped()
	default:
		return p.plain()
	}
	if err != nil {
		return value, err
	}
	if spaced := p.spaces(); !p.atEnd() && !(spaced && p.rest[0] == '#') {
		return value, p.fail("something stands after the closing quote", `\" in double quotes is one; a comment needs a space before it`)
	}
	p.take(len(p.untilEnd()))
	p.newline()
	return value, nil
}

// plain reads a value without quotes.
func (p *parser) plain() ([]byte, *Error) {
	line := p.untilEnd()
	value := line
	for i, c := range line {
		switch {
		case c == '#' && i > 0 && isSpace(line[i-1]):
			value = line[:i]
		case c == '#':
			return nil, p.fail("a # that is a comment for some readers and part of the value for others", hintSingle)
		case c == '$':
			return nil, p.fail("a $ that some readers replace by a variable", hintSingle)
		case c == '`' && i == 0:
			return nil, p.fail("a backtick that is a quote for some readers", hintSingle)
		default:
			continue
		}
		break
	}
	value = bytes.TrimRight(value, " \t")
	if bytes.HasSuffix(value, []byte(`\`)) {
		return nil, p.fail("a backslash at the end that joins two lines for some readers", hintSingle)
	}
	if bytes.HasPrefix(value, []byte("-----BEGIN ")) {
		return nil, p.fail("PEM without quotes is its first line alone", hintDouble)
	}
	owned := append(make([]byte, 0, len(value)), value...)
	p.take(len(line))
	p.newline()
	return owned, nil
}

// literal reads a value in single quotes.
func (p *parser) literal() ([]byte, *Error) {
	begun := p.line
	end := bytes.IndexByte(p.rest[1:], '\'')
	if end < 0 {
		return nil, &Error{Line: begun, Message: "a quote that begins here does not end"}
	}
	value := make([]byte, 0, end)
	for i, text := 0, p.rest[1:1+end]; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && (i+1 == len(text) || text[i+1] == '\\'):
			return value, p.fail("a backslash before another or before a quote, which some readers drop", hintDouble+` and double each \`)
		case c == '\r': // before a line feed
		default:
			p.count(c)
			value = append(value, c)
		}
	}
	p.take(end + 2)
	return value, nil
}

// escapes are what a backslash means in double quotes.
var escapes = map[byte]byte{'n': '\n', 'r': '\r', '"': '"', '\\': '\\', '$': '$'}

// escaped reads a value in double quotes.
func (p *parser) escaped() ([]byte, *Error) {
	begun := p.line
	end := quoteEnd(p.rest[1:])
	if end < 0 {
		return nil, &Error{Line: begun, Message: "a quote that begins here does not end"}
	}
	value := make([]byte, 0, end)
	for i, text := 0, p.rest[1:1+end]; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			i++
			meant, ok := escapes[text[i]]
			if !ok {
				return value, p.fail("a backslash before what it means different things for", `in double quotes \n, \r, \", \\ and \$ are known; or `+hintSingle)
			}
			value = append(value, meant)
		case '$':
			return value, p.fail("a $ that some readers replace by a variable", `write \$, or `+hintSingle)
		case '\r': // before a line feed
		default:
			p.count(c)
			value = append(value, c)
		}
	}
	p.take(end + 2)
	return value, nil
}

// count counts lines inside quotes.
func (p *parser) count(c byte) {
	if c == '\n' {
		p.line++
	}
}

// quoteEnd returns where the quote is that ends text, or -1. No backslash is the last byte before it.
func quoteEnd(text []byte) int {
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i
		}
	}
	return -1
}
