package front

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
)

// maxRecord is how much content one TLS record holds (RFC 8446 §5.1).
const maxRecord = 16 << 10 // bytes

// records reads and writes content of several TLS records at once: the system calls of every record, and the
// wake-ups on the other side, are what bulk costs most.
type records struct {
	*tls.Conn
	below *sniffed
	later error // what Read met behind bytes that it returned
}

// Read reads once and, while whole records come, what else has arrived.
func (r *records) Read(p []byte) (int, error) {
	if err := r.later; err != nil {
		r.later = nil
		return 0, err
	}
	n, err := r.Conn.Read(p)
	for n >= maxRecord/2 && err == nil && len(p)-n >= maxRecord && r.below.c.raw != nil {
		var m int
		r.below.hasty = true
		m, err = r.Conn.Read(p[n:])
		r.below.hasty = false
		if n += m; m == 0 {
			break
		}
	}
	if errors.Is(err, errNothing) {
		err = nil
	}
	if n > 0 && err != nil {
		r.later, err = err, nil
	}
	return n, err
}

func (r *records) Write(p []byte) (int, error) {
	if len(p) <= maxRecord {
		return r.Conn.Write(p)
	}
	r.below.Cork()
	n, err := r.Conn.Write(p)
	return n, errors.Join(err, r.below.Uncork())
}

// readNow reads what has arrived, or returns errNothing.
func (s *sniffed) readNow(p []byte) (n int, err error) {
	cerr := s.c.raw.Control(func(fd uintptr) {
		for {
			if n, err = syscall.Read(int(fd), p); !errors.Is(err, syscall.EINTR) {
				return
			}
		}
	})
	switch {
	case cerr != nil:
		return 0, cerr
	case errors.Is(err, syscall.EAGAIN):
		return 0, errNothing
	case err != nil:
		return 0, err
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// errNothing says that nothing has arrived. It calls itself temporary, so that crypto/tls does not remember it.
var errNothing net.Error = nothingError{}

type nothingError struct{}

func (nothingError) Error() string   { return "nothing to read" }
func (nothingError) Timeout() bool   { return true }
func (nothingError) Temporary() bool { return true }
