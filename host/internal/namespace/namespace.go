// Package namespace runs torno-guest as process 1 of new user, mount, PID, network, IPC, UTS and cgroup
// namespaces (namespaces(7)) on the host's own kernel: for development, and where there is no KVM.
//
// Two processes stand between torno run and the guest, both torno itself:
//
//	torno run ── stage 1: new user, mount and PID namespaces; builds the guest's root directory
//	             └─ stage 2: all seven namespaces anew; mounts /proc and becomes torno-guest
//
// The second user namespace makes the kernel lock every mount of the first: not even who is root
// inside can make a read-only one writable or look below it (mount_namespaces(7)). Each stage dies
// with the one before it.
package namespace

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Names of the hidden commands by which torno runs Init and Enter.
const (
	InitCommand  = "namespace-init"
	EnterCommand = "namespace-enter"
)

// Where the guest finds Spec.Broker and Spec.Run.
const (
	BrokerDir = "/run/torno"
	RunDir    = "/run/torno-run"
)

// A Spec says what to start and what of the host it sees beside programs and /etc.
type Spec struct {
	Guest  string    // path of torno-guest, a static executable
	Args   []string  // its arguments, without its name
	Broker string    // directory of the broker's socket, bound at BrokerDir
	Run    string    // directory of the run socket, bound at RunDir; it outlives the broker's
	Dir    string    // working directory, bound read-only at its own path; empty: none
	Mounts []string  // further directories, the same way
	Hidden []string  // must not come into sight by Dir and Mounts, neither whole nor in part: state, sockets
	Home   string    // must not come into sight as a whole; its subdirectories may
	IDs    IDs       // from FindIDs
	Log    io.Writer // the guest's standard output and error; nil: discarded
}

// A Process is a running guest. Its methods are safe for concurrent use.
type Process struct {
	stage  *os.Process
	life   *os.File // its closing ends stage 1, and so everything
	ended  chan struct{}
	status syscall.WaitStatus
	err    error
}

// An Error is a failure that a person can do something about.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

func hinted(hint string, err error) error { return &Error{err, hint} }

// Descriptors that stage 1 inherits beside its standard ones.
const (
	planFD   = 3 // plan as JSON, to its end
	lifeFD   = 4 // one byte once the ids are mapped; then its end means that torno run is gone
	reportFD = 5 // a report as JSON, should the guest not start
	guestFD  = 6 // torno-guest
	// From 7 on: detached mounts, one for each of plan.Trees that has one.
)

// A plan tells stage 1 what to build.
type plan struct {
	Args  []string `json:"args"`
	Trees []tree   `json:"trees"`
}

// A tree is a directory of the host that the guest sees, read-only.
type tree struct {
	Path string `json:"path"` // on the host
	At   string `json:"at"`   // inside
	FD   int    `json:"fd"`   // detached mount; 0: to be opened by Path
}

// A report says why the guest did not start.
type report struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

const maxReport = 64 << 10 // bytes

// Start starts the guest and returns once torno-guest runs. It ends when ctx does, when the calling
// process does, and by Kill. Errors that a person can mend are *Error.
func Start(ctx context.Context, s Spec) (*Process, error) {
	dirs, err := s.Visible()
	if err != nil {
		return nil, err
	}
	guest, err := os.Open(s.Guest)
	if err != nil {
		return nil, hinted("torno-guest belongs beside torno; make build puts it there", fmt.Errorf("opening the guest: %w", err))
	}
	defer guest.Close()
	st := &starter{spec: s, plan: plan{Args: s.Args}, files: []*os.File{guest}}
	defer st.close()
	if err := st.addTrees(dirs); err != nil {
		return nil, err
	}
	return st.start(ctx)
}

// A starter holds what is open while stage 1 is started.
type starter struct {
	spec  Spec
	plan  plan
	files []*os.File // from guestFD on
}

func (st *starter) close() {
	for _, f := range st.files[1:] {
		f.Close()
	}
}

