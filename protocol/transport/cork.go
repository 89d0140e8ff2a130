package transport

import (
	"net"
	"sync"
)

// corkSize is how much a Corked connection collects: what four full TLS records take.
const corkSize = 64<<10 + 4*256 // bytes

var corkBuffers = sync.Pool{New: func() any { return new([corkSize]byte) }}

// A Corked connection can collect what is written to it into fewer writes: crypto/tls writes every record on its
// own, and each write wakes the other side. It is safe for concurrent use as far as the connection below is.
type Corked struct {
	net.Conn

	mu  sync.Mutex
	buf *[corkSize]byte // while corked
	n   int             // bytes of it that are waiting
	err error           // of a write that had to be made meanwhile
}

// Cork begins to collect. Uncork must follow.
func (c *Corked) Cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		c.buf, c.n, c.err = corkBuffers.Get().(*[corkSize]byte), 0, nil
	}
}

// Uncork writes what was collected.
func (c *Corked) Uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return nil
	}
	c.flush()
	corkBuffers.Put(c.buf)
	c.buf = nil
	return c.err
}

// Write writes p, or keeps it for Uncork.
func (c *Corked) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.buf == nil {
		return c.Conn.Write(p)
	}
	if c.n+len(p) > len(c.buf) {
		c.flush()
	}
	if c.err == nil && len(p) > len(c.buf) {
		var n int
		n, c.err = c.Conn.Write(p)
		return n, c.err
	}
	if c.err != nil {
		return 0, c.err
	}
	c.n += copy(c.buf[c.n:], p)
	return len(p), nil
}

func (c *Corked) flush() {
	if c.n > 0 && c.err == nil {
		_, c.err = c.Conn.Write(c.buf[:c.n])
	}
	c.n = 0
}
