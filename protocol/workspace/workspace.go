// Package workspace implements the archive in which a workspace goes into the guest and its changes come
// back (SPEC.md §8): a subset of the pax format (POSIX.1-2001) that can say nothing but regular files,
// directories, symbolic links, and that something is not there.
//
//	+--------+---------+--------+---------+-- … --+----------+
//	| header | content | header | content |       | 2 × 512  |
//	| 512 n  | padded  |        |         |       | zeros    |
//	+--------+---------+--------+---------+-- … --+----------+
//
// Entries stand in the order of Compare, so each name comes once and a directory before what is in it.
package workspace

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"torno.internal/protocol"
)

// ErrMalformed means that the bytes are not an archive of the subset, or that an entry to be written has
// no place in one.
var ErrMalformed = errors.New("malformed workspace archive")

// ErrTooLarge means that an archive is over one of its limits.
var ErrTooLarge = errors.New("workspace too large")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// A Kind says what an entry is.
type Kind uint8

// The kinds.
const (
	File Kind = iota + 1
	Directory
	Symlink
	Deleted // went in, and is no more, with all that was below it
	Other   // neither of these, so it can't come back: a socket, a device
)

// An Entry is one name of a workspace.
type Entry struct {
	Name       string // path below the workspace: relative, clean, slashes between its elements
	Kind       Kind
	Size       int64     // of a File, in bytes
	Executable bool      // a File
	Modified   time.Time // a File, in whole seconds; zero: unknown
	Target     string    // of a Symlink, as readlink(2) gives it
}

// Limits bound an archive. The zero value means those of package protocol.
type Limits struct {
	Entries int
	Bytes   int64 // of files
	Names   int64 // bytes of names and targets
}

func (l Limits) orDefault() Limits {
	if l == (Limits{}) {
		return Limits{protocol.MaxWorkspaceEntries, protocol.MaxWorkspaceBytes, protocol.MaxWorkspaceNames}
	}
	return l
}

// Take counts e in. It returns ErrTooLarge once there is more than the limits allow.
func (l *Limits) Take(e *Entry) error {
	l.Entries--
	l.Bytes -= e.Size
	l.Names -= int64(len(e.Name) + len(e.Target))
	switch {
	case l.Entries < 0:
		return fmt.Errorf("%w: too many files", ErrTooLarge)
	case l.Bytes < 0:
		return fmt.Errorf("%w: too many bytes", ErrTooLarge)
	case l.Names < 0:
		return fmt.Errorf("%w: too many bytes of names", ErrTooLarge)
	}
	return nil
}

// NewLimits returns those of package protocol, to be counted down.
func NewLimits() Limits { return Limits{}.orDefault() }

// Compare orders names as a walk of the tree meets them, each directory's by the bytes of their elements:
// it returns a negative number if a comes before b, and 0 if they are the same.
func Compare(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		switch x, y := a[i], b[i]; {
		case x == y:
		case x == '/': // the end of an element comes before every byte
			return -1
		case y == '/':
			return 1
		default:
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// Below reports whether name lies below the directory dir.
func Below(name, dir string) bool {
	return len(name) > len(dir) && name[len(dir)] == '/' && name[:len(dir)] == dir
}

// CheckName reports what keeps name from being one in a workspace.
func CheckName(name string) error {
	if name == "" || len(name) > protocol.MaxWorkspacePath {
		return malformed("name of %d bytes", len(name))
	}
	if strings.IndexByte(name, 0) >= 0 {
		return malformed("name %q holds a zero byte", name)
	}
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." || element == ".." || len(element) > protocol.MaxWorkspaceElement {
			return malformed("name %q is not a path below the workspace", name)
		}
	}
	return nil
}

// Inside reports whether a symbolic link leads to a place in the workspace, wherever the others lead: the
// target is relative, climbs no further than the workspace, and does not climb after it has descended,
// for what it descends into may itself be a link.
func (e *Entry) Inside() bool {
	if e.Target == "" || path.IsAbs(e.Target) {
		return false
	}
	depth := strings.Count(e.Name, "/")
	descended := false
	for element := range strings.SplitSeq(e.Target, "/") {
		switch element {
		case "", ".":
		case "..":
			if depth--; depth < 0 || descended {
				return false
			}
		default:
			descended = true
		}
	}
	return true
}

// check reports what keeps e from an archive.
func (e *Entry) check() error {
	if err := CheckName(e.Name); err != nil {
		return err
	}
	switch {
	case e.Kind < File || e.Kind > Other:
		return malformed("%q is of no kind", e.Name)
	case e.Kind != File && (e.Size != 0 || e.Executable), e.Size < 0:
		return malformed("%q has a size of %d", e.Name, e.Size)
	case e.Kind != Symlink && e.Target != "":
		return malformed("%q has a target and is no link", e.Name)
	case e.Kind == Symlink && (e.Target == "" || len(e.Target) > protocol.MaxWorkspacePath || strings.IndexByte(e.Target, 0) >= 0):
		return malformed("the target of %q has %d bytes", e.Name, len(e.Target))
	}
	return nil
}

// An order checks that entries come in it, and nothing below what is no directory.
type order struct {
	last string
	leaf string // the last name that was none
}

// next accepts e as the entry after those before.
func (o *order) next(e *Entry) error {
	switch {
	case o.last != "" && Compare(o.last, e.Name) >= 0:
		return malformed("%q comes after %q", e.Name, o.last)
	case o.leaf != "" && Below(e.Name, o.leaf):
		return malformed("%q lies below %q, which is no directory", e.Name, o.leaf)
	}
	if o.last = e.Name; e.Kind != Directory {
		o.leaf = e.Name
	}
	return nil
}
