package vhostvsock

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// within fails if f does not return.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { f(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal(what)
	}
}

// A QEMU that was taken over passes an interrupt line that takes no more, and holds both of its ends: the
// device neither waits for it nor fails to end.
func TestFullInterruptLine(t *testing.T) {
	var fds [2]int
	must(t, unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK))
	held, line := os.NewFile(uintptr(fds[0]), "held"), os.NewFile(uintptr(fds[1]), "line")
	defer held.Close()
	defer line.Close()
	for {
		if _, err := unix.Write(fds[1], make([]byte, 4096)); errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	dial, others := pair(t)
	d := newDriver(t, dial)
	d.open(700, 5, others)
	within(t, "the device waits for its interrupt line", func() {
		for range 3 {
			_, err := d.ask(setVringCall, u64s(rx), line)
			must(t, err)
			d.put(from(701, 5, opContent), nil, false) // answered by a reset, and an interrupt
		}
		if n := d.device.Connections(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
	d.qemu.Close()
	within(t, "the device does not end", func() { <-d.served })
}

// Connections that are asked for and given up, again and again, are no more at once than the device serves.
func TestDialsAreBounded(t *testing.T) {
	never := make(chan struct{})
	dials := make(chan struct{}, 16*maxConns)
	d := newDriver(t, func(context.Context, uint32) (*net.UnixConn, error) {
		dials <- struct{}{}
		<-never
		return nil, errors.New("nobody")
	})
	defer close(never)
	before := runtime.NumGoroutine()
	for i := range 2 * maxConns {
		guest := uint32(i % reservedPort)
		d.put(from(guest, 5, opRequest), nil, false)
		d.put(from(guest, 5, opReset), nil, false)
		for d.device.stalledNow() {
			d.get(patience)
		}
	}
	if n := runtime.NumGoroutine() - before; n > maxConns+16 || len(dials) < maxConns/2 {
		t.Errorf("%d goroutines more, of %d dials; want at most %d", n, len(dials), maxConns)
	}
}

// stalledNow reports whether the guest must take what waits for it.
func (d *Device) stalledNow() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.control) > maxControl/2
}
