package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// Stage is the first argument that makes torno-guest run Exec instead of booting. Go cannot run code
// between fork and exec, so the guest executes itself and drops its privileges there.
const Stage = "workload-exec"

// Descriptors that the stage inherits beside its standard ones.
const (
	specFD   = 3 // the spec as JSON, to its end
	reportFD = 4 // a protocol.Exit as JSON, should the workload not start
)

const maxSpec = 4 << 20 // bytes; more than any argv and environment that execve takes

// A spec tells the stage what to become.
type spec struct {
	Argv []string `json:"argv"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"` // empty: home, or / where there is none
	Home string   `json:"home"`
	User string   `json:"user"`

	OwnKernel bool `json:"own_kernel"` // nobody else's: root may divide up its cgroup, and run container engines
}

// Exec becomes the workload: it reads the spec, gives up every privilege that the user does not have,
// and executes the command. It returns only if it could not, after reporting why, with an exit status.
func Exec() int {
	runtime.LockOSThread() // credentials and filter are the thread's; execve makes it the process's
	exit := becomeWorkload()
	report := os.NewFile(reportFD, "report")
	if json.NewEncoder(report).Encode(exit) != nil {
		return protocol.ExitFailed
	}
	return exit.Code
}

func becomeWorkload() protocol.Exit {
	s, err := readSpec()
	if err != nil {
		return failure(fmt.Errorf("reading what to start: %w", err), "")
	}
	// Whatever else is open, the runtime's own descriptors too, ends with execve.
	if err := unix.CloseRange(specFD, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return failure(fmt.Errorf("closing inherited descriptors: %w", err), "torno needs Linux 5.11 or newer")
	}
	heedSignals()
	p := s.power()
	if p == machinePower {
		if err := enterCgroup(); err != nil {
			return failure(fmt.Errorf("cgroup: %w", err), "")
		}
	}
	if err := drop(p); err != nil {
		return failure(fmt.Errorf("dropping privileges: %w", err), "")
	}
	if err := enter(s); err != nil {
		return failure(err, "name a directory that the user "+s.User+" can enter")
	}
	path, exit := lookPath(s.Argv[0], s.Env)
	if path == "" {
		return exit
	}
	return execFailure(path, unix.Exec(path, s.Argv, s.Env))
}

// heedSignals takes back that signals are ignored, as INT is for all that a script starts in the background: execve
// leaves an ignored signal ignored, and a workload that the person interrupts would go on. One that is caught it makes
// the default again.
func heedSignals() { signal.Notify(make(chan os.Signal, 1)) }

func (s spec) power() power {
	switch {
	case s.User != protocol.UserRoot:
		return agentPower
	case s.OwnKernel:
		return machinePower
	}
	return rootPower
}

func readSpec() (spec, error) {
	f := os.NewFile(specFD, "spec")
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return spec{}, err
	}
	var s spec
	if err := json.Unmarshal(data, &s); err != nil {
		return spec{}, err
	}
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return spec{}, errors.New("command is empty")
	}
	if s.User != protocol.UserAgent && s.User != protocol.UserRoot {
		return spec{}, fmt.Errorf("unknown user %q", s.User)
	}
	return s, nil
}

// enter changes to the working directory, as the user.
func enter(s spec) error {
	if s.Dir != "" {
		if err := unix.Chdir(s.Dir); err != nil {
			return fmt.Errorf("working directory %q: %w", s.Dir, err)
		}
		return nil
	}
	if unix.Chdir(s.Home) == nil {
		return nil
	}
	return unix.Chdir("/")
}

// lookPath finds the command as execvp(3) does, with the workload's PATH and the user's permissions.
func lookPath(name string, env []string) (string, protocol.Exit) {
	if strings.Contains(name, "/") {
		return name, protocol.Exit{}
	}
	forbidden := ""
	for _, dir := range filepath.SplitList(lookup(env, "PATH")) {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if dir == "" || err != nil || info.IsDir() {
			continue
		}
		if unix.Access(path, unix.X_OK) == nil {
			return path, protocol.Exit{}
		}
		forbidden = path
	}
	if forbidden != "" {
		return "", execFailure(forbidden, unix.EACCES)
	}
	return "", protocol.Exit{
		Code:  protocol.ExitNotFound,
		Error: fmt.Sprintf("command %q: not found", name),
		Hint:  "is it installed inside, and in PATH? PATH=" + lookup(env, "PATH"),
	}
}

// execFailure says why execve failed, with the exit codes of a shell.
func execFailure(path string, err error) protocol.Exit {
	exit := protocol.Exit{
		Code:  protocol.ExitNotExecutable,
		Error: fmt.Sprintf("command %q: %v", path, err),
		Hint:  "it must be a file that the user may execute (chmod +x)",
	}
	switch {
	case errors.Is(err, unix.ENOEXEC):
		exit.Hint = "a script begins with #! and its interpreter; a program is built for this machine"
	case errors.Is(err, unix.ENOENT):
		exit.Code = protocol.ExitNotFound
		exit.Hint = "is the path right inside?"
		if _, statErr := os.Stat(path); statErr == nil {
			exit.Hint = "the file is there, but the interpreter or loader that it names is not"
		}
	}
	return exit
}

func failure(err error, hint string) protocol.Exit {
	return protocol.Exit{Code: protocol.ExitFailed, Error: err.Error(), Hint: hint}
}
