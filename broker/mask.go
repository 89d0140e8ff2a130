package broker

import (
	"errors"

	"torno.internal/broker/internal/credential"
	"torno.internal/broker/internal/redact"
)

// guard returns what guards the exchange's authority now: versions of secrets that the session took up since
// the exchange began may come back in it too.
func (x *exchange) guard() *guarded {
	if g := x.s.guarded(x.authority, x.req.Scheme); g != nil {
		return g
	}
	return x.guarded
}

// masks mask one text from an upstream by what guards it, which may change while the text flows.
type masks struct {
	x     *exchange
	of    *credential.Set // whose secrets the last link masks
	guard *guarded        // which the last link is of
	chain []link
}

// A link is a scanner. Each but the last is kept only until the next has seen as much text as a run can be
// long: it has seen the beginning of a run that the next one missed.
type link struct {
	matcher *redact.Matcher
	scanner *redact.Scanner
	seen    int // bytes
}

// Bounds on a chain.
const (
	longestRun = 4 << 10 // bytes of text that a run of a secret takes in the widest of encodings, and more
	maxLinks   = 128     // a text that hardly moves meets many versions, but then there is little to mask
)

// errTooManyVersions ends an exchange through which more versions of a secret went than are masked at once.
var errTooManyVersions = errors.New("new versions of a secret came too fast for an answer")

func (x *exchange) masks() *masks {
	m := &masks{x: x, of: x.s.secrets(), guard: x.guard()}
	m.add(m.guard.matcher)
	return m
}

// stale reports whether there are secrets, or access tokens, that the last link does not know.
func (m *masks) stale() bool {
	return m.x.s.secrets() != m.of || !m.guard.minted.current(m.x.s.b.mints)
}

func (m *masks) add(matcher *redact.Matcher) {
	m.chain = append(m.chain, link{matcher: matcher, scanner: matcher.Scanner()})
}

// mask masks b in place, the next piece of the text, and returns how many runs it masked.
func (m *masks) mask(b []byte) (runs int, err error) {
	if m.stale() {
		m.of, m.guard = m.x.s.secrets(), m.x.guard()
		if next := m.guard.matcher; next != m.chain[len(m.chain)-1].matcher {
			m.add(next)
		}
		if len(m.chain) > maxLinks {
			return 0, errTooManyVersions
		}
	}
	for i := range m.chain {
		runs += m.chain[i].scanner.Mask(b)
		m.chain[i].seen += len(b)
	}
	for len(m.chain) > 1 && m.chain[1].seen >= longestRun {
		m.chain[0].scanner.Close()
		m.chain = m.chain[1:]
	}
	return runs, nil
}

// close wipes what the scanners remember.
func (m *masks) close() {
	for _, l := range m.chain {
		l.scanner.Close()
	}
}