// addTrees adds the directories. Root opens them here, with the power to reach them wherever they are;
// anybody else's stage 1 reaches what they reach.
func (st *starter) addTrees(dirs []string) error {
	var trees []tree
	for _, t := range []tree{{Path: st.spec.Broker, At: BrokerDir}, {Path: st.spec.Run, At: RunDir}} {
		if t.Path != "" {
			trees = append(trees, t)
		}
	}
	for _, d := range dirs {
		trees = append(trees, tree{Path: d, At: d})
	}
	for i := range trees {
		if !st.spec.IDs.root {
			continue
		}
		f, err := openTree(trees[i].Path, readOnlyAttr)
		if err != nil {
			return err
		}
		st.files = append(st.files, f)
		trees[i].FD = guestFD + len(st.files) - 1
	}
	st.plan.Trees = trees
	return nil
}

func (st *starter) start(ctx context.Context) (*Process, error) {
	planRead, planWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer planRead.Close()
	defer planWrite.Close()
	lifeRead, lifeWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer lifeRead.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		lifeWrite.Close()
		return nil, err
	}
	defer reportRead.Close()

	cmd := exec.Command("/proc/self/exe", InitCommand)
	cmd.Args[0] = "torno" // as ps shows it
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = st.spec.Log, st.spec.Log
	cmd.ExtraFiles = append([]*os.File{planRead, lifeRead, reportWrite}, st.files...)
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		AmbientCaps: stageCaps, // else execve as an id that is not mapped yet would lose them
		Setsid:      true,      // no controlling terminal, no signals from one
		Pdeathsig:   unix.SIGKILL,
	}
	p := &Process{life: lifeWrite, ended: make(chan struct{})}
	started := make(chan error)
	go p.run(cmd, started)
	err = <-started
	reportWrite.Close()
	if err != nil {
		lifeWrite.Close()
		return nil, explainClone(err)
	}
	if err := p.begin(ctx, st, planWrite, reportRead); err != nil {
		p.Kill()
		<-p.ended
		return nil, err
	}
	stop := context.AfterFunc(ctx, p.Kill)
	go func() { <-p.ended; stop() }()
	return p, nil
}

// run starts the process and waits for it, all on one thread that lasts as long: Pdeathsig counts the
// thread that forked as the parent.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.stage = cmd.Process
	started <- nil
	err := cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.err = err
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		p.status = ws
	}
	p.life.Close()
	close(p.ended)
}

// begin maps the ids, lets stage 1 go and waits until the guest runs.
func (p *Process) begin(ctx context.Context, st *starter, planWrite io.WriteCloser, reportRead *os.File) error {
	stop := context.AfterFunc(ctx, func() { reportRead.Close() })
	defer stop()
	if err := st.spec.IDs.apply(ctx, p.stage.Pid); err != nil {
		return err
	}
	if err := json.NewEncoder(planWrite).Encode(st.plan); err != nil {
		return fmt.Errorf("starting the namespaces: %w", err)
	}
	planWrite.Close()
	if _, err := p.life.Write([]byte{1}); err != nil {
		return fmt.Errorf("starting the namespaces: %w", err)
	}
	said, err := io.ReadAll(io.LimitReader(reportRead, maxReport))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("starting the namespaces: %w", err)
	case len(said) == 0:
		return nil
	}
	var r report
	if err := json.Unmarshal(said, &r); err != nil {
		return fmt.Errorf("starting the namespaces: unreadable report: %w", err)
	}
	return hinted(r.Hint, errors.New(r.Error))
}

// Kill ends the guest and everything in its namespaces at once.
func (p *Process) Kill() {
	p.life.Close()
	_ = p.stage.Kill() // one that is stopped, say, does not see the other; one that has ended is no error
}

// Done is closed once nothing of the guest runs any more.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Wait waits for the guest's end and returns its exit status, or 128+n where signal n ended it.
func (p *Process) Wait() (int, error) {
	<-p.ended
	if p.err != nil {
		return 0, p.err
	}
	if p.status.Signaled() {
		return 128 + int(p.status.Signal()), nil
	}
	return p.status.ExitStatus(), nil
}
