package confine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// namespaces are those that every program gets.
const namespaces = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// A launch is what is open while the shim starts.
type launch struct {
	cmd  *exec.Cmd
	plan plan
	uid  uint32

	planWrite, reportRead *os.File
	stdout, stderr        *os.File
	theirs                []*os.File // closed once the shim has them
}

// newLaunch prepares the shim.
func newLaunch(s *Spec, withNamespaces bool) (l *launch, err error) {
	l = &launch{
		uid: uint32(os.Geteuid()),
		plan: plan{
			Name: s.Name, Env: s.Env, Dir: s.Dir, Read: s.Read, Write: s.Write, Network: s.Network,
			Namespaces: withNamespaces, Memory: s.Memory,
		},
	}
	if s.DirEnv != "" {
		inside := s.Dir
		if withNamespaces {
			inside = InsideDir
		}
		l.plan.Env = append(slices.Clone(s.Env), s.DirEnv+"="+inside)
	}
	if err := l.identify(s, withNamespaces); err != nil {
		return nil, err
	}
	if s.Network && !withNamespaces && l.plan.Become == nil {
		return nil, &Error{errors.New("a program with the network, under the broker's own user and without namespaces, could reach the broker's control socket"),
			"run the broker as root, which gives each plugin a user of its own, or let its user make namespaces (docs/plugins.md)"}
	}
	var pipes [4][2]*os.File // plan, report, stdout, stderr
	for i := range pipes {
		if pipes[i][0], pipes[i][1], err = os.Pipe(); err != nil {
			for _, p := range pipes[:i] {
				p[0].Close()
				p[1].Close()
			}
			return nil, err
		}
	}
	l.planWrite, l.reportRead, l.stdout, l.stderr = pipes[0][1], pipes[1][0], pipes[2][0], pipes[3][0]
	l.theirs = []*os.File{pipes[0][0], pipes[1][1], pipes[2][1], pipes[3][1]}

	cmd := exec.Command("/proc/self/exe", Command)
	cmd.Args[0] = "torno" // as ps shows it
	cmd.Env = []string{}
	cmd.Stdout, cmd.Stderr = l.theirs[2], l.theirs[3] // stdin: /dev/null
	cmd.ExtraFiles = []*os.File{l.theirs[0], l.theirs[1], s.Program}
	attr := &syscall.SysProcAttr{
		Setsid:    true, // no controlling terminal, no signals from one
		Pdeathsig: unix.SIGKILL,
	}
	if withNamespaces {
		attr.Cloneflags = namespaces
		if !s.Network {
			attr.Cloneflags |= unix.CLONE_NEWNET
		}
		if l.plan.MapUser != nil {
			attr.Cloneflags |= unix.CLONE_NEWUSER
			attr.AmbientCaps = allCaps() // else execve as an id that is not mapped yet would lose them
		}
	}
	s.CGroup.use(attr)
	cmd.SysProcAttr = attr
	l.cmd = cmd
	return l, nil
}

// identify decides whom the program runs as. Root gives it a user of its own; anybody else keeps his own, in a user
// namespace where that can be.
func (l *launch) identify(s *Spec, withNamespaces bool) error {
	self := User{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid())}
	if self.UID != 0 {
		if s.User != nil && *s.User != self {
			return &Error{fmt.Errorf("the broker is not root, and can't start a program as user %d", s.User.UID), "leave user out"}
		}
		if withNamespaces {
			l.plan.MapUser, l.plan.OwnUser = &self, true
		}
		return nil
	}
	become := s.User
	if become == nil {
		own, err := ownUser(s.Number)
		if err != nil {
			return err
		}
		become = &own
	}
	if become.UID == 0 {
		return &Error{errors.New("a plugin does not run as root"), "name another user, or leave user out"}
	}
	l.plan.Become, l.plan.OwnUser, l.uid = become, s.User == nil, become.UID
	return os.Chown(s.Dir, int(become.UID), int(become.GID))
}

// handOver closes what the shim has now.
func (l *launch) handOver() {
	for _, f := range l.theirs {
		f.Close()
	}
	l.theirs = nil
}

// close closes what nobody has taken.
func (l *launch) close() {
	l.handOver()
	for _, f := range []*os.File{l.planWrite, l.reportRead, l.stdout, l.stderr} {
		f.Close() // of none, and once more, it does nothing
	}
}

// takePipes returns what the program writes to.
func (l *launch) takePipes() (stdout, stderr *os.File) {
	stdout, stderr = l.stdout, l.stderr
	l.stdout, l.stderr = nil, nil
	return stdout, stderr
}

// allCaps are the capabilities that a shim in a user namespace of its own keeps over execve: over nothing but its own
// namespaces.
func allCaps() []uintptr {
	var caps []uintptr
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if unix.Prctl(unix.PR_CAPBSET_READ, c, 0, 0, 0) == nil {
			caps = append(caps, c)
		}
	}
	return slices.Clip(caps)
}
