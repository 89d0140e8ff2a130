package confine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// limit bounds what the program may use.
func (p *plan) limit() error {
	limits := []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_NOFILE, maxFiles},
		{unix.RLIMIT_FSIZE, maxFileSize},
		{unix.RLIMIT_MSGQUEUE, 0},
	}
	if p.OwnUser { // else the user's other processes count
		limits = append(limits, struct {
			resource int
			max      uint64
		}{unix.RLIMIT_NPROC, maxProcesses})
	}
	if p.Memory > 0 {
		limits = append(limits, struct {
			resource int
			max      uint64
		}{unix.RLIMIT_DATA, uint64(p.Memory)})
	}
	for _, l := range limits {
		r := unix.Rlimit{Cur: l.max, Max: l.max}
		if err := unix.Prlimit(0, l.resource, &r, nil); err != nil {
			return fmt.Errorf("limit %d: %w", l.resource, err)
		}
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, niceness) // a courtesy, which systemd may forbid
	return nil
}

// drop becomes who the program runs as, and gives up every privilege.
func (p *plan) drop() error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.EPERM) {
			return fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	if p.Become != nil {
		if err := p.Become.become(); err != nil {
			return err
		}
	}
	_ = unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) // there are none from here on: below
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none, had [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		if cerr := unix.Capget(&header, &had[0]); cerr != nil || had != none { // else systemd forbids the call, and there are none
			return fmt.Errorf("dropping capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	// Becoming somebody else has cleared it.
	return unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0)
}

// become makes the calling thread, which is left when it executes, another user's.
func (u User) become() error {
	for _, call := range []struct {
		what   string
		number uintptr
		args   [3]uintptr
	}{
		{"groups", unix.SYS_SETGROUPS, [3]uintptr{}},
		{"group", unix.SYS_SETRESGID, [3]uintptr{uintptr(u.GID), uintptr(u.GID), uintptr(u.GID)}},
		{"user", unix.SYS_SETRESUID, [3]uintptr{uintptr(u.UID), uintptr(u.UID), uintptr(u.UID)}},
	} {
		if _, _, errno := unix.RawSyscall(call.number, call.args[0], call.args[1], call.args[2]); errno != 0 {
			return fmt.Errorf("becoming %s %d: %w", call.what, u.UID, errno)
		}
	}
	return nil
}
