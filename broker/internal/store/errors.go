package store

import (
	"errors"
	"fmt"

	"torno.internal/protocol/control"
)

// The errors that callers match.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("version conflict")
	ErrTampered = errors.New("changed outside of torno")
	ErrOldKey   = errors.New("sealed to another key")
	ErrDamaged  = errors.New("the store's file is damaged")
)

// A BusyError means that another process has the state directory open.
type BusyError struct {
	Dir string
	PID int // 0 if unknown
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("state directory %q is in use by process %d", e.Dir, e.PID)
}

// A DirError means that the state directory, or a file in it, is not ours alone.
type DirError struct {
	Path, Why string
	Hint      string // what to do about it
}

func (e *DirError) Error() string { return fmt.Sprintf("%q %s", e.Path, e.Why) }

// A TamperedError names what was changed, removed or put back outside of torno. It matches ErrTampered.
type TamperedError struct {
	Agent   string // empty: it is about no agent
	Name    string // of the secret; empty: it is about the agent, or about the store
	Version int    // 0: about the name
	What    string // for people, where Agent and Name do not say it
	Why     string // for people
}

func (e *TamperedError) Error() string {
	return fmt.Sprintf("%s: %v: %s", e.subject(), ErrTampered, e.Why)
}

func (e *TamperedError) Unwrap() error { return ErrTampered }

func (e *TamperedError) subject() string {
	switch {
	case e.What != "":
		return e.What
	case e.Version > 0:
		return fmt.Sprintf("secret %q of agent %q, version %d", e.Name, e.Agent, e.Version)
	}
	return fmt.Sprintf("secret %q of agent %q", e.Name, e.Agent)
}

// A DamagedError says that the store's file, or a page of it, is not what can be read: a disk that fails, a copy that was cut
// short. Nothing is read or written until it was replaced. It matches ErrDamaged, and is a *control.Error for those who ask
// the broker.
type DamagedError struct {
	Path string
	Why  string // for people: which page, and what is wrong with it
}

func (e *DamagedError) Error() string { return fmt.Sprintf("%v: %q: %s", ErrDamaged, e.Path, e.Why) }

func (e *DamagedError) Unwrap() error { return ErrDamaged }

// As implements what errors.As looks for.
func (e *DamagedError) As(target any) bool {
	ce, ok := target.(**control.Error)
	if ok {
		*ce = &control.Error{Code: control.CodeDamaged, Message: e.Error(), Hint: DamagedHint}
	}
	return ok
}

// DamagedHint says what to do about a *DamagedError.
const DamagedHint = "end the broker, then torno store restore --force BACKUP, which keeps the damaged file beside it; look at the disk"
