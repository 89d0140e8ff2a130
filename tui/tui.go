// Package tui is torno's desk: secrets, sessions, requests, approvals and health of one broker on a terminal. It
// asks the broker over its control socket and holds nothing that the broker does not hold.
//
// Pages are pure: what happens is a message, and Update of a page changes that page and names the commands that
// follow. Only commands (ask.go, stream.go) have effects, and each ends in one typed message. Whatever is shown
// goes through the renderers of list.go and sheet.go, which escape it.
//
// A secret's value is in one place, the hidden field of a form, until it is handed to Broker.Set. No renderer
// reads that field, what is pasted into a form goes there whatever has the focus, and no message that is logged
// or printed holds it.
package tui

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
	"torno.internal/protocol/secret"
)

// A Broker is asked by the desk. Its errors are a *control.Error where the broker answered, and anything else where
// it could not be asked. It is used concurrently.
type Broker interface {
	// Do asks for method path, with in as JSON unless it is nil, and decodes the answer into out unless that is nil.
	Do(ctx context.Context, method, path string, in, out any) error
	// Follow asks for an answer without an end. The caller closes it.
	Follow(ctx context.Context, path string) (io.ReadCloser, error)
	// Set seals value to the broker's key and has it kept as m says, in the next version, which it returns.
	Set(ctx context.Context, m control.Meta, value secret.Value) (control.Meta, error)
}

// Options say what the desk shows and how. Broker is required.
type Options struct {
	Broker Broker
	Start  func(context.Context) error // starts a broker, and may ask on the terminal meanwhile; nil: the desk can't
	Place  string                      // where the broker is asked, for people

	Theme      Theme
	Accessible bool // for screen readers: no box drawing, no pictures, nothing that moves by itself
	NoMouse    bool

	Now func() time.Time // nil: time.Now
}

// A Theme says what the terminal's background is.
type Theme string

// The themes.
const (
	ThemeAuto  Theme = "auto" // what the terminal answers; dark where it does not
	ThemeDark  Theme = "dark"
	ThemeLight Theme = "light"
)

// A CrashError means that the desk had a mistake of its own. It says where, and nothing of what was typed.
type CrashError struct {
	What  string // the panic's kind
	Stack []byte
}

func (e *CrashError) Error() string {
	return fmt.Sprintf("the desk stopped at a mistake of its own (%s)\n%s", e.What, e.Stack)
}

// Run shows the desk on the terminal until the person leaves it or ctx ends. From then on the process can't be
// looked into by others of its user, and leaves no core file.
func Run(ctx context.Context, o Options) error {
	if err := harden(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // what still asks the broker ends with us
	p := tea.NewProgram(New(ctx, o), tea.WithContext(ctx), tea.WithoutCatchPanics(), tea.WithoutSignalHandler())
	last, err := p.Run()
	if d, ok := last.(*Desk); ok && d.crash != nil {
		return d.crash
	}
	if errors.Is(err, tea.ErrProgramKilled) && ctx.Err() != nil {
		return nil // ended from outside
	}
	return err
}

// harden keeps what is typed here out of other processes, out of core files and out of the traces that the
// libraries below write of every key where the environment asks for them.
func harden() error {
	for _, name := range []string{"TEA_TRACE", "TEA_DEBUG", "UV_DEBUG"} {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	debug.SetTraceback("single") // of our own goroutine alone; a crash makes no core
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}

// crashed describes a panic without its value, which may hold what was typed. The runtime's own errors hold numbers
// and types alone.
func crashed(r any) *CrashError {
	what := fmt.Sprintf("%T", r)
	var own interface{ RuntimeError() }
	if err, ok := r.(error); ok && errors.As(err, &own) {
		what = err.Error()
	}
	return &CrashError{What: what, Stack: debug.Stack()}
}
