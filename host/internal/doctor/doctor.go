// Package doctor looks at what torno needs of a machine, says why each thing matters and what mends it, and mends what is safe to
// mend: modes of torno's own files, and sockets that nobody listens on.
package doctor

import (
	"context"
	"fmt"
	"strings"
)

// The states of a finding.
const (
	StateOK    = "ok"
	StateWarn  = "warn"  // torno works, with less than it could have
	StateFail  = "fail"  // something does not work
	StateFixed = "fixed" // it did not, and now does
)

// A Finding is what was found of one thing. The zero value means nothing.
type Finding struct {
	Check  string `json:"check"`
	State  string `json:"state"`
	Detail string `json:"detail"`          // what is there
	Why    string `json:"why,omitempty"`   // what it is for
	Hint   string `json:"hint,omitempty"`  // what a person can do
	Fixed  string `json:"fixed,omitempty"` // what was done about it

	fix *Fix
}

// A Fix mends what was found, and is safe: it touches nothing but torno's own, and widens nothing.
type Fix struct {
	What string // "chmod 700 /run/torno"
	Do   func() error
	Then string // what is left to a person; "": nothing
}

// A Check looks at one thing.
type Check struct {
	Name string
	Why  string
	Look func(ctx context.Context) Finding
}

// maxFixes bounds how often one thing is mended: what is behind the first problem may be another.
const maxFixes = 4

// Run looks at everything, in order, and with mend also mends what is safe and looks again.
func Run(ctx context.Context, checks []Check, mend bool) []Finding {
	var out []Finding
	for _, c := range checks {
		f := c.Look(ctx)
		var did, then []string
		for n := 0; mend && f.fix != nil && n < maxFixes; n++ {
			fix := f.fix
			if err := fix.Do(); err != nil {
				f.Hint = fmt.Sprintf("%s: %v", fix.What, err)
				break
			}
			did = append(did, fix.What)
			if fix.Then != "" {
				then = append(then, fix.Then)
			}
			f = c.Look(ctx)
		}
		f.Fixed = strings.Join(did, "; ")
		if len(did) > 0 && f.State == StateOK {
			f.State, f.Hint = StateFixed, strings.Join(then, "; ")
		}
		f.Check, f.Why = c.Name, c.Why
		out = append(out, f)
	}
	return out
}

// Failed reports whether something does not work.
func Failed(all []Finding) bool {
	for _, f := range all {
		if f.State == StateFail {
			return true
		}
	}
	return false
}

// OK is what is as it should be.
func OK(format string, args ...any) Finding {
	return Finding{State: StateOK, Detail: fmt.Sprintf(format, args...)}
}

// Warn is what could be better.
func Warn(hint, format string, args ...any) Finding {
	return Finding{State: StateWarn, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// Fail is what does not work.
func Fail(hint, format string, args ...any) Finding {
	return Finding{State: StateFail, Detail: fmt.Sprintf(format, args...), Hint: hint}
}

// With returns f with what mends it; the hint is "torno doctor --fix", where there is no other.
func (f Finding) With(fix Fix) Finding {
	f.fix = &fix
	if f.Hint == "" {
		f.Hint = fix.What + ", or torno doctor --fix"
	}
	return f
}
