package confine

import "golang.org/x/sys/unix"

const (
	nativeArch = unix.AUDIT_ARCH_X86_64
	x32Bit     = 0x40000000 // set in the numbers of the x32 system calls
)

var archDenials = []denial{{unix.SYS_IOPL, unix.EPERM}, {unix.SYS_IOPERM, unix.EPERM}, {unix.SYS_USELIB, unix.ENOSYS}}
