package workload

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"

	"torno.internal/protocol"
)

// A stdio is both ends of the workload's standard descriptors.
type stdio struct {
	child  [3]*os.File // what the workload inherits
	stdin  io.WriteCloser
	stdout *os.File
	stderr *os.File // nil with a terminal
	tty    *os.File // the terminal's master side, nil without one
}

// openPipes gives the workload three pipes, owned by its user so that it may open /dev/stdout too.
func openPipes(owner int) (*stdio, error) {
	var s stdio
	var err error
	var in *os.File
	if s.child[0], in, err = os.Pipe(); err == nil {
		s.stdin = in
		if s.stdout, s.child[1], err = os.Pipe(); err == nil {
			s.stderr, s.child[2], err = os.Pipe()
		}
	}
	for _, f := range s.child {
		if err == nil {
			err = f.Chown(owner, owner)
		}
	}
	if err != nil {
		s.closeAll()
		return nil, fmt.Errorf("opening the workload's pipes: %w", err)
	}
	return &s, nil
}

// openTerminal gives the workload one pseudo-terminal (pts(4)) of the given size.
func openTerminal(owner int, rows, cols uint16) (*stdio, error) {
	master, slave, err := openPTY()
	if err != nil {
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	s := &stdio{child: [3]*os.File{slave, slave, slave}, stdin: terminalInput{master}, stdout: master, tty: master}
	if err := slave.Chown(owner, owner); err != nil {
		s.closeAll()
		return nil, fmt.Errorf("opening a terminal: %w", err)
	}
	s.resize(rows, cols)
	return s, nil
}

// A terminalInput does not close: the end of the person's input is not the end of the terminal, whose
// output still comes.
type terminalInput struct{ *os.File }

func (terminalInput) Close() error { return nil }

func openPTY() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, &os.PathError{Op: "open", Path: "/dev/ptmx", Err: err}
	}
	master = os.NewFile(uintptr(fd), "/dev/ptmx")
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		master.Close()
		return nil, nil, os.NewSyscallError("unlocking the terminal", err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		master.Close()
		return nil, nil, os.NewSyscallError("numbering the terminal", err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}

// resize sets the terminal's size; without a terminal it does nothing.
func (s *stdio) resize(rows, cols uint16) {
	if s.tty == nil || rows == 0 || cols == 0 {
		return
	}
	size := unix.Winsize{Row: rows, Col: cols}
	if raw, err := s.tty.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCSWINSZ, uintptr(unsafe.Pointer(&size)))
		})
	}
}

// closeChild closes the workload's ends once it has them.
func (s *stdio) closeChild() {
	for _, f := range s.child {
		if f != nil {
			f.Close()
		}
	}
}

func (s *stdio) closeAll() {
	s.closeChild()
	for _, f := range []*os.File{s.stdout, s.stderr} {
		if f != nil {
			f.Close()
		}
	}
	if s.stdin != nil {
		s.stdin.Close()
	}
}

// An output is the reading end of what the workload writes. A terminal whose last user has gone says
// EIO, which is its end of file.
type output struct{ *os.File }

func (o output) Read(p []byte) (int, error) {
	n, err := o.File.Read(p)
	if errors.Is(err, unix.EIO) {
		err = io.EOF
	}
	return n, err
}

// signals are those that the run channel may name.
var signals = map[string]unix.Signal{
	"INT": unix.SIGINT, "TERM": unix.SIGTERM, "HUP": unix.SIGHUP, "QUIT": unix.SIGQUIT,
	"USR1": unix.SIGUSR1, "USR2": unix.SIGUSR2, "KILL": unix.SIGKILL,
}

// OwnerOf returns the id of a workload's user.
func OwnerOf(user string) int {
	if user == protocol.UserRoot {
		return 0
	}
	return AgentID
}
