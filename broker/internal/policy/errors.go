package policy

import (
	"errors"
	"fmt"
)

// A RuleError says what is wrong with one rule of one list.
type RuleError struct {
	File  string // "torno.toml" or "broker.toml"
	List  string // the list's key, as in "egress.allow"
	Index int    // of the rule in its list, from 0
	Rule  string // as written
	Err   error
}

// Error gives one line, the rule counted from 1, and the hint, if there is one, on a second.
func (e *RuleError) Error() string {
	s := fmt.Sprintf("%s: %s, rule %d %q: %v", e.File, e.List, e.Index+1, e.Rule, e.Err)
	if h := e.Hint(); h != "" {
		s += "\nhint: " + h
	}
	return s
}

// Hint says what to write instead, or nothing.
func (e *RuleError) Hint() string {
	var h *hintError
	if errors.As(e.Err, &h) {
		return h.hint
	}
	return ""
}

func (e *RuleError) Unwrap() error { return e.Err }

// A hintError carries advice for people beside an error. Its text is the error's alone.
type hintError struct {
	error
	hint string
}

func hint(err error, advice string) error { return &hintError{err, advice} }

func (e *hintError) Unwrap() error { return e.error }
