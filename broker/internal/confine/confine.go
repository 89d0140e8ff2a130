// Package confine starts programs that are not trusted with what the broker's user may do: plugins. Such a program sees
// an empty file system with what it was promised in it, no process but its own, no terminal, no environment, no descriptor and, unless
// it needs one, no network.
//
// Go can run no code between fork and exec, so torno executes itself as a shim, which builds the confinement around
// itself and becomes the program:
//
//	torno serve ── torno plugin-exec, in new namespaces: root directory, limits, user, landlock, seccomp
//	               └─ execveat of the very bytes that were checked
//
// Where the kernel grants no namespaces, landlock(7) and seccomp(2) stand alone, and programs that need the network
// need a user of their own.
package confine

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is the name of the hidden command by which torno runs Exec.
const Command = "plugin-exec"

// InsideDir is where a program in a root directory of its own finds Spec.Dir.
const InsideDir = "/run/plugin"

// Descriptors that the shim inherits beside its standard ones.
const (
	planFD    = 3 // plan as JSON, to its end
	reportFD  = 4 // a report as JSON, should the program not start; closed when it does
	programFD = 5 // what is executed
)

// Limits on a program.
const (
	maxFiles     = 256      // descriptors
	maxFileSize  = 64 << 20 // bytes of one file that it writes
	maxProcesses = 256      // threads included
	tmpSize      = "16m"    // of its /tmp
	niceness     = 5
)

// A Spec says what to start, and what of the host it is promised. Everything else it does not have.
type Spec struct {
	Name     string   // for people: what ps shows
	Program  *os.File // from OpenProgram
	Env      []string
	Dir      string   // a directory of its own on the host, which it may write; at InsideDir where Process.Namespaces says so
	DirEnv   string   // the variable that tells it where it sees Dir; empty: none
	Read     []string // absolute paths that it may read and execute from
	Write    []string // and write
	Network  bool     // it may use the host's network
	User     *User    // whom it runs as, where we are root; nil: one that is nobody else's
	Number   int      // which of those: another for each program that runs at the same time
	Memory   int64    // bytes; 0: unlimited
	CGroup   *CGroup  // nil: none
	Isolated bool     // without namespaces it does not start
}

// A User is one that a program runs as.
type User struct{ UID, GID uint32 }

// A plan is what the shim is told.
type plan struct {
	Name       string   `json:"name"`
	Env        []string `json:"env"`
	Dir        string   `json:"dir"`
	Read       []string `json:"read"`
	Write      []string `json:"write"`
	Network    bool     `json:"network"`
	Namespaces bool     `json:"namespaces"` // they are new
	MapUser    *User    `json:"map_user"`   // to map to itself in the new user namespace
	Become     *User    `json:"become"`     // whom to become; nil: nobody else
	Memory     int64    `json:"memory"`
	OwnUser    bool     `json:"own_user"` // nobody else's processes count as its own
}

// A report says why the program did not start.
type report struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
	NoNS  bool   `json:"no_ns,omitempty"` // namespaces are there and good for nothing: it may work without
}

// An Error is a failure that a person can do something about.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// errNoNamespaces is matched by failures that have no other cause than that the kernel grants no namespaces.
var errNoNamespaces = errors.New("no namespaces")

// A Process is a confined program. Its methods are safe for concurrent use.
type Process struct {
	Stdout, Stderr io.ReadCloser // pipes; they end with the last of its processes, or a while after the first
	Namespaces     bool          // it has a root directory of its own
	UID            uint32        // whom it runs as

	process *os.Process
	pipes   [2]*os.File // Stdout and Stderr
	became  chan bool   // gets whether the shim has become the program
	ended   chan struct{}
	status  syscall.WaitStatus
	cgroup  *CGroup
}

// startWait bounds how long the shim may take.
const startWait = 20 * time.Second

// Start starts a program and returns once it runs. It ends with the calling process. The control group is gone when it has
// ended, and if it does not start.
func Start(s *Spec) (*Process, error) {
	p, err := start(s, true)
	if errors.Is(err, errNoNamespaces) && !s.Isolated {
		p, err = start(s, false)
	}
	if err != nil {
		s.CGroup.End()
	}
	return p, err
}

