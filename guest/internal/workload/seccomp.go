package workload

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A filter is a seccomp program (seccomp(2), classic BPF over struct seccomp_data).
type filter []unix.SockFilter

// families are the address families that a workload may open. Everything else is refused, above all
// AF_VSOCK, which network namespaces do not isolate and which leads to the broker.
var families = []uint32{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// namespaceFlags are the flags of clone(2) and unshare(2) that make namespaces.
const namespaceFlags = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET |
	unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// A denial is a system call that fails with errno before the kernel looks at it.
type denial struct {
	nr    uint32
	errno unix.Errno
}

// denials hold for every workload. ENOSYS is for calls that programs probe for and do without.
var denials = append([]denial{
	{unix.SYS_IO_URING_SETUP, unix.ENOSYS}, // opens sockets past this filter
	{unix.SYS_IO_URING_ENTER, unix.ENOSYS},
	{unix.SYS_IO_URING_REGISTER, unix.ENOSYS},
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
	{unix.SYS_OPEN_BY_HANDLE_AT, unix.EPERM},
	{unix.SYS_SYSLOG, unix.EPERM}, // the kernel's log
	{unix.SYS_ACCT, unix.EPERM},
	{unix.SYS_SWAPON, unix.EPERM},
	{unix.SYS_SWAPOFF, unix.EPERM},
	{unix.SYS_REBOOT, unix.EPERM},
	{unix.SYS_CLOCK_SETTIME, unix.EPERM},
	{unix.SYS_SETTIMEOFDAY, unix.EPERM},
	{unix.SYS_ADD_KEY, unix.ENOSYS}, // keyrings belong to the kernel as a whole; container engines do without
	{unix.SYS_REQUEST_KEY, unix.ENOSYS},
	{unix.SYS_KEYCTL, unix.ENOSYS},
}, archDenials...)

// agentDenials hold for the user agent besides: it mounts nothing and makes no namespaces.
var agentDenials = []denial{
	{unix.SYS_CLONE3, unix.ENOSYS}, // its flags lie in memory; libraries fall back to clone
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
}

// rootPrograms are the commands of bpf(2) that root has on a kernel of its own: container engines say with a
// cgroup's program which devices its processes may open. What is not here, above all maps and links, keeps programs from the kernel's
// tracepoints and from the guest's capture.
var rootPrograms = []uint32{
	unix.BPF_PROG_LOAD, unix.BPF_PROG_ATTACH, unix.BPF_PROG_DETACH, unix.BPF_PROG_QUERY,
	unix.BPF_PROG_GET_FD_BY_ID, unix.BPF_OBJ_GET_INFO_BY_FD, // to replace those that are there
}

// Offsets into struct seccomp_data, for little-endian machines: the low halves of the arguments.
const (
	offsetNumber = 0
	offsetArch   = 4
	offsetArg0   = 16
	offsetArg1   = 24
)

// A power is what a user may do beside running programs.
type power uint8

const (
	agentPower   power = iota // nothing
	rootPower                 // what root may in its namespaces, on a kernel that others use too
	machinePower              // what root may on a kernel of its own
)

// compile returns the filter for a user.
func compile(p power) filter {
	var f filter
	f.load(offsetArch)
	f.unless(unix.BPF_JEQ, nativeArch, unix.SECCOMP_RET_KILL_PROCESS) // i386 has other numbers and socketcall
	f.load(offsetNumber)
	if x32Bit != 0 {
		f.when(unix.BPF_JGE, x32Bit, refuse(unix.ENOSYS))
	}
	for _, nr := range []uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR} {
		f.only(nr, families, unix.EAFNOSUPPORT)
	}
	var ioctl filter
	ioctl.load(offsetArg1)
	ioctl.when(unix.BPF_JEQ, unix.TIOCSTI, refuse(unix.EPERM)) // types into the terminal that it shares
	ioctl.when(unix.BPF_JEQ, unix.TIOCLINUX, refuse(unix.EPERM))
	f.call(unix.SYS_IOCTL, ioctl, unix.SECCOMP_RET_ALLOW)
	table := denials
	switch p {
	case agentPower:
		for _, nr := range []uint32{unix.SYS_CLONE, unix.SYS_UNSHARE} {
			var block filter
			block.load(offsetArg0)
			block.when(unix.BPF_JSET, namespaceFlags, refuse(unix.EPERM))
			f.call(nr, block, unix.SECCOMP_RET_ALLOW)
		}
		table = append(table[:len(table):len(table)], agentDenials...)
	case machinePower:
		f.only(unix.SYS_BPF, rootPrograms, unix.EPERM)
	}
	for _, d := range table {
		f.when(unix.BPF_JEQ, d.nr, refuse(d.errno))
	}
	f.ret(unix.SECCOMP_RET_ALLOW)
	return f
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
