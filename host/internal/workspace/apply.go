package workspace

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"syscall"

	"torno.internal/protocol/workspace"
)

// A Report says what came of the changes.
type Report struct {
	Changed   int    // files and links that were written, directories that were made
	Deleted   int    // what was removed
	Held      []Note // in ReviewDir, or still here where the guest deleted it; why this machine would execute it
	Conflicts []Note // changed here meanwhile, and where the guest's is
	Left      []Note // not copied back
}

// Apply puts into place what has come, one file after the other, each whole. With code it takes what this
// machine would execute, too.
func (w *Workspace) Apply(code bool) (*Report, error) {
	if !w.staged {
		return nil, errors.New("nothing has come back")
	}
	defer w.drop()
	a := &applier{Workspace: w, code: w.codeTable(), accept: code}
	if err := a.delete(); err != nil {
		return &a.report, err
	}
	for i := range w.changes {
		if err := a.apply(&w.changes[i]); err != nil {
			return &a.report, fmt.Errorf("writing %q: %w", w.changes[i].Name, err)
		}
	}
	return &a.report, nil
}

type applier struct {
	*Workspace
	code   *codeTable
	accept bool
	report Report
}

// A state says how a name on this machine compares with what went in.
type state uint8

const (
	absent    state = iota
	unchanged       // since it went in
	changed         // or it never went in
	blocked         // something above it is no directory
)

// stateOf looks at name on this machine. No link is followed.
func (a *applier) stateOf(name string) (state, os.FileInfo, error) {
	if s, err := a.parent(name); s != unchanged || err != nil {
		return s, nil, err
	}
	info, err := a.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return absent, nil, nil
	}
	if err != nil {
		return blocked, nil, err
	}
	went := a.find(name)
	switch {
	case went == nil:
		return changed, info, nil
	case went.Kind == workspace.Directory:
		if info.IsDir() {
			return unchanged, info, nil
		}
	case stampOf(info) == went.Stamp:
		return unchanged, info, nil
	case went.Kind == workspace.File && info.Mode().IsRegular():
		same, err := a.same(name, info, went.Size, went.Sum)
		if same && info.Mode()&0o100 != 0 == went.Executable {
			return unchanged, info, err
		}
		return changed, info, err
	case went.Kind == workspace.Symlink && info.Mode().Type() == os.ModeSymlink:
		if target, err := a.root.Readlink(name); err == nil && target == went.Target {
			return unchanged, info, nil
		}
	}
	return changed, info, nil
}

// parent says whether what lies above name is there, and directories all the way.
func (a *applier) parent(name string) (state, error) {
	for i, c := range name {
		if c != '/' {
			continue
		}
		info, err := a.root.Lstat(name[:i])
		if errors.Is(err, os.ErrNotExist) {
			return absent, nil
		}
		if err != nil {
			return blocked, err
		}
		if !info.IsDir() {
			return blocked, nil
		}
	}
	return unchanged, nil
}

// delete removes what is no more in the guest: what it says is deleted, and what lay below something that
// it says is no directory any more.
func (a *applier) delete() error {
	for _, c := range a.changes {
		if c.Kind == workspace.Directory || c.Kind == workspace.Other || isOurs(c.Name) {
			continue
		}
		gone := a.below(c.Name)
		if went := a.find(c.Name); went != nil && c.Kind == workspace.Deleted {
			gone = append([]Went{*went}, gone...)
		}
		for _, went := range slices.Backward(gone) { // what is in a directory before it
			if err := a.deleteOne(&went); err != nil {
				return fmt.Errorf("deleting %q: %w", went.Name, err)
			}
		}
	}
	return nil
}

func (a *applier) deleteOne(went *Went) error {
	s, _, err := a.stateOf(went.Name)
	if err != nil || s == absent || s == blocked {
		return err
	}
	if went.Kind == workspace.Directory {
		err := a.root.Remove(went.Name) // what is in it and did not go in keeps it
		if err == nil {
			a.report.Deleted++
		}
		if errors.Is(err, syscall.ENOTEMPTY) || errors.Is(err, syscall.EBUSY) {
			return nil
		}
		return err
	}
	if why := a.code.why(went.Name); why != "" && !a.accept {
		a.report.Held = append(a.report.Held, Note{went.Name, "deleted inside, still here: " + why})
		return nil
	}
	if s == changed {
		a.report.Conflicts = append(a.report.Conflicts, Note{went.Name, "deleted inside, and changed here meanwhile: it is still here"})
		return nil
	}
	a.report.Deleted++
	return a.root.Remove(went.Name)
}

// apply puts one entry into its place, or into another one.
func (a *applier) apply(c *change) error {
	switch {
	case c.Kind == workspace.Deleted:
		return nil
	case isOurs(c.Name):
		a.leave(c, "the name is torno's own")
		return nil
	case c.Kind == workspace.Other:
		a.leave(c, "it is neither a file, a directory nor a link")
		return nil
	case c.Kind == workspace.Directory:
		return a.applyDirectory(c)
	case c.Kind == workspace.Symlink && !a.inside(c):
		a.leave(c, "it is a link to "+c.Target+", which leads outside")
		return nil
	}
	if went := a.find(c.Name); went != nil && went.Kind == c.Kind && went.Sum == c.sum && went.Target == c.Target &&
		went.Size == c.Size && went.Executable == c.Executable {
		return nil
	}
	if why := a.code.why(c.Name); why != "" && !a.accept {
		return a.hold(c, why)
	}
	return a.applyFile(c)
}

func (a *applier) leave(c *change, why string) {
	a.report.Left = append(a.report.Left, Note{c.Name, why})
}

// inside reports whether a link leads to a place in the workspace, by its own words and over the links that
// this machine has in its way.
func (a *applier) inside(c *change) bool {
	if !c.Inside() {
		return false
	}
	_, err := a.root.Stat(path.Join(path.Dir(c.Name), c.Target))
	return err == nil || errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func (a *applier) applyDirectory(c *change) error {
	if a.code.why(c.Name+"/x") != "" && !a.accept {
		return nil // what is held makes its own directories
	}
	s, info, err := a.stateOf(c.Name)
	why := a.code.why(c.Name)
	switch {
	case err != nil || info != nil && info.IsDir():
		return err
	case info != nil && why != "" && !a.accept:
		a.report.Held = append(a.report.Held, Note{c.Name, "a directory inside, still what it was here: " + why})
		return nil
	case s == unchanged: // a file or link that became a directory
		if err := a.root.Remove(c.Name); err != nil {
			return err
		}
	case s != absent:
		a.report.Conflicts = append(a.report.Conflicts, Note{c.Name, "a directory inside, and something else here"})
		return nil
	}
	return a.makeDirs(c.Name)
}

// makeDirs makes a directory and those above it, which are directories as far as they are there.
func (a *applier) makeDirs(name string) error {
	if name == "." {
		return nil
	}
	if _, err := a.root.Lstat(name); err == nil {
		return nil
	}
	if err := a.makeDirs(path.Dir(name)); err != nil {
		return err
	}
	if err := a.root.Mkdir(name, 0o777); err != nil {
		return err
	}
	a.report.Changed++
	return a.own(name)
}
