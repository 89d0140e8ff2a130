// Package workspace keeps the guest's copy of a directory of the host's: it fills it before the workload
// starts, and says afterwards what has changed (SPEC.md §8). What it says is for the host to judge.
package workspace

import (
	"os"
	"syscall"

	"torno.internal/protocol/workspace"
)

// A Workspace is the copy and what is known of it. Notes must be out of the workload's reach; where they
// and Dir survive the machine, so does the knowledge of what went in.
type Workspace struct {
	Dir   *os.Root // the copy
	Notes *os.Root // holds the file that says what went in
	Owner int      // user and group of what Fill makes
}

// Names of the notes in Workspace.Notes: being written, and complete.
const (
	notesNew  = "went-in.new"
	notesName = "went-in"
)

// A note is what is remembered of one name. Nobody but the kernel sets a file's change time, so whoever
// changes a file changes its note.
type note struct {
	name    string
	kind    workspace.Kind
	size    int64
	changed int64 // time of the last change (inode(7), ctime) in ns; 0 for a directory
}

// kindOf says what a file is; what can't be in a workspace is Other.
func kindOf(mode os.FileMode) workspace.Kind {
	switch mode.Type() {
	case 0:
		return workspace.File
	case os.ModeDir:
		return workspace.Directory
	case os.ModeSymlink:
		return workspace.Symlink
	}
	return workspace.Other
}

// noteOf remembers a file as it is.
func noteOf(name string, info os.FileInfo) note {
	n := note{name: name, kind: kindOf(info.Mode())}
	if n.kind != workspace.Directory {
		n.size = info.Size()
		n.changed = info.Sys().(*syscall.Stat_t).Ctim.Nano()
	}
	return n
}
