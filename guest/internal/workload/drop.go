package workload

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// AgentID is the user and group id of the user agent.
const AgentID = 1000

// maxFiles is how many descriptors a workload may open, where the hard limit allows.
const maxFiles = 1 << 16

// rootKeepsNot are the capabilities that even a workload that is root in its namespace does without:
// what loads code into the kernel, reads the guest's memory or stops the machine.
var rootKeepsNot = []int{
	unix.CAP_SYS_MODULE, unix.CAP_SYS_BOOT, unix.CAP_SYS_RAWIO, unix.CAP_SYS_PTRACE,
	unix.CAP_SYSLOG, unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_CHECKPOINT_RESTORE, unix.CAP_SYS_TIME,
	unix.CAP_MAC_ADMIN, unix.CAP_MAC_OVERRIDE, unix.CAP_AUDIT_CONTROL, unix.CAP_AUDIT_READ, unix.CAP_WAKE_ALARM,
}

// drop gives up, on the calling thread, what the user does not have. Each step must succeed.
func drop(p power) error {
	if err := limit(); err != nil {
		return err
	}
	if p == agentPower {
		return dropToAgent()
	}
	return dropToRoot(p)
}

func limit() error {
	if err := syscall.Setrlimit(unix.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
		return fmt.Errorf("core limit: %w", err)
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("descriptor limit: %w", err)
	}
	files.Cur = min(files.Max, maxFiles)
	if err := syscall.Setrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fmt.Errorf("descriptor limit: %w", err)
	}
	return nil
}

func dropToAgent() error {
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if err := dropBounding(c); err != nil {
			return err
		}
	}
	// Raw calls on purpose: package syscall's would change every thread, and this one alone execs.
	groups := [1]uint32{AgentID}
	if err := raw("setgroups", unix.SYS_SETGROUPS, 1, uintptr(unsafe.Pointer(&groups))); err != nil {
		return err
	}
	if err := raw("setresgid", unix.SYS_SETRESGID, AgentID, AgentID, AgentID); err != nil {
		return err
	}
	if err := raw("setresuid", unix.SYS_SETRESUID, AgentID, AgentID, AgentID); err != nil {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	return compile(agentPower).install()
}

// dropToRoot leaves root in its namespace, without no_new_privs: package managers and su work.
func dropToRoot(p power) error {
	for _, c := range rootKeepsNot {
		if err := dropBounding(c); err != nil {
			return err
		}
	}
	// The filter needs CAP_SYS_ADMIN in the namespace, which root has there.
	return compile(p).install()
}

// dropBounding takes one capability out of the bounding set; execve then takes it out of the others.
// The kernel may know fewer capabilities than we do.
func dropBounding(capability int) error {
	err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("dropping capability %d: %w", capability, err)
	}
	return nil
}

func raw(name string, nr uintptr, args ...uintptr) error {
	var a [3]uintptr
	copy(a[:], args)
	if _, _, errno := unix.RawSyscall(nr, a[0], a[1], a[2]); errno != 0 {
		return fmt.Errorf("%s: %w", name, errno)
	}
	return nil
}
