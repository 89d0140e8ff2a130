package workspace

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"syscall"

	"crypto/sha256"

	"torno.internal/protocol"
	"torno.internal/protocol/workspace"
)

// applyFile puts a file or link where it belongs, unless that would cover something that is not as it went
// in: then beside it.
func (a *applier) applyFile(c *change) error {
	s, info, err := a.stateOf(c.Name)
	if err != nil {
		return err
	}
	went := a.find(c.Name)
	switch {
	case s == blocked:
		return a.aside(c, "what it lies in is no directory here")
	case s == absent && went != nil:
		return a.conflict(c, "changed inside, and deleted here meanwhile")
	case s == changed:
		same := false
		if c.Kind == workspace.File && info.Mode().IsRegular() {
			if same, err = a.same(c.Name, info, c.Size, c.sum); err != nil {
				return err
			}
		}
		if same {
			return nil
		}
		return a.conflict(c, "changed inside, and changed here meanwhile")
	case s == unchanged && info.IsDir(): // what was in it has been deleted, if it could be
		if err := a.root.Remove(c.Name); errors.Is(err, syscall.ENOTEMPTY) {
			return a.conflict(c, "no directory any more inside, and not empty here")
		} else if err != nil {
			return err
		}
		info = nil
	}
	if err := a.makeDirs(path.Dir(c.Name)); err != nil {
		return err
	}
	a.report.Changed++
	return a.put(c, c.Name, modeOf(c, info))
}

// modeOf returns the mode of a file that takes the place of one, or of none. It stays what it was, but for
// whether the file can be executed.
func modeOf(c *change, old os.FileInfo) os.FileMode {
	mode := os.FileMode(0o666) &^ umask
	if old != nil && old.Mode().IsRegular() {
		mode = old.Mode().Perm()
		if c.Executable == (mode&0o100 != 0) {
			return mode
		}
	}
	if c.Executable {
		return mode | mode&0o444>>2
	}
	return mode &^ 0o111
}

// umask is the process's.
var umask = func() os.FileMode {
	m := syscall.Umask(0)
	syscall.Umask(m)
	return os.FileMode(m)
}()

// put moves a file or link to name, in one step.
func (a *applier) put(c *change, name string, mode os.FileMode) error {
	from := path.Join(incomingDir, c.staged)
	if c.Kind == workspace.Symlink {
		from = path.Join(incomingDir, "link")
		if err := a.root.Symlink(c.Target, from); err != nil {
			return err
		}
	} else if err := a.root.Chmod(from, mode); err != nil {
		return err
	}
	if err := a.ownAs(from, path.Dir(name)); err != nil {
		return err
	}
	return a.root.Rename(from, name)
}

// own makes a file belong to whom the directory belongs that it is in, where we are root and could give it
// to nobody but ourselves otherwise.
func (a *applier) own(name string) error { return a.ownAs(name, path.Dir(name)) }

func (a *applier) ownAs(name, dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := a.root.Lstat(dir)
	if err != nil {
		return err
	}
	s := info.Sys().(*syscall.Stat_t)
	return a.root.Lchown(name, int(s.Uid), int(s.Gid))
}

// maxConflicts bounds the names that are tried for one file.
const maxConflicts = 100

// conflict puts a file or link beside the one that it was to replace.
func (a *applier) conflict(c *change, why string) error {
	name := c.Name + ConflictSuffix
	for n := 2; n < maxConflicts; n++ {
		_, err := a.root.Lstat(name)
		if len(path.Base(name)) > protocol.MaxWorkspaceElement {
			break
		}
		if errors.Is(err, os.ErrNotExist) {
			if err := a.makeDirs(path.Dir(name)); err != nil {
				return err
			}
			a.report.Conflicts = append(a.report.Conflicts, Note{c.Name, why + ": the one from inside is " + name})
			return a.put(c, name, modeOf(c, nil))
		}
		if err != nil {
			return err
		}
		name = c.Name + ConflictSuffix + "-" + strconv.Itoa(n)
	}
	return a.aside(c, why)
}

// aside puts into ReviewDir what finds no place beside where it belongs.
func (a *applier) aside(c *change, why string) error {
	name, err := a.review(c)
	if err != nil {
		return err
	}
	a.report.Conflicts = append(a.report.Conflicts, Note{c.Name, why + ": the one from inside is " + name})
	return nil
}

// hold puts into ReviewDir what this machine would execute where it belongs.
func (a *applier) hold(c *change, why string) error {
	if c.Kind == workspace.Symlink {
		a.report.Held = append(a.report.Held, Note{c.Name, "a link to " + c.Target + ", left out: " + why})
		return nil
	}
	if _, err := a.review(c); err != nil {
		return err
	}
	a.report.Held = append(a.report.Held, Note{c.Name, why})
	return nil
}

// review puts a file into ReviewDir, where nobody may execute it, in place of what an earlier run left
// there. A link becomes a file that says where it leads.
func (a *applier) review(c *change) (string, error) {
	name := path.Join(ReviewDir, c.Name)
	if err := a.clear(name); err != nil {
		return "", err
	}
	if c.Kind == workspace.Symlink {
		c.Kind, c.staged = workspace.File, "link"
		if err := a.root.WriteFile(path.Join(incomingDir, c.staged), []byte(c.Target+"\n"), 0o600); err != nil {
			return "", err
		}
	}
	return name, a.put(c, name, 0o600)
}

// clear makes the directories above name, which are ours: what else stands there goes.
func (a *applier) clear(name string) error {
	for i, r := range name + "/" {
		if r != '/' {
			continue
		}
		at := name[:i]
		info, err := a.root.Lstat(at)
		isDir := err == nil && info.IsDir()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if at == ReviewDir && err == nil && !isDir {
			return fmt.Errorf("%s is not a directory", ReviewDir)
		}
		last := at == name
		if err == nil && isDir == last {
			if err := a.root.RemoveAll(at); err != nil {
				return err
			}
			isDir = false
		}
		if last || isDir {
			continue
		}
		if err := errors.Join(a.root.Mkdir(at, 0o700), a.own(at)); err != nil {
			return err
		}
		if at == ReviewDir { // git status speaks of the project
			ignore := path.Join(at, ".gitignore")
			if err := errors.Join(a.root.WriteFile(ignore, []byte("*\n"), 0o600), a.own(ignore)); err != nil {
				return err
			}
		}
	}
	return nil
}

// same reports whether a file here has so many bytes and that sum.
func (a *applier) same(name string, info os.FileInfo, size int64, sum [32]byte) (bool, error) {
	if info.Size() != size {
		return false, nil
	}
	f, err := a.root.OpenFile(name, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return false, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, err
	}
	return [32]byte(h.Sum(nil)) == sum, nil
}
