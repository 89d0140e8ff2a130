package workspace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
	"torno.internal/protocol/workspace"
)

// Changes writes an archive of what is not as it went in. Nothing may change meanwhile; what does all the
// same makes the archive incomplete, which is an error, or is told as it was or as it is.
func (w *Workspace) Changes(to io.Writer) error {
	f, err := w.Notes.Open(notesName)
	if err != nil {
		return fmt.Errorf("what went in: %w", err)
	}
	defer f.Close()
	c := changes{w: workspace.NewWriter(to), left: protocol.MaxWorkspaceEntries}
	if c.notes, err = readNotes(f); err != nil {
		return err
	}
	if err := c.walk(w.Dir, ""); err != nil {
		return err
	}
	if err := c.deletedBefore(""); err != nil {
		return err
	}
	return c.w.Close()
}

// changes compares a walk of the tree with the notes: both are in the same order.
type changes struct {
	w     *workspace.Writer
	notes *notes
	left  int    // names that may still be looked at
	gone  string // the last name below which nothing is left to tell
}

// walk tells what has changed in the directory dir, whose name is prefix without its last slash.
func (c *changes) walk(dir *os.Root, prefix string) error {
	names, err := c.list(dir)
	if err != nil {
		return err
	}
	for _, base := range names {
		name := prefix + base
		if len(name) > protocol.MaxWorkspacePath {
			continue // nobody could write it down
		}
		info, err := dir.Lstat(base)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := c.compare(dir, name, info); err != nil {
			return err
		}
		if !info.IsDir() {
			continue
		}
		if err := c.descend(dir, name); err != nil {
			return err
		}
	}
	return nil
}

func (c *changes) descend(dir *os.Root, name string) error {
	below, err := dir.OpenRoot(path.Base(name))
	if err != nil {
		return err
	}
	defer below.Close()
	return c.walk(below, name+"/")
}

// list returns the names in a directory, sorted.
func (c *changes) list(dir *os.Root) ([]string, error) {
	f, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var names []string
	for {
		some, err := f.Readdirnames(1024)
		names = append(names, some...)
		if c.left -= len(some); c.left < 0 {
			return nil, fmt.Errorf("%w: more than %d files", workspace.ErrTooLarge, protocol.MaxWorkspaceEntries)
		}
		if err == io.EOF {
			slices.Sort(names)
			return names, nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// compare tells of name, if it is not as it went in, after what is missing before it.
func (c *changes) compare(dir *os.Root, name string, info os.FileInfo) error {
	if err := c.deletedBefore(name); err != nil {
		return err
	}
	now := noteOf(name, info)
	if c.notes.next.name == name {
		was := c.notes.next
		if err := c.notes.advance(); err != nil || was == now {
			return err
		}
	}
	if now.kind != workspace.Directory {
		c.gone = name
	}
	return c.tell(dir, &workspace.Entry{Name: name, Kind: now.kind}, info)
}

// deletedBefore tells of everything that went in, comes before name, and is no more; of all if name is
// empty. What lay below something that has gone is told with it.
func (c *changes) deletedBefore(name string) error {
	for c.notes.next.name != "" && (name == "" || workspace.Compare(c.notes.next.name, name) < 0) {
		deleted := c.notes.next.name
		if err := c.notes.advance(); err != nil {
			return err
		}
		if c.gone != "" && workspace.Below(deleted, c.gone) {
			continue
		}
		c.gone = deleted
		if err := c.w.Add(&workspace.Entry{Name: deleted, Kind: workspace.Deleted}); err != nil {
			return err
		}
	}
	return nil
}

// tell writes an entry with its content.
func (c *changes) tell(dir *os.Root, e *workspace.Entry, info os.FileInfo) error {
	base := path.Base(e.Name)
	switch e.Kind {
	case workspace.Symlink:
		target, err := dir.Readlink(base)
		if err != nil {
			return err
		}
		if e.Target = target; target == "" || strings.IndexByte(target, 0) >= 0 {
			e.Kind, e.Target = workspace.Other, ""
		}
	case workspace.File:
		e.Size, e.Executable, e.Modified = info.Size(), info.Mode()&0o100 != 0, info.ModTime()
		return c.tellFile(dir, e)
	}
	return c.w.Add(e)
}

func (c *changes) tellFile(dir *os.Root, e *workspace.Entry) error {
	f, err := dir.OpenFile(path.Base(e.Name), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := c.w.Add(e); err != nil {
		return err
	}
	if _, err := io.CopyN(c.w, f, e.Size); err != nil {
		return fmt.Errorf("%q: %w", e.Name, err)
	}
	return nil
}
