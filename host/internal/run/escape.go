package run

import "io"

// An escape looks for ~. at the beginning of a line, as ssh does, and calls stop; ~~ there is one ~.
// Everything else passes as typed, the ~ together with the byte after it.
type escape struct {
	from    io.Reader
	stop    func()
	state   escapeState
	pending []byte
}

type escapeState uint8

const (
	lineStart escapeState = iota // the zero value: a run begins with a line
	inLine
	tilde   // a ~ at the beginning of a line, held back
	stopped // nothing goes on any more
)

func (e *escape) Read(p []byte) (int, error) {
	if len(e.pending) > 0 {
		n := copy(p, e.pending)
		e.pending = e.pending[n:]
		return n, nil
	}
	for e.state != stopped {
		buf := make([]byte, len(p))
		n, err := e.from.Read(buf)
		out := e.filter(buf[:n])
		if err != nil && e.state == tilde { // the end of the input sets it free
			out, e.state = append(out, '~'), inLine
		}
		if len(out) > 0 {
			n := copy(p, out)
			e.pending = out[n:]
			return n, nil // the error comes again
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, errOver
}

// filter returns what of typed goes on.
func (e *escape) filter(typed []byte) []byte {
	out := make([]byte, 0, len(typed)+1)
	for _, c := range typed {
		held := e.state == tilde
		switch {
		case held && c == '.':
			e.stop()
			e.state = stopped
			return out
		case held && c == '~':
			e.state = inLine
			out = append(out, '~')
			continue
		case held:
			out = append(out, '~')
		case e.state == lineStart && c == '~':
			e.state = tilde
			continue
		}
		out = append(out, c)
		e.state = inLine
		if c == '\r' || c == '\n' {
			e.state = lineStart
		}
	}
	return out
}
