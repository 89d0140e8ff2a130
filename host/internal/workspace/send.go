package workspace

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path"

	"torno.internal/protocol/workspace"
)

const bufferSize = 64 << 10 // bytes

// Send writes the archive of the directory, and records what is in it. What is neither file, directory
// nor link, what can't be read, and links that lead outside are left out; see Left.
func (w *Workspace) Send(to io.Writer) error {
	buffered := bufio.NewWriterSize(to, bufferSize)
	s := sender{Workspace: w, out: workspace.NewWriter(buffered), sum: make([]byte, bufferSize)}
	for _, name := range w.plan {
		if err := s.send(name); err != nil {
			return fmt.Errorf("workspace %q: %w", name, err)
		}
	}
	w.plan = nil
	if err := s.out.Close(); err != nil {
		return err
	}
	return buffered.Flush()
}

type sender struct {
	*Workspace
	out *workspace.Writer
	sum []byte // a buffer
}

// send sends one name as it is now.
func (s *sender) send(name string) error {
	if parent := path.Dir(name); parent != "." {
		if went := s.find(parent); went == nil || went.Kind != workspace.Directory {
			return nil // left out, or gone meanwhile
		}
	}
	info, err := s.root.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	w := Went{Entry: workspace.Entry{Name: name}, Stamp: stampOf(info)}
	switch info.Mode().Type() {
	case 0:
		return s.sendFile(&w)
	case os.ModeDir:
		w.Kind, w.Stamp = workspace.Directory, stamp{}
	case os.ModeSymlink:
		w.Kind = workspace.Symlink
		if w.Target, err = s.root.Readlink(name); err != nil {
			return err
		}
		if !w.Inside() {
			s.leave(name, "it is a link to "+w.Target+", which leads outside")
			return nil
		}
	default:
		s.leave(name, "it is neither a file, a directory nor a link")
		return nil
	}
	if err := s.out.Add(&w.Entry); err != nil {
		return err
	}
	s.went = append(s.went, w)
	return nil
}

func (s *sender) sendFile(w *Went) error {
	f, err := s.root.Open(w.Name)
	if errors.Is(err, os.ErrPermission) {
		s.leave(w.Name, "it can't be read")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() {
		return errors.Join(err, errors.New("changes while it is copied"))
	}
	w.Kind, w.Size, w.Executable, w.Modified = workspace.File, info.Size(), info.Mode()&0o100 != 0, info.ModTime()
	w.Stamp = stampOf(info)
	if err := s.out.Add(&w.Entry); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(s.out, sum, &s.Workspace.counter), onlyReader{io.LimitReader(f, w.Size)}, s.sum)
	if err == nil && n < w.Size { // became shorter: fill up, as tar(1) does
		_, err = io.CopyN(io.MultiWriter(s.out, sum), zeros{}, w.Size-n)
	}
	sum.Sum(w.Sum[:0])
	s.went = append(s.went, *w)
	return err
}

// onlyReader keeps io.CopyBuffer from methods that would go around its buffer.
type onlyReader struct{ io.Reader }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
