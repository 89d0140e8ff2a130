package confine

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is a seccomp program (seccomp(2), classic BPF over struct seccomp_data).
type filter []unix.SockFilter

// namespaceFlags are the flags of clone(2) and unshare(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// A denial is a system call that fails with errno before the kernel looks at it.
type denial struct {
	nr    uint32
	errno unix.Errno
}

// denials hold for every program. ENOSYS is for calls that programs probe for and do without.
var denials = append([]denial{
	{unix.SYS_IO_URING_SETUP, unix.ENOSYS}, // opens sockets past this filter
	{unix.SYS_IO_URING_ENTER, unix.ENOSYS},
	{unix.SYS_IO_URING_REGISTER, unix.ENOSYS},
	{unix.SYS_CLONE3, unix.ENOSYS}, // its flags lie in memory; libraries fall back to clone
	{unix.SYS_ADD_KEY, unix.ENOSYS},
	{unix.SYS_REQUEST_KEY, unix.ENOSYS},
	{unix.SYS_KEYCTL, unix.ENOSYS},
	{unix.SYS_PTRACE, unix.EPERM},
	{unix.SYS_PROCESS_VM_READV, unix.EPERM},
	{unix.SYS_PROCESS_VM_WRITEV, unix.EPERM},
	{unix.SYS_PIDFD_GETFD, unix.EPERM},
	{unix.SYS_KCMP, unix.EPERM},
	{unix.SYS_BPF, unix.EPERM},
	{unix.SYS_USERFAULTFD, unix.EPERM},
	{unix.SYS_PERF_EVENT_OPEN, unix.EPERM},
	{unix.SYS_KEXEC_LOAD, unix.EPERM},
	{unix.SYS_KEXEC_FILE_LOAD, unix.EPERM},
	{unix.SYS_INIT_MODULE, unix.EPERM},
	{unix.SYS_FINIT_MODULE, unix.EPERM},
	{unix.SYS_DELETE_MODULE, unix.EPERM},
	{unix.SYS_NAME_TO_HANDLE_AT, unix.EPERM},
	{unix.SYS_OPEN_BY_HANDLE_AT, unix.EPERM},
	{unix.SYS_SYSLOG, unix.EPERM}, // the kernel's log
	{unix.SYS_ACCT, unix.EPERM},
	{unix.SYS_SWAPON, unix.EPERM},
	{unix.SYS_SWAPOFF, unix.EPERM},
	{unix.SYS_REBOOT, unix.EPERM},
	{unix.SYS_CLOCK_SETTIME, unix.EPERM},
	{unix.SYS_CLOCK_ADJTIME, unix.EPERM},
	{unix.SYS_SETTIMEOFDAY, unix.EPERM},
	{unix.SYS_MOUNT, unix.EPERM},
	{unix.SYS_UMOUNT2, unix.EPERM},
	{unix.SYS_PIVOT_ROOT, unix.EPERM},
	{unix.SYS_CHROOT, unix.EPERM},
	{unix.SYS_SETNS, unix.EPERM},
	{unix.SYS_OPEN_TREE, unix.EPERM},
	{unix.SYS_MOVE_MOUNT, unix.EPERM},
	{unix.SYS_FSOPEN, unix.EPERM},
	{unix.SYS_FSCONFIG, unix.EPERM},
	{unix.SYS_FSMOUNT, unix.EPERM},
	{unix.SYS_FSPICK, unix.EPERM},
	{unix.SYS_MOUNT_SETATTR, unix.EPERM},
	{unix.SYS_FANOTIFY_INIT, unix.EPERM},
	{unix.SYS_QUOTACTL, unix.EPERM},
	{unix.SYS_MSGGET, unix.ENOSYS}, // shared with all of a user's processes where there are no namespaces
	{unix.SYS_SEMGET, unix.ENOSYS},
	{unix.SYS_SHMGET, unix.ENOSYS},
	{unix.SYS_MQ_OPEN, unix.ENOSYS},
}, archDenials...)

// Offsets into struct seccomp_data, for little-endian machines: the low halves of the arguments.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16
	offsetArg1   = 24
)

