package vhostvsock

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// firstHostPort is the host's port of the first connection to the guest, as Firecracker counts.
const firstHostPort = 1 << 30

// dial connects to the host program that the guest asked for.
func (c *conn) dial() {
	d := c.device
	ctx, cancel := context.WithTimeout(d.ctx, dialTimeout)
	host, err := d.config.Dial(ctx, c.key.host)
	cancel()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dials--
	if err == nil {
		err = c.use(host)
	}
	if err != nil || c.over {
		if host != nil {
			host.Close()
		}
		d.config.Log.Debug("vsock connection", "port", c.key.host, "err", err)
		c.reset()
		return
	}
	c.isOpen = true
	d.queue(c.header(opResponse, 0))
	d.work.Go(c.deliver)
}

func (c *conn) use(host *net.UnixConn) error {
	raw, err := host.SyscallConn()
	if err != nil {
		return err
	}
	c.host, c.raw = host, raw
	return nil
}

// Attach connects host to a port in the guest and returns once the guest has accepted. Then hello, if it is
// not nil, is called with the connection's port on the host, and what it returns is written to host
// before all that the guest sends. Attach takes host over; on an error it is closed.
func (d *Device) Attach(ctx context.Context, port uint32, host *net.UnixConn, hello func(port uint32) []byte) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	c, err := d.ask(port, host, hello)
	if err != nil {
		host.Close()
		return err
	}
	select {
	case <-c.asked:
	case <-ctx.Done():
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case c.isOpen:
		return nil
	case c.over:
		return fmt.Errorf("nobody listens on port %d in the guest", port)
	}
	c.reset()
	return fmt.Errorf("connecting to port %d in the guest: %w", port, ctx.Err())
}

// ask asks the guest for a connection.
func (d *Device) ask(port uint32, host *net.UnixConn, hello func(port uint32) []byte) (*conn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || len(d.conns) >= maxConns {
		return nil, fmt.Errorf("no connection to port %d in the guest: %d are open", port, len(d.conns))
	}
	c := &conn{device: d, key: key{port, d.next}, asked: make(chan struct{})}
	for d.conns[c.key] != nil {
		c.key.host++
	}
	if d.next = c.key.host + 1; d.next == 2*firstHostPort {
		d.next = firstHostPort
	}
	if err := c.use(host); err != nil {
		return nil, err
	}
	if hello != nil {
		c.hello = hello(c.key.host)
	}
	d.conns[c.key] = c
	d.queue(c.header(opRequest, 0))
	return c, nil
}

// established opens a connection that the guest was asked for.
func (c *conn) established() {
	c.isOpen = true
	close(c.asked)
	if c.try(c.hello) < len(c.hello) { // a new socket takes so few bytes, but where nobody is there
		c.reset()
		return
	}
	c.device.work.Go(c.deliver)
}

// content holds buffers for what is on its way to a guest.
var content = sync.Pool{New: func() any { b := make([]byte, maxPacket); return &b }}

// deliver takes what the host program sends to the guest, until its end.
func (c *conn) deliver() {
	for {
		err := c.deliverSome()
		if err == nil {
			continue
		}
		gone := err != io.EOF
		c.hostEnded(gone, err)
		if gone || c.raw.Read(hungUp) != nil {
			return
		}
		c.hostEnded(true, nil) // after its own end it has closed the rest
		return
	}
}

// hostEnded notes that the host program sends no more, nor receives if it is gone.
func (c *conn) hostEnded(gone bool, err error) {
	d := c.device
	d.mu.Lock()
	defer d.mu.Unlock()
	c.mine |= shutSend
	if gone {
		c.mine |= shutReceive
	}
	if err != nil && err != io.EOF && err != errHungUp {
		c.reset()
		return
	}
	c.settle()
}

// deliverSome waits for bytes from the host program, and for the guest to have room for them.
func (c *conn) deliverSome() error {
	var b *[]byte
	var n int
	var err error
	rawErr := c.raw.Read(func(fd uintptr) bool {
		b = content.Get().(*[]byte) // only now: most connections wait most of the time
		n, err = unix.Read(int(fd), *b)
		if err == unix.EAGAIN {
			content.Put(b)
			return false
		}
		if n == 0 && err == nil {
			if err = io.EOF; hungUp(fd) {
				err = errHungUp
			}
		}
		return true
	})
	if rawErr != nil {
		return rawErr
	}
	defer content.Put(b)
	if err == unix.EINTR {
		return nil
	}
	if err != nil {
		return err
	}
	return c.push((*b)[:n])
}

// push sends b to the guest.
func (c *conn) push(b []byte) error {
	d := c.device
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.signal()
	var buffer chain
	for len(b) > 0 {
		if c.over || c.guest.has(shutReceive) {
			return net.ErrClosed
		}
		room := c.credit()
		if room == 0 || !d.flush() || !d.buffer(&buffer) {
			d.signal()
			d.changed.Wait()
			continue
		}
		h := c.header(opContent, 0)
		n := d.send(&buffer, &h, b[:min(room, len(b))])
		c.sent += uint32(n)
		b = b[n:]
	}
	return nil
}

// hungUp reports whether the other end of a Unix socket is closed, and not just done with sending.
func hungUp(fd uintptr) bool {
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 1 && poll[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
}
