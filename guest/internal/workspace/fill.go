package workspace

import (
	"bufio"
	"errors"
	"io"
	"os"
	"path"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/workspace"
)

// tick is longer than the kernel's clock stands still: a file that is changed after it has another change time.
const tick = 20 * time.Millisecond

// Fill makes what the archive holds, in an empty Dir, and notes it. When it returns, both are on disk.
func (w *Workspace) Fill(archive io.Reader) error {
	f, err := w.Notes.OpenFile(notesNew, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	notes := bufio.NewWriter(f)
	if err := w.make(archive, notes); err != nil {
		return err
	}
	if err := errors.Join(notes.Flush(), unix.Syncfs(int(f.Fd()))); err != nil {
		return err
	}
	if err := w.Notes.Rename(notesNew, notesName); err != nil {
		return err
	}
	time.Sleep(tick)
	return unix.Syncfs(int(f.Fd()))
}

// make makes the files and writes their notes, which come in the same order.
func (w *Workspace) make(archive io.Reader, notes *bufio.Writer) error {
	r := workspace.NewReader(archive, workspace.Limits{})
	at := place{root: w.Dir}
	defer at.close()
	for {
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		dir, err := at.enter(path.Dir(e.Name))
		if err != nil {
			return err
		}
		info, err := w.makeOne(dir, path.Base(e.Name), e, r)
		if err != nil {
			return err
		}
		if err := writeNote(notes, noteOf(e.Name, info)); err != nil {
			return err
		}
	}
}

// makeOne makes one entry in dir.
func (w *Workspace) makeOne(dir *os.Root, base string, e *workspace.Entry, content io.Reader) (os.FileInfo, error) {
	var err error
	switch e.Kind {
	case workspace.File:
		return w.makeFile(dir, base, e, content)
	case workspace.Directory:
		err = dir.Mkdir(base, 0o755)
	case workspace.Symlink:
		err = dir.Symlink(e.Target, base)
	default: // what is not there has no business on the way in
		return nil, workspace.ErrMalformed
	}
	if err != nil {
		return nil, err
	}
	if err := dir.Lchown(base, w.Owner, w.Owner); err != nil {
		return nil, err
	}
	return dir.Lstat(base)
}

func (w *Workspace) makeFile(dir *os.Root, base string, e *workspace.Entry, content io.Reader) (os.FileInfo, error) {
	mode := os.FileMode(0o644)
	if e.Executable {
		mode = 0o755
	}
	f, err := dir.OpenFile(base, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if _, err := io.CopyN(f, content, e.Size); err != nil {
		return nil, err
	}
	if err := f.Chown(w.Owner, w.Owner); err != nil {
		return nil, err
	}
	if !e.Modified.IsZero() {
		if err := dir.Chtimes(base, e.Modified, e.Modified); err != nil {
			return nil, err
		}
	}
	return f.Stat()
}

// A place is the directory that is being filled: entries of one follow one another.
type place struct {
	root *os.Root
	name string   // of the one that is open
	dir  *os.Root // nil: none but root
}

// enter returns the directory name.
func (p *place) enter(name string) (*os.Root, error) {
	if name == "." {
		return p.root, nil
	}
	if p.dir != nil && p.name == name {
		return p.dir, nil
	}
	dir, err := p.root.OpenRoot(name)
	if err != nil {
		return nil, err
	}
	p.close()
	p.name, p.dir = name, dir
	return dir, nil
}

func (p *place) close() {
	if p.dir != nil {
		p.dir.Close()
	}
}
