package boot

import (
	"crypto/sha256"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// withFileUser calls f on a thread of its own whose files and sockets are made as uid's; the packet filter goes
// by that. The thread ends with f.
func withFileUser(uid int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked
		_ = unix.Setfsuid(uid)
		if now, err := unix.SetfsuidRetUid(-1); err != nil || now != uid {
			done <- fmt.Errorf("acting for user %d: %w", uid, unix.EPERM)
			return
		}
		done <- f()
	}()
	return <-done
}

// stir mixes what the host told this machine alone into the kernel's random numbers, and has it draw on that at
// once: machines that were restored from one snapshot would otherwise go on with the same numbers. Where the
// kernel is shared that is not ours to do, nor needed.
func (g *guest) stir() {
	seed := sha256.Sum256(append([]byte("torno random "), g.hello.Token...))
	// struct rand_pool_info: bits of entropy, bytes, the bytes (random(4)).
	info := struct {
		bits, size int32
		buf        [sha256.Size]byte
	}{8 * sha256.Size, sha256.Size, seed}
	fd, err := unix.Open("/dev/urandom", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer unix.Close(fd)
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDADDENTROPY, uintptr(unsafe.Pointer(&info)))
		if errno == 0 {
			_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.RNDRESEEDCRNG, 0)
		}
		if errno != 0 {
			err = errno
		}
	}
	if err != nil {
		g.Log.Warn("random numbers are not refreshed", "error", err)
	}
}
