package workload

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs the filter over one system call in an interpreter, so that calls that no test may make can
// be judged too.
func judge(t *testing.T, f filter, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	raw := make([]bpf.RawInstruction, len(f))
	for i, ins := range f {
		raw[i] = bpf.RawInstruction{Op: ins.Code, Jt: ins.Jt, Jf: ins.Jf, K: ins.K}
	}
	program, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter has unknown instructions")
	}
	vm, err := bpf.NewVM(program)
	if err != nil {
		t.Fatal(err)
	}
	// struct seccomp_data, its words in the order that the interpreter reads: network order.
	data := binary.BigEndian.AppendUint32(nil, nr)
	data = binary.BigEndian.AppendUint32(data, arch)
	data = append(data, make([]byte, 8)...) // instruction pointer
	for i := range 6 {
		var arg uint64
		if i < len(args) {
			arg = args[i]
		}
		data = binary.BigEndian.AppendUint32(data, uint32(arg))
		data = binary.BigEndian.AppendUint32(data, uint32(arg>>32))
	}
	verdict, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(verdict)
}

func TestFilter(t *testing.T) {
	const allow, kill = unix.SECCOMP_RET_ALLOW, uint32(unix.SECCOMP_RET_KILL_PROCESS)
	noFamily, eperm, enosys := refuse(unix.EAFNOSUPPORT), refuse(unix.EPERM), refuse(unix.ENOSYS)
	for _, test := range []struct {
		name        string
		arch, nr    uint32
		args        []uint64
		agent, root uint32
	}{
		{"AF_VSOCK", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK, 1}, noFamily, noFamily},
		{"AF_VSOCK with high bits", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_VSOCK | 1<<40, 1}, noFamily, noFamily},
		{"AF_INET with high bits", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_INET | 1<<40, 1}, allow, allow},
		{"AF_VSOCK pair", nativeArch, unix.SYS_SOCKETPAIR, []uint64{unix.AF_VSOCK, 1}, noFamily, noFamily},
		{"AF_PACKET", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_PACKET, 3}, noFamily, noFamily},
		{"AF_ALG", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_ALG, 5}, noFamily, noFamily},
		{"AF_UNIX", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_UNIX, 1}, allow, allow},
		{"AF_INET6", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_INET6, 1}, allow, allow},
		{"AF_NETLINK", nativeArch, unix.SYS_SOCKET, []uint64{unix.AF_NETLINK, 3}, allow, allow},
		{"negative family", nativeArch, unix.SYS_SOCKET, []uint64{1<<64 - 1, 1}, noFamily, noFamily},
		{"i386 socketcall", unix.AUDIT_ARCH_I386, 102, nil, kill, kill},
		{"i386 exit", unix.AUDIT_ARCH_I386, 1, nil, kill, kill},
		{"arm", unix.AUDIT_ARCH_ARM, 281, nil, kill, kill},
		{"io_uring", nativeArch, unix.SYS_IO_URING_SETUP, nil, enosys, enosys},
		{"keyctl", nativeArch, unix.SYS_KEYCTL, nil, enosys, enosys},
		{"ptrace", nativeArch, unix.SYS_PTRACE, nil, eperm, eperm},
		{"read", nativeArch, unix.SYS_READ, nil, allow, allow},
		{"execve", nativeArch, unix.SYS_EXECVE, nil, allow, allow},
		{"connect", nativeArch, unix.SYS_CONNECT, nil, allow, allow},
		{"fork", nativeArch, unix.SYS_CLONE, []uint64{uint64(unix.SIGCHLD)}, allow, allow},
		{"new user namespace", nativeArch, unix.SYS_CLONE, []uint64{unix.CLONE_NEWUSER | uint64(unix.SIGCHLD)}, eperm, allow},
		{"unshare files", nativeArch, unix.SYS_UNSHARE, []uint64{unix.CLONE_FILES}, allow, allow},
		{"unshare net", nativeArch, unix.SYS_UNSHARE, []uint64{unix.CLONE_NEWNET}, eperm, allow},
		{"clone3", nativeArch, unix.SYS_CLONE3, nil, enosys, allow},
		{"mount", nativeArch, unix.SYS_MOUNT, nil, eperm, allow},
		{"TIOCSTI", nativeArch, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI}, eperm, eperm},
		{"TIOCSTI with high bits", nativeArch, unix.SYS_IOCTL, []uint64{0, unix.TIOCSTI | 1<<32}, eperm, eperm},
		{"TCGETS", nativeArch, unix.SYS_IOCTL, []uint64{0, unix.TCGETS}, allow, allow},
	} {
		for user, want := range map[power]uint32{agentPower: test.agent, rootPower: test.root, machinePower: test.root} {
			if got := judge(t, compile(user), test.arch, test.nr, test.args...); got != want {
				t.Errorf("%s, user %d: %#x, want %#x", test.name, user, got, want)
			}
		}
	}
	if x32Bit != 0 {
		for nr := range uint32(512) {
			if got := judge(t, compile(agentPower), nativeArch, x32Bit|nr); got != enosys {
				t.Fatalf("x32 call %d: %#x, want ENOSYS", nr, got)
			}
		}
	}
	for command := range uint64(64) { // bpf(2)
		want := eperm
		if slices.Contains(rootPrograms, uint32(command)) {
			want = allow
		}
		for user, want := range map[power]uint32{agentPower: eperm, rootPower: eperm, machinePower: want} {
			if got := judge(t, compile(user), nativeArch, unix.SYS_BPF, command); got != want {
				t.Errorf("bpf command %d, user %d: %#x, want %#x", command, user, got, want)
			}
		}
	}
	if n := len(compile(agentPower)); n > 250 {
		t.Errorf("the filter has %d instructions: jumps reach 255", n)
	}
}
