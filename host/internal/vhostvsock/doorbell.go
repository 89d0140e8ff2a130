package vhostvsock

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// A doorbell is an eventfd by which driver and device wake each other: the driver's kicks, or our
// interrupts. The nil doorbell is one that nobody hears.
type doorbell struct {
	file *os.File
	raw  syscall.RawConn
}

// newDoorbell takes f over; nil is nobody's.
func newDoorbell(f *os.File) (*doorbell, error) {
	if f == nil {
		return nil, nil
	}
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, err
	}
	return &doorbell{f, raw}, nil
}

var one = []byte{1, 0, 0, 0, 0, 0, 0, 0}

// ring wakes the other side. It never waits: one whose bell is full has been told, or is not to be helped.
func (b *doorbell) ring() {
	if b != nil {
		_ = b.raw.Write(func(fd uintptr) bool {
			_, _ = unix.Write(int(fd), one)
			return true
		})
	}
}

// wait waits until the other side has rung. The error says that the doorbell is closed.
func (b *doorbell) wait() error {
	var count [8]byte
	_, err := b.file.Read(count[:])
	return err
}

func (b *doorbell) close() {
	if b != nil {
		b.file.Close()
	}
}
