package workspace

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/workspace"
)

// A change is an entry that came back.
type change struct {
	workspace.Entry
	staged string // of a File: its name in incomingDir; of a Symlink that is about to be put in place, too
	sum    [32]byte
}

// lockWait bounds how long one run waits for another that puts its changes into the same directory.
const lockWait = time.Minute

// Receive takes the archive of what the guest says has changed. Until Apply nothing of the workspace changes: what
// came is put aside in it. An archive that breaks off, or breaks a rule, leaves nothing behind.
func (w *Workspace) Receive(from io.Reader) (err error) {
	if err := w.takeLock(); err != nil {
		return err
	}
	if err := w.root.RemoveAll(incomingDir); err != nil { // of a run that was killed
		return err
	}
	if err := w.root.Mkdir(incomingDir, 0o700); err != nil {
		return fmt.Errorf("taking the workspace back: %w", err)
	}
	defer func() {
		if err != nil {
			w.drop()
		}
	}()
	stage, err := w.root.OpenRoot(incomingDir)
	if err != nil {
		return err
	}
	defer stage.Close()
	w.counter.n.Store(0)
	if err := w.stage(stage, from); err != nil {
		return fmt.Errorf("taking the workspace back: %w", err)
	}
	if err := unix.Syncfs(int(w.lock.Fd())); err != nil {
		return err
	}
	w.staged = true
	return nil
}

// Received reports whether all that the guest had to say has come.
func (w *Workspace) Received() bool { return w.staged }

// stage reads the archive to its end.
func (w *Workspace) stage(stage *os.Root, from io.Reader) error {
	w.changes = nil
	r := workspace.NewReader(from, workspace.Limits{})
	buf := make([]byte, bufferSize)
	for {
		e, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		c := change{Entry: *e}
		if e.Kind == workspace.File {
			c.staged = strconv.Itoa(len(w.changes))
			if c.sum, err = w.stageFile(stage, c.staged, r, buf); err != nil {
				return err
			}
		}
		w.changes = append(w.changes, c)
	}
}

func (w *Workspace) stageFile(stage *os.Root, name string, content io.Reader, buf []byte) (sum [32]byte, err error) {
	f, err := stage.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return sum, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyBuffer(io.MultiWriter(f, h, &w.counter), onlyReader{content}, buf); err != nil {
		return sum, err
	}
	h.Sum(sum[:0])
	return sum, f.Close()
}

// drop forgets what has come.
func (w *Workspace) drop() {
	w.changes, w.staged = nil, false
	_ = w.root.RemoveAll(incomingDir)
	w.lock.Close()
	w.lock = nil
}

// takeLock keeps others from putting their changes into the same directory meanwhile.
func (w *Workspace) takeLock() error {
	f, err := w.root.Open(".")
	if err != nil {
		return err
	}
	for deadline := time.Now().Add(lockWait); ; time.Sleep(50 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil, errors.Is(err, unix.ENOLCK), errors.Is(err, unix.EOPNOTSUPP): // some network's file system
			w.lock = f
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			f.Close()
			return os.NewSyscallError("flock", err)
		case time.Now().After(deadline):
			f.Close()
			return fmt.Errorf("another run has been copying back to %q for more than %v", w.dir, lockWait)
		}
	}
}
