package run

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// errOver means that the run was over before a standard stream was ready.
var errOver = errors.New("the run is over")

// pipeSlot is how many bytes a pipe takes without blocking once poll(2) says that it takes any.
const pipeSlot = 4096

// An alarm wakes everybody who waits for a standard stream, which may be for ever.
type alarm struct{ r, w *os.File }

func newAlarm() (*alarm, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &alarm{r, w}, nil
}

// ring ends all waiting, now and later.
func (a *alarm) ring() { a.w.Close() }

func (a *alarm) close() { a.r.Close() }

// wait waits until f is ready for the events, or returns errOver.
func (a *alarm) wait(f *os.File, events int16) error {
	for {
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: events}, {Fd: int32(a.r.Fd()), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		case fds[1].Revents != 0:
			return errOver
		}
		return nil
	}
}

// An input is standard input. It is read without the runtime's poller, which a terminal or a file that
// others share does not go with.
type input struct {
	file *os.File
	over *alarm
}

// Read reads what is there, waiting for it.
func (in input) Read(p []byte) (int, error) {
	for {
		if err := in.over.wait(in.file, unix.POLLIN); err != nil {
			return 0, err
		}
		n, err := unix.Read(int(in.file.Fd()), p)
		switch {
		case err == unix.EINTR || err == unix.EAGAIN:
			continue
		case err != nil:
			return 0, &os.PathError{Op: "read", Path: in.file.Name(), Err: err}
		case n == 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// An output is standard output or error. A broken pipe is an error here, never SIGPIPE: there is a
// terminal to restore.
type output struct {
	file *os.File
	over *alarm
}

// write writes all of p, or returns errOver while nobody reads.
func (out output) write(p []byte) error {
	for len(p) > 0 {
		if err := out.over.wait(out.file, unix.POLLOUT); err != nil {
			return err
		}
		n, err := unix.Write(int(out.file.Fd()), p[:min(len(p), pipeSlot)])
		if err != nil && err != unix.EINTR && err != unix.EAGAIN {
			return &os.PathError{Op: "write", Path: out.file.Name(), Err: err}
		}
		p = p[max(n, 0):]
	}
	return nil
}
