// Package workspace is the host's side of a workspace (SPEC.md §8): it reads a directory for a guest's copy,
// and takes back what the guest says has changed. The guest is hostile. What it says is checked entry by entry
// against this package's own record of what went in, and written through os.Root, never through a symbolic link.
//
//	DIR ──Send──► guest ──Receive──► DIR/.torno-incoming ──Apply──► DIR
//	                                                        ├─────► NAME.torno-conflict   changed here meanwhile
//	                                                        └─────► DIR/.torno-review     would be executed here
package workspace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"syscall"

	"torno.internal/protocol/workspace"
)

// Names that belong to us. The first two stand in the workspace itself and are no part of it.
const (
	ReviewDir      = ".torno-review"   // holds what this machine would execute
	incomingDir    = ".torno-incoming" // what has come back, until it is put in its place
	ConflictSuffix = ".torno-conflict"
)

// ErrTooLarge means that a directory holds more than a workspace may.
var ErrTooLarge = workspace.ErrTooLarge

// A Workspace is a directory that a guest gets a copy of. Its methods are called one after another; Progress
// may be called at any time.
type Workspace struct {
	dir   string
	root  *os.Root
	plan  []string // what is there to send, in the order of workspace.Compare
	total int64    // bytes of files when it was opened
	names int      // and how many names there were
	went  []Went   // what was sent, in that order
	left  []Note   // what was not

	changes []change // what has come back
	staged  bool     // wholly
	lock    *os.File // the directory, while they are dealt with

	counter counter
}

// A counter counts the bytes of files that went, or came.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// A Went is one name as it went in. A file's content may be told from another by its sum.
type Went struct {
	workspace.Entry
	Sum   [32]byte `json:",omitzero"` // SHA-256 of a File
	Stamp stamp    // of a File or Symlink on this machine
}

// A Note says something about one name, for people.
type Note struct{ Name, Why string }

// Open reads the names below dir, which is an absolute path without links. Errors are ErrTooLarge, or
// those of the system.
func Open(dir string) (*Workspace, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	w := &Workspace{dir: dir, root: root}
	limits := workspace.NewLimits()
	if err := w.scan(root, "", &limits); err != nil {
		root.Close()
		return nil, fmt.Errorf("workspace %q: %w", dir, err)
	}
	return w, nil
}

// Close lets go of the directory, and of what has come back to it and was not applied.
func (w *Workspace) Close() {
	if w.lock != nil {
		w.drop()
	}
	w.root.Close()
}

// Dir returns the directory's path.
func (w *Workspace) Dir() string { return w.dir }

// Size returns how many bytes its files had when it was opened, and how many files, directories and links
// there were.
func (w *Workspace) Size() (bytes int64, names int) { return w.total, w.names }

// Progress returns how many bytes of files Send or Receive has dealt with.
func (w *Workspace) Progress() int64 { return w.counter.n.Load() }

// Left returns what Send left out.
func (w *Workspace) Left() []Note { return w.left }

// isOurs reports whether name is, or lies below, one of our own in the workspace.
func isOurs(name string) bool {
	first, _, _ := strings.Cut(fold(name), "/")
	return first == ReviewDir || first == incomingDir
}

// scan finds what there is to send in the directory dir, whose names begin with prefix.
func (w *Workspace) scan(dir *os.Root, prefix string, limits *workspace.Limits) error {
	f, err := dir.Open(".")
	if errors.Is(err, os.ErrPermission) && prefix != "" {
		w.leave(strings.TrimSuffix(prefix, "/"), "it can't be read")
		return nil
	}
	if err != nil {
		return err
	}
	names, err := f.Readdirnames(-1)
	f.Close()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, base := range names {
		name := prefix + base
		if isOurs(name) {
			continue
		}
		info, err := dir.Lstat(base)
		if err != nil {
			continue // gone meanwhile
		}
		w.plan = append(w.plan, name)
		w.names++
		e := workspace.Entry{Name: name}
		if info.Mode().IsRegular() {
			e.Size = info.Size()
		}
		w.total += e.Size
		if err := limits.Take(&e); err != nil {
			return err
		}
		if info.IsDir() {
			if err := w.descend(dir, name, limits); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *Workspace) descend(dir *os.Root, name string, limits *workspace.Limits) error {
	below, err := dir.OpenRoot(path.Base(name))
	if errors.Is(err, os.ErrPermission) {
		w.leave(name, "it can't be read")
		return nil
	}
	if err != nil {
		return err
	}
	defer below.Close()
	return w.scan(below, name+"/", limits)
}

func (w *Workspace) leave(name, why string) { w.left = append(w.left, Note{name, why}) }

// find returns what went in by that name, or nil.
func (w *Workspace) find(name string) *Went {
	i, ok := slices.BinarySearchFunc(w.went, name, func(e Went, name string) int { return workspace.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return &w.went[i]
}

// below returns what went in below the directory dir.
func (w *Workspace) below(dir string) []Went {
	i, _ := slices.BinarySearchFunc(w.went, dir+"/", func(e Went, name string) int { return workspace.Compare(e.Name, name) })
	n := i
	for n < len(w.went) && workspace.Below(w.went[n].Name, dir) {
		n++
	}
	return w.went[i:n]
}

// isGit reports whether a directory of the workspace is one of git's whatever its name, as bare
// repositories are; "" is the workspace.
func (w *Workspace) isGit(dir string) bool {
	if dir == "" {
		return w.find("HEAD") != nil || strings.HasSuffix(fold(filepath.Base(w.dir)), ".git")
	}
	return w.find(dir+"/HEAD") != nil
}

// A stamp tells whether a file may have changed. All of it is the kernel's word, not the owner's.
type stamp struct {
	Inode, Size, Modified, Changed int64
}

func stampOf(info os.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{int64(s.Ino), s.Size, s.Mtim.Nano(), s.Ctim.Nano()}
}
