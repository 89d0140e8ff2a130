package redact

import (
	"bytes"
	"slices"
	"sync"

	"torno.internal/protocol/secret"
)

// history is how many bytes a Scanner remembers of what has flowed: enough for the shortest run that
// counts, with every byte of it spelled as long as it can be.
const history = 2 * maxRun * longestEntity // bytes

// A Scanner masks one stream of text: one message's content, the payloads of one direction of a WebSocket.
// Make it with Matcher.Scanner. It is not safe for concurrent use.
type Scanner struct {
	m *Matcher

	past    [2 * history]byte // the last bytes that flowed and may belong to a run, as they came, and room for the next ones
	n       int               // how many of past are in use
	odd     bool              // an odd number of backslashes stands before past
	masking bool              // the text so far ends within a masked run, or in open
	open    int               // how many bytes at the end of past are an escape that began right behind a masked run

	found, runs []span // scratch, as what follows
	undone      undone
}

var scanners = sync.Pool{New: func() any { return new(Scanner) }}

// Scanner returns a Scanner at the beginning of a text. Close it when done.
func (m *Matcher) Scanner() *Scanner {
	s := scanners.Get().(*Scanner)
	s.m = m
	return s
}

// Close overwrites what the Scanner remembers. It must not be used afterwards.
func (s *Scanner) Close() {
	s.wipe()
	s.m = nil
	scanners.Put(s)
}

// Mask overwrites, in p, the next piece of the text, everything that belongs to a run that counts, also to
// one that began in the pieces before. It returns how many runs began in p. It allocates nothing once the
// first runs and escapes were seen.
func (s *Scanner) Mask(p []byte) (began int) {
	if s.m.Empty() || len(p) == 0 {
		return 0
	}
	s.found = s.found[:0]
	if s.n > 0 {
		s.border(p)
	}
	if s.n == 0 || len(p) > history {
		s.search(p, s.oddAt(s.n))
	}
	if len(s.found) == 0 && !s.masking { // as it is nearly always
		s.remember(p)
		return 0
	}
	began, end := s.merge()
	s.masking = end == len(p)
	s.hold(p, end)
	s.remember(p) // as it came
	s.cover(p)
	return began
}

// border searches where p begins, together with what flowed before.
func (s *Scanner) border(p []byte) {
	b := append(s.past[:s.n:len(s.past)], p[:min(len(p), history)]...)
	s.search(b, s.odd)
	kept := s.found[:0]
	for _, r := range s.found {
		if r.to > s.n {
			kept = append(kept, span{max(0, r.from-s.n), r.to - s.n})
		}
	}
	s.found = kept
}

// search adds the runs in b to s.found.
func (s *Scanner) search(b []byte, odd bool) {
	s.found = s.m.scan(s.found, b)
	s.found = s.scanEscaped(s.found, b, odd)
	s.found = s.m.scanWeak(s.found, b)
}

// oddAt reports whether the text before past[i] ends with an odd number of backslashes.
func (s *Scanner) oddAt(i int) bool {
	odd := false
	for ; i > 0; i-- {
		if s.past[i-1] != '\\' {
			return odd
		}
		odd = !odd
	}
	return odd != s.odd
}

// remember keeps the last bytes of the text, as far as they may belong to a run.
func (s *Scanner) remember(p []byte) {
	k, least := len(p), max(0, len(p)-history)
	for k > least && s.m.spelled[p[k-1]] {
		k--
	}
	if k == 0 { // all of it
		if drop := s.n + len(p) - history; drop > 0 {
			s.odd = s.oddAt(drop)
			s.n = copy(s.past[:], s.past[drop:s.n])
		}
		s.n += copy(s.past[s.n:], p)
		return
	}
	before, odd := k, false
	for before > 0 && p[before-1] == '\\' {
		before, odd = before-1, !odd
	}
	if before == 0 {
		odd = odd != s.oddAt(s.n)
	}
	s.odd, s.n = odd, copy(s.past[:], p[k:])
}

// merge sorts the runs in s.found and joins those that touch. It returns how many began in p and where the
// last one ends; -1: there is none.
func (s *Scanner) merge() (began, end int) {
	slices.SortFunc(s.found, func(a, b span) int { return a.from - b.from })
	end = -1
	if s.masking {
		end = 0
	}
	for _, r := range s.found {
		if r.from > end {
			began++
		}
		end = max(end, r.to)
	}
	return began, end
}

// hold looks whether an escape that has begun, and not ended, follows a masked run that ends at p[end:]. If it
// goes on with the run half of it would have flowed, so it is masked as well.
func (s *Scanner) hold(p []byte, end int) {
	held := s.open
	s.open = 0
	var b []byte
	switch {
	case end > 0 && end < len(p):
		b = p[end:]
	case end == 0 && held+len(p) < longestEntity:
		b = append(s.past[s.n-held:s.n:len(s.past)], p...)
	}
	for i := range s.m.escapes {
		if s.m.escapes[i].open(b) {
			s.open, s.masking = len(b), true
		}
	}
}

// cover masks the runs in s.found and the open escape.
func (s *Scanner) cover(p []byte) {
	for _, r := range s.found {
		for i := r.from; i < r.to; i++ {
			p[i] = s.m.mask
		}
	}
	for i := max(0, len(p)-s.open); i < len(p); i++ {
		p[i] = s.m.mask
	}
}

func (s *Scanner) wipe() {
	secret.Wipe(s.past[:s.n])
	if s.undone.room != nil {
		secret.Wipe(s.undone.room[:])
	}
	s.n, s.odd, s.masking, s.open = 0, false, false, 0
}

// scanWeak appends to found the weak secrets in b that are all of a JSON string.
func (m *Matcher) scanWeak(found []span, b []byte) []span {
	for _, w := range m.weak {
		for i := 0; ; {
			j := bytes.Index(b[i:], w)
			if j < 0 {
				break
			}
			at, behind := i+j, i+j+len(w)
			if at > 0 && b[at-1] == '"' && behind < len(b) && b[behind] == '"' {
				found = append(found, span{at, behind})
			}
			i = at + 1
		}
	}
	return found
}