// compile returns the filter for a program that has the network or not, and a root directory of its own or not.
func compile(network, namespaces bool) filter {
	var f filter
	f.load(offsetArch)
	f.unless(unix.BPF_JEQ, nativeArch, unix.SECCOMP_RET_KILL_PROCESS) // i386 has other numbers and socketcall
	f.load(offsetNumber)
	if x32Bit != 0 {
		f.when(unix.BPF_JGE, x32Bit, refuse(unix.ENOSYS))
	}
	families := []uint32{unix.AF_UNIX}
	if network {
		families = append(families, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK)
	}
	if !network && !namespaces { // sockets of other programs lie within reach: only those that are listened on
		f.socket(unix.SYS_SOCKET, unix.SOCK_STREAM)
		f.socket(unix.SYS_SOCKETPAIR, unix.SOCK_STREAM) // one of two that take datagrams sends them to any other as well
		f.when(unix.BPF_JEQ, unix.SYS_CONNECT, refuse(unix.EACCES))
	} else {
		f.only(unix.SYS_SOCKET, families, unix.EAFNOSUPPORT)
		f.only(unix.SYS_SOCKETPAIR, families, unix.EAFNOSUPPORT)
	}
	var ioctl filter
	ioctl.load(offsetArg1)
	ioctl.when(unix.BPF_JEQ, unix.TIOCSTI, refuse(unix.EPERM)) // types into a terminal
	ioctl.when(unix.BPF_JEQ, unix.TIOCLINUX, refuse(unix.EPERM))
	f.call(unix.SYS_IOCTL, ioctl, unix.SECCOMP_RET_ALLOW)
	for _, nr := range []uint32{unix.SYS_CLONE, unix.SYS_UNSHARE} {
		var block filter
		block.load(offsetArg0)
		block.when(unix.BPF_JSET, namespaceFlags, refuse(unix.EPERM))
		f.call(nr, block, unix.SECCOMP_RET_ALLOW)
	}
	for _, d := range denials {
		f.when(unix.BPF_JEQ, d.nr, refuse(d.errno))
	}
	f.ret(unix.SECCOMP_RET_ALLOW)
	return f
}

// socket allows the system call nr, which makes sockets, to make those of AF_UNIX of one type.
func (f *filter) socket(nr, kind uint32) {
	var block filter
	block.load(offsetArg0)
	block.unless(unix.BPF_JEQ, unix.AF_UNIX, refuse(unix.EAFNOSUPPORT))
	block.load(offsetArg1)
	block = append(block, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}) // without SOCK_CLOEXEC and its like
	block.unless(unix.BPF_JEQ, kind, refuse(unix.EPROTONOSUPPORT))
	f.call(nr, block, unix.SECCOMP_RET_ALLOW)
}

func refuse(errno unix.Errno) uint32 { return unix.SECCOMP_RET_ERRNO | uint32(errno) }

func (f *filter) load(offset uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (f *filter) ret(verdict uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict})
}

// when ends with verdict if the comparison of the loaded word with k holds; unless if it does not.
func (f *filter) when(comparison uint16, k, verdict uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, Jf: 1, K: k})
	f.ret(verdict)
}

func (f *filter) unless(comparison uint16, k, verdict uint32) {
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, Jt: 1, K: k})
	f.ret(verdict)
}

// call runs block, and ends with verdict after it, if the loaded word is the system call nr.
func (f *filter) call(nr uint32, block filter, verdict uint32) {
	block.ret(verdict)
	*f = append(*f, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: uint8(len(block)), K: nr})
	*f = append(*f, block...)
}

// only allows the system call nr if its first argument is one of allowed.
func (f *filter) only(nr uint32, allowed []uint32, errno unix.Errno) {
	var block filter
	block.load(offsetArg0)
	for _, value := range allowed {
		block.when(unix.BPF_JEQ, value, unix.SECCOMP_RET_ALLOW)
	}
	f.call(nr, block, refuse(errno))
}

// install puts the calling thread, which the caller holds, under the filter for ever.
func (f filter) install() error {
	program := unix.SockFprog{Len: uint16(len(f)), Filter: &f[0]}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return fmt.Errorf("installing the system call filter: %w", err)
	}
	return nil
}
