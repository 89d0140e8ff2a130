package workload

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// A process is the workload's first process, the leader of its own session and group.
type process struct {
	pid  int
	pid1 bool // we are process 1: every orphan is ours to reap, and what is left over ours to end

	mu    sync.Mutex
	ended bool // guards pid against reuse
}

// start starts the stage that becomes the workload, with stdio as its standard descriptors, and waits
// until it has. Where it could not, the process is nil and the Exit says why.
func start(s spec, stdio [3]*os.File, tty, pid1 bool, cgroup *os.File) (*process, protocol.Exit) {
	specRead, specWrite, err := os.Pipe()
	if err != nil {
		return nil, failure(err, "")
	}
	defer specWrite.Close()
	reportRead, reportWrite, err := os.Pipe()
	if err != nil {
		specRead.Close()
		return nil, failure(err, "")
	}
	defer reportRead.Close()

	attr := &syscall.ProcAttr{
		Env:   []string{},
		Files: []uintptr{stdio[0].Fd(), stdio[1].Fd(), stdio[2].Fd(), specRead.Fd(), reportWrite.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Setctty: tty},
	}
	if cgroup != nil { // from its first instruction on
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(cgroup.Fd())
		s.OwnKernel = true // the guest makes cgroups nowhere else
	}
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"torno-guest", Stage}, attr)
	specRead.Close()
	reportWrite.Close()
	if err != nil {
		return nil, failure(fmt.Errorf("starting the workload: %w", err), "is /proc mounted inside?")
	}
	p := &process{pid: pid, pid1: pid1}
	if exit, failed := p.handOver(s, specWrite, reportRead); failed {
		p.wait()
		return nil, exit
	}
	return p, protocol.Exit{}
}

// handOver sends the spec and reads the report, which is empty if execve succeeded.
func (p *process) handOver(s spec, specWrite io.WriteCloser, reportRead io.Reader) (protocol.Exit, bool) {
	err := json.NewEncoder(specWrite).Encode(s)
	specWrite.Close()
	report, readErr := io.ReadAll(io.LimitReader(reportRead, maxSpec))
	if len(report) > 0 {
		var exit protocol.Exit
		if err := json.Unmarshal(report, &exit); err != nil || exit.Code == 0 {
			return failure(fmt.Errorf("starting the workload: unreadable report: %w", err), ""), true
		}
		return exit, true
	}
	if err := errors.Join(err, readErr); err != nil {
		p.signal(unix.SIGKILL)
		return failure(fmt.Errorf("starting the workload: %w", err), ""), true
	}
	return protocol.Exit{}, false
}

// wait reaps until the workload has ended, then ends and reaps whatever it left behind, so that nobody
// holds its output open. It is the only caller of wait4 in the guest.
func (p *process) wait() protocol.Exit {
	which := p.pid
	if p.pid1 {
		which = -1
	}
	var status unix.WaitStatus
	for {
		pid, err := unix.Wait4(which, &status, 0, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return failure(fmt.Errorf("waiting for the workload: %w", err), "")
		}
		if pid == p.pid {
			break
		}
	}
	p.mu.Lock()
	p.ended = true
	p.mu.Unlock()
	p.sweep()
	return exitOf(status)
}

// sweep ends what the workload left behind.
func (p *process) sweep() {
	if !p.pid1 || os.Getpid() != 1 {
		_ = unix.Kill(-p.pid, unix.SIGKILL)
		return
	}
	_ = unix.Kill(-1, unix.SIGKILL) // all of this PID namespace but ourselves
	for {
		if _, err := unix.Wait4(-1, nil, 0, nil); err != nil && err != unix.EINTR {
			return
		}
	}
}

// signal delivers sig to the workload's process group, as a terminal would.
func (p *process) signal(sig unix.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		_ = unix.Kill(-p.pid, sig)
	}
}

// kill ends the workload with all that it started, for certain where we are PID 1.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.ended:
	case p.pid1 && os.Getpid() == 1:
		_ = unix.Kill(-1, unix.SIGKILL)
	default:
		_ = unix.Kill(-p.pid, unix.SIGKILL)
	}
}

func exitOf(status unix.WaitStatus) protocol.Exit {
	if !status.Signaled() {
		return protocol.Exit{Code: status.ExitStatus()}
	}
	sig := status.Signal()
	name := strings.TrimPrefix(unix.SignalName(sig), "SIG")
	if name == "" {
		name = fmt.Sprint(int(sig))
	}
	return protocol.Exit{Code: protocol.ExitSignalBase + int(sig), Signal: name}
}
