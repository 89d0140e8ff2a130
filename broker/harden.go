package broker

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Harden makes the calling process one that other processes of its user can't look into: not dumpable,
// so that ptrace and /proc/PID/mem need privilege, and without core files. It is for the process that
// opens a broker, before it does.
func Harden() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("making the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("forbidding core files: %w", err)
	}
	return nil
}
