package control

import (
	"context"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A Conn is a connection of the control socket. It knows who is at its other end, and keeps the last
// descriptor that came with what was read (unix(7), SCM_RIGHTS) until a handler takes it.
type Conn struct {
	*net.UnixConn
	PID int32  // of the peer when it connected
	UID uint32 // as well

	mu   sync.Mutex
	file *os.File
}

// maxFiles bounds how many descriptors one read may bring; the kernel closes the others.
const maxFiles = 4

func newConn(c *net.UnixConn) *Conn {
	conn := &Conn{UnixConn: c}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
				conn.PID, conn.UID = cred.Pid, cred.Uid
			}
		})
	}
	return conn
}

func (c *Conn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.UnixConn.Read(p)
	}
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, _, _, err := c.ReadMsgUnix(p, oob)
	if oobn > 0 {
		c.keep(oob[:oobn])
	}
	if n == 0 && err == nil {
		return c.UnixConn.Read(p) // tells the end as an error
	}
	return max(n, 0), err // beside an error it is -1, which io.Reader forbids
}

// keep keeps the last of the descriptors in oob and closes the others.
func (c *Conn) keep(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			continue
		}
		for _, fd := range fds {
			c.file.Close() // of nil it is no more than an error
			c.file = os.NewFile(uintptr(fd), "received")
		}
	}
}

// TakeFile returns the last descriptor that came over the connection, which is the caller's from then on,
// or nil.
func (c *Conn) TakeFile() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.file
	c.file = nil
	return f
}

// Close closes the connection, and a descriptor that nobody took.
func (c *Conn) Close() error {
	if f := c.TakeFile(); f != nil {
		f.Close()
	}
	return c.UnixConn.Close()
}

type connKey struct{}

// WithConn is for http.Server.ConnContext: handlers then find their connection by ConnOf.
func WithConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// ConnOf returns the connection that a request came over, or nil.
func ConnOf(ctx context.Context) *Conn {
	c, _ := ctx.Value(connKey{}).(*Conn)
	return c
}
