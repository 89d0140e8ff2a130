package store

import (
	"errors"
	"fmt"
)

// The errors that callers match.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("version conflict")
	ErrTampered = errors.New("changed outside of torno")
)

// A BusyError means that another process has the state directory open.
type BusyError struct {
	Dir string
	PID int // 0 if unknown
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("state directory %q is in use by process %d", e.Dir, e.PID)
}
