package vhostvsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of who asks for a port in the guest.
const (
	maxAsk     = len("CONNECT 4294967295\n") // bytes
	askTimeout = 10 * time.Second
	maxAsking  = 64 // at once
)

// Hybrid returns a Config.Dial that leads port P to the Unix socket BASE_P, as Firecracker and Cloud
// Hypervisor do.
func Hybrid(base string) func(context.Context, uint32) (*net.UnixConn, error) {
	return func(ctx context.Context, port uint32) (*net.UnixConn, error) {
		return DialUnix(ctx, base+"_"+strconv.FormatUint(uint64(port), 10))
	}
}

// DialUnix connects to a Unix socket.
func DialUnix(ctx context.Context, path string) (*net.UnixConn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}

// ServeHybrid connects those who come to l, which listens on BASE, to ports in the guest: they say
// "CONNECT P\n" and are told "OK n\n", where n is the connection's port on the host, or the connection
// is closed. It returns when l is closed or ctx done, after all that are still asking.
func (d *Device) ServeHybrid(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var asking sync.WaitGroup
	defer asking.Wait()
	room := make(chan struct{}, maxAsking)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		room <- struct{}{}
		asking.Go(func() {
			defer func() { <-room }()
			if err := d.connect(ctx, c.(*net.UnixConn)); err != nil {
				d.config.Log.Debug("vsock connection to the guest", "err", err)
			}
		})
	}
}

// connect reads which port is wanted and connects to it.
func (d *Device) connect(ctx context.Context, c *net.UnixConn) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	err := c.SetReadDeadline(time.Now().Add(askTimeout))
	var port uint32
	if err == nil {
		port, err = readAsk(c)
	}
	if err == nil {
		err = c.SetReadDeadline(time.Time{})
	}
	if !stop() || err != nil {
		c.Close()
		return errors.Join(ctx.Err(), err)
	}
	return d.Attach(ctx, port, c, func(own uint32) []byte { return fmt.Appendf(nil, "OK %d\n", own) })
}

// readAsk reads "CONNECT P\n", and not a byte more: what follows is the guest program's.
func readAsk(r io.Reader) (uint32, error) {
	var line [maxAsk]byte
	n := 0
	for n == 0 || line[n-1] != '\n' {
		if n == len(line) {
			return 0, fmt.Errorf("%q is too long", line)
		}
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return 0, err
		}
		n++
	}
	digits, ok := strings.CutPrefix(string(line[:n-1]), "CONNECT ")
	port, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil {
		return 0, fmt.Errorf("%q is no CONNECT with a port", line[:n])
	}
	return uint32(port), nil
}

// Socketpair returns the two ends of a connection for vhost-user: ours, and QEMU's to inherit.
func Socketpair() (ours *net.UnixConn, qemus *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	mine := os.NewFile(uintptr(fds[0]), "vhost-user")
	qemus = os.NewFile(uintptr(fds[1]), "vhost-user")
	defer mine.Close() // FileConn has its own
	c, err := net.FileConn(mine)
	if err != nil {
		qemus.Close()
		return nil, nil, err
	}
	return c.(*net.UnixConn), qemus, nil
}
