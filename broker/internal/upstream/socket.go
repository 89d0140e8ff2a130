package upstream

import (
	"errors"
	"io"
	"net"
	"syscall"
)

// A socket is a TCP connection that can also be read without waiting. TLS runs on top of it, so what
// TLS itself has read ahead is seen by a probe as well.
type socket struct {
	*net.TCPConn
	raw     syscall.RawConn
	probing bool // Read returns errNothing instead of waiting
	eof     bool // the peer closed the TCP connection, with or without TLS's consent

	now   func(fd uintptr) // reads what is there into p
	p     []byte
	n     int
	errno error
}

func newSocket(nc *net.TCPConn) (*socket, error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{TCPConn: nc, raw: raw}
	s.now = func(fd uintptr) {
		for {
			if s.n, s.errno = syscall.Read(int(fd), s.p); !errors.Is(s.errno, syscall.EINTR) {
				return
			}
		}
	}
	return s, nil
}

// Read waits for bytes unless the socket is being probed.
func (s *socket) Read(p []byte) (int, error) {
	if s.probing {
		return s.readNow(p)
	}
	n, err := s.TCPConn.Read(p)
	if errors.Is(err, io.EOF) {
		s.eof = true
	}
	return n, err
}

func (s *socket) readNow(p []byte) (int, error) {
	s.p = p
	err := s.raw.Control(s.now)
	s.p = nil
	switch {
	case err != nil:
		return 0, err
	case errors.Is(s.errno, syscall.EAGAIN):
		return 0, errNothing
	case s.errno != nil:
		return 0, s.errno
	case s.n == 0 && len(p) > 0:
		s.eof = true
		return 0, io.EOF
	}
	return s.n, nil
}

// errNothing says that a probe found no bytes. It calls itself temporary, so that crypto/tls does not
// remember it.
var errNothing net.Error = nothingError{}

type nothingError struct{}

func (nothingError) Error() string   { return "nothing to read" }
func (nothingError) Timeout() bool   { return true }
func (nothingError) Temporary() bool { return true }
