package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"torno.internal/host/internal/config"
	"torno.internal/host/internal/namespace"
	"torno.internal/host/internal/run"
	"torno.internal/host/internal/workspace"
	"torno.internal/protocol"
)

// A work is the workspace of one run, or of one that is recovered.
type work struct {
	*workspace.Workspace
	kept   *kept // nil: nothing outlives the guest
	accept bool  // what this machine would execute, too
	forced bool  // the person did not want to wait

	sendErr error // why it did not go in
	started bool  // all of it went in, and a command may have changed it
	backErr error // why what came back was not taken
}

// directory returns the working directory, and opens it as the workspace if it is to be one.
func (l *launch) directory() (string, error) {
	if l.workspace == "" {
		return workingDir()
	}
	dir, err := filepath.Abs(l.workspace)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", &hintError{fmt.Errorf("--workspace %q: %w", l.workspace, err), "name a directory that is there"}
	}
	hidden, err := hiddenPaths()
	if err != nil {
		return "", err
	}
	home, _ := os.UserHomeDir()
	if _, err := (namespace.Spec{Dir: dir, Hidden: hidden, Home: home}).Visible(); err != nil {
		return "", err
	}
	w, err := workspace.Open(dir)
	if err != nil {
		if errors.Is(err, workspace.ErrTooLarge) {
			err = &hintError{err, fmt.Sprintf("at most %d GiB in %d files; --mount-ro shows large data without copying it", protocol.MaxWorkspaceBytes>>30, protocol.MaxWorkspaceEntries)}
		}
		return "", err
	}
	l.work = &work{Workspace: w, accept: l.acceptCode}
	l.hintKept()
	return dir, nil
}

// hintKept says what earlier runs have left of the same workspace.
func (l *launch) hintKept() {
	all, err := listKept()
	if err != nil {
		l.log.Debug("kept workspaces", "err", err)
	}
	for _, k := range all {
		if k.Directory == l.work.Dir() {
			say("an earlier run's changes to " + config.EscapeControl(k.Directory) + " are kept: torno workspace recover " + k.ID)
		}
	}
}

// perFile is what a file takes up on a disk beside its content, and about what it wastes there, in bytes.
const perFile = 4 << 10

// checkRoom refuses a workspace that does not fit where it goes: size is what there is room for, in bytes.
func (w *work) checkRoom(size uint64, where, hint string) error {
	bytes, files := w.Size()
	if need := uint64(bytes) + uint64(files)*perFile; need > size {
		return &hintError{fmt.Errorf("the workspace takes up %d MiB, and %s holds %d", need>>20, where, size>>20), hint}
	}
	return nil
}

// checkMemory is checkRoom where the copy is kept in this machine's memory: half of that at most.
func (w *work) checkMemory() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	return w.checkRoom(info.Totalram*uint64(info.Unit)/2, "a namespace", "--isolation microvm keeps it on a disk")
}

// connect has the run channel carry the workspace; a nil work has none.
func (w *work) connect(c *run.Config) {
	c.Say = say
	if w != nil {
		c.SendWorkspace, c.ReceiveWorkspace = w.send, w.receive
		c.Started = func() { w.started = true }
	}
}

func (w *work) send(to io.Writer) error {
	total, _ := w.Size()
	defer progress("copying the workspace in", w.Progress, total)()
	err := w.Send(to)
	if err == nil && w.kept != nil {
		err = w.kept.save(w.Workspace)
	}
	w.sendErr = err
	return err
}

func (w *work) receive(from io.Reader) error {
	defer progress("copying the workspace back", w.Progress, 0)()
	w.backErr = w.Receive(from)
	return w.backErr
}

// finish copies back what has changed, after the guest has ended. If the guest did not send it, another
// one does that is started for nothing else. What can't be copied back is kept, where it can be.
func (l *launch) finish(ctx context.Context, stderr io.Writer, signals <-chan os.Signal) error {
	w := l.work
	printNotes(stderr, "not copied in", w.Left())
	if !w.started {
		return w.sendErr
	}
	if !w.Received() && !w.forced && w.kept != nil {
		say("the guest is gone: another one gets the workspace from its disk")
		if err := l.recover(ctx, signals); err != nil {
			w.backErr = err
		}
	}
	err := w.apply(stderr)
	if w.forced && err != nil { // as wanted: not torno's failure
		report(stderr, err)
		return nil
	}
	return err
}

// end lets go of the workspace. Where no command has run there is nothing to keep.
func (w *work) end() {
	if w.kept != nil && !w.started {
		w.kept.remove()
	}
	w.Close()
}

// apply puts what came back into place, and says so. An error says where it is instead.
func (w *work) apply(stderr io.Writer) error {
	err := w.backErr
	if w.Received() {
		var report *workspace.Report
		report, err = w.Apply(w.accept)
		if report != nil {
			printReport(stderr, report)
		}
	} else if err == nil {
		err = errors.New("it did not come back")
	}
	switch {
	case err == nil:
		if w.kept != nil {
			w.kept.remove()
		}
		return nil
	case w.kept == nil:
		return &hintError{fmt.Errorf("what the command changed in %q is lost: %w", w.Dir(), err), "--isolation microvm, with a disk, keeps it whatever happens"}
	}
	w.kept.close()
	return &hintError{fmt.Errorf("what the command changed in %q was not copied back, and is kept: %w", w.Dir(), err), "torno workspace recover " + w.kept.id}
}

// printReport says what has become of the workspace.
func printReport(out io.Writer, r *workspace.Report) {
	if r.Changed+r.Deleted > 0 {
		fmt.Fprintf(out, "torno: workspace: %d changed, %d deleted\n", r.Changed, r.Deleted)
	}
	printNotes(out, "changed on both sides", r.Conflicts)
	printNotes(out, "not copied back", r.Left)
	printNotes(out, "held for review in "+workspace.ReviewDir, r.Held)
	if len(r.Held) > 0 {
		fmt.Fprintln(out, "hint: this machine would run these; look at them and move what you want into place, or use --accept-host-code")
	}
}

// maxNotes bounds how many names are printed of one kind.
const maxNotes = 100

func printNotes(out io.Writer, what string, notes []workspace.Note) {
	for i, n := range notes {
		if i == maxNotes {
			fmt.Fprintf(out, "torno: %s: %d more\n", what, len(notes)-i)
			return
		}
		fmt.Fprintf(out, "torno: %s: %s (%s)\n", what, config.EscapeControl(n.Name), config.EscapeControl(n.Why))
	}
}
