// Package vhostvsock is a virtio socket device (virtio 1.2, section 5.10) as a vhost-user back-end
// (QEMU's docs/interop/vhost-user): AF_VSOCK for a VM without kernel module, privilege or registry of
// CIDs. It serves streams over split rings, no more.
//
//	guest program ── AF_VSOCK ── driver ══ rings in guest memory ══ Device ── Unix socket ── host program
//	                                QEMU ── vhost-user messages ──┘
//
// To programs on the host it looks like Firecracker's device and Cloud Hypervisor's: a connection of the
// guest to port P of the host arrives at the Unix socket BASE_P, and who connects to BASE and says
// "CONNECT P\n" is connected to port P in the guest, and told "OK n\n" first.
//
// The guest is the adversary. Whatever it writes to its rings and packets is read once, checked, and
// bounded; what breaks the device's rules breaks a connection, or the device as a whole, never the host.
package vhostvsock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of one device.
const (
	maxConns    = 2048             // connections at once, both directions
	maxControl  = 1024             // packets without content that wait for the guest, before its own wait too
	bufferSize  = 128 << 10        // bytes of a connection that the host program has not taken yet
	maxPacket   = 64 << 10         // content bytes of one packet
	dialTimeout = 10 * time.Second // for a host program to accept, and for a guest to answer
	lingerTime  = 10 * time.Second // for the guest to acknowledge that a connection is over
)

// reservedPort is the first port that needs no privilege in the guest. Connections from there on are
// refused: it is a filter that keeps the unprivileged from using up the device, not a secret.
const reservedPort = 1024

// hostCID is the host, as seen from a guest.
const hostCID = 2

// ErrGuest means that the guest's driver broke the rules of virtio, so that nothing it says can be
// understood any more.
var ErrGuest = errors.New("the guest broke its vsock device")

// A Config says which guest to serve and where its connections lead.
type Config struct {
	CID  uint32                                                        // the guest's, at least 3
	Dial func(ctx context.Context, port uint32) (*net.UnixConn, error) // to whom listens on that port of the host
	Log  *slog.Logger
}

// A Device is the device of one guest. Its methods are safe for concurrent use.
type Device struct {
	config Config
	ctx    context.Context // of Serve; dials end with it
	cancel context.CancelFunc
	work   sync.WaitGroup // goroutines of connections and rings

	mu      sync.Mutex
	changed sync.Cond // buffers, credit or state may have become better
	memory  *memory
	rings   [2]ring // rx, to the guest, and tx, from it
	conns   map[key]*conn
	dials   int      // under way: of conns, and of those that the guest has given up meanwhile
	control []header // wait for buffers of rx, in order
	stalled bool     // tx waits for control to become shorter
	next    uint32   // the host's port of the next connection to the guest
	broken  error
	closed  bool
}

// The rings' indexes. The third one, of events, stays with QEMU.
const (
	rx = 0
	tx = 1
)

// New makes a device that Serve serves.
func New(c Config) *Device {
	d := &Device{config: c, conns: map[key]*conn{}, next: firstHostPort}
	d.changed.L = &d.mu
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Serve speaks vhost-user with QEMU until QEMU ends or ctx does, and closes everything then. The error
// is nil if QEMU ended, and wraps ErrGuest if the guest broke the device. A Device is served once.
func (d *Device) Serve(ctx context.Context, qemu *net.UnixConn) error {
	stop := context.AfterFunc(ctx, func() { qemu.Close() })
	defer stop()
	stopBroken := context.AfterFunc(d.ctx, func() { qemu.Close() })
	defer stopBroken()
	f := &frontend{device: d, conn: qemu}
	err := f.serve()
	qemu.Close()
	d.close()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken != nil {
		return d.broken
	}
	return err
}

// close ends all connections and waits for whoever works on them.
func (d *Device) close() {
	d.cancel()
	d.mu.Lock()
	d.closed = true
	for i := range d.rings {
		d.rings[i].stop()
		d.rings[i].closeFiles()
	}
	d.reset()
	d.mu.Unlock()
	d.work.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.memory.close()
	d.memory = nil
}

// fail breaks the device for good. The caller holds mu.
func (d *Device) fail(err error) {
	if d.broken != nil {
		return
	}
	d.broken = fmt.Errorf("%w: %w", ErrGuest, err)
	d.config.Log.Warn("vsock device", "err", d.broken)
	for i := range d.rings {
		d.rings[i].stop()
	}
	d.reset()
	d.cancel() // ends Serve
}

// Broken returns why the device is broken, or nil.
func (d *Device) Broken() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.broken
}

// reset forgets all connections, as the guest has or soon will. The caller holds mu.
func (d *Device) reset() {
	for _, c := range d.conns {
		c.drop()
	}
	d.control, d.stalled = nil, false
	d.changed.Broadcast()
}

// ErrNoMemory means that the guest has not started its device yet, or that its memory can't be read.
var ErrNoMemory = errors.New("the guest's memory is not shared yet")

// Memory opens the guest's memory for reading: the memfd that all of its regions lie in.
func (d *Device) Memory() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.memory == nil {
		return nil, ErrNoMemory
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", d.memory.fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the guest's memory: %w", err)
	}
	return os.NewFile(uintptr(fd), "guest memory"), nil
}

// Frozen calls f while the device touches no guest memory.
func (d *Device) Frozen(f func() error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return f()
}

// Connections returns how many there are.
func (d *Device) Connections() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}
