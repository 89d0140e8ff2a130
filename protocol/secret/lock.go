package secret

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Lock keeps the pages that the bytes stand in out of swap and of core dumps, where the process may lock
// memory (RLIMIT_MEMLOCK); it reports whether it could. Go's collector does not move what is allocated. The
// pages stay locked after Wipe: others may stand in them.
func (v Value) Lock() bool {
	if v.Len() == 0 {
		return true
	}
	page := uintptr(unix.Getpagesize())
	first := uintptr(unsafe.Pointer(unsafe.SliceData(*v.b)))
	start, end := first&^(page-1), (first+uintptr(cap(*v.b))+page-1)&^(page-1)
	_, _, locked := unix.Syscall(unix.SYS_MLOCK, start, end-start, 0)
	_, _, hidden := unix.Syscall(unix.SYS_MADVISE, start, end-start, unix.MADV_DONTDUMP)
	return locked == 0 && hidden == 0
}