// start starts it with new namespaces or without.
func start(s *Spec, namespaces bool) (*Process, error) {
	l, err := newLaunch(s, namespaces)
	if err != nil {
		return nil, err
	}
	defer l.close()
	p := &Process{Namespaces: namespaces, became: make(chan bool, 1), ended: make(chan struct{}), cgroup: s.CGroup, UID: l.uid}
	started := make(chan error)
	go p.run(l.cmd, started)
	if err := <-started; err != nil {
		return nil, explainStart(err, namespaces)
	}
	l.handOver()
	if err = l.tell(); err != nil {
		p.became <- false
		p.Kill()
		<-p.ended
		return nil, err
	}
	p.pipes[0], p.pipes[1] = l.takePipes()
	p.Stdout, p.Stderr = p.pipes[0], p.pipes[1]
	p.became <- true
	return p, nil
}

// lingering is how long after the program's end what it has started may still write: where there are neither namespaces nor
// a control group that lives on, and nobody may wait for it.
const lingering = 2 * time.Second

// run starts the process and waits for it, all on one thread that lasts as long: the signal that a parent's death sends
// counts the thread that forked as the parent.
func (p *Process) run(cmd *exec.Cmd, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.process = cmd.Process
	started <- nil
	_ = cmd.Wait() // its status says it
	p.status, _ = cmd.ProcessState.Sys().(syscall.WaitStatus)
	if <-p.became {
		p.cgroup.End()
		for _, pipe := range p.pipes {
			_ = pipe.SetReadDeadline(time.Now().Add(lingering)) // or it is closed already
		}
	}
	close(p.ended)
}

// PID returns the process's id, as we see it.
func (p *Process) PID() int { return p.process.Pid }

// Kill ends the program, and all that it has started, at once.
func (p *Process) Kill() { _ = p.process.Kill() }

// Done is closed once the program has ended.
func (p *Process) Done() <-chan struct{} { return p.ended }

// Ended waits for the program's end, but not longer than that, and reports whether it has come.
func (p *Process) Ended(wait time.Duration) bool {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-p.ended:
		return true
	case <-timer.C:
		return false
	}
}

// Status says how the program ended. It waits for that.
func (p *Process) Status() string {
	<-p.ended
	if p.status.Signaled() {
		return fmt.Sprintf("killed by signal %d", p.status.Signal())
	}
	return fmt.Sprintf("exit status %d", p.status.ExitStatus())
}

// tell gives the shim its plan and returns once it has become the program.
func (l *launch) tell() error {
	text, err := json.Marshal(&l.plan)
	if err != nil {
		return err
	}
	_ = l.planWrite.SetWriteDeadline(time.Now().Add(startWait))
	if _, err := l.planWrite.Write(text); err != nil {
		return fmt.Errorf("starting the shim: %w", err)
	}
	l.planWrite.Close()
	_ = l.reportRead.SetReadDeadline(time.Now().Add(startWait))
	said, err := io.ReadAll(io.LimitReader(l.reportRead, maxReport))
	if err != nil {
		return fmt.Errorf("starting the shim: %w", err)
	}
	if len(said) == 0 {
		return nil
	}
	var r report
	if err := json.Unmarshal(said, &r); err != nil {
		return fmt.Errorf("starting the shim: unreadable report: %w", err)
	}
	err = errors.New(r.Error)
	if r.NoNS {
		err = fmt.Errorf("%w: %w", errNoNamespaces, err)
	}
	return &Error{err, r.Hint}
}

const (
	maxReport = 16 << 10 // bytes
	maxPlan   = 1 << 20
)

// explainStart says why no process could be made.
func explainStart(err error, namespaces bool) error {
	err = fmt.Errorf("starting the shim: %w", err)
	if namespaces && (errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EUSERS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EACCES)) {
		return &Error{fmt.Errorf("%w: %w", errNoNamespaces, err), "sysctl user.max_user_namespaces must not be 0, and kernel.unprivileged_userns_clone, where it exists, 1"}
	}
	return err
}
