package vmm

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A ruleset is what landlock(7) will still allow of the file system to the calling thread, and to what it
// executes. The usual library restricts all threads of a process at once, which takes signals that do not
// reach them all this early; here one thread is left when it counts.
type ruleset struct {
	fd      int
	handled uint64 // accesses that are denied unless allowed
	err     error  // the first of allow
}

const readAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR

// fileAccess are the accesses that make sense for what is no directory.
const fileAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV

// newRuleset returns a ruleset that denies all that this kernel can deny, or nil if it can deny nothing.
func newRuleset() (*ruleset, error) {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("landlock: %w", errno)
	}
	bits := map[uintptr]int{1: 13, 2: 14, 3: 15, 4: 15}[abi] // of accesses, by version
	if bits == 0 {
		bits = 16
	}
	r := &ruleset{handled: 1<<bits - 1}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: r.handled}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), 8, 0)
	if errno != 0 {
		return nil, fmt.Errorf("landlock: %w", errno)
	}
	r.fd = int(fd)
	return r, nil
}

// allow allows access to path and what is below it. What is not there needs no rule.
func (r *ruleset) allow(path string, access uint64) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) {
		return
	}
	if err != nil {
		r.err = errors.Join(r.err, fmt.Errorf("landlock: %q: %w", path, err))
		return
	}
	defer unix.Close(fd)
	var stat unix.Stat_t
	if err := unix.Fstat(fd, &stat); err == nil && stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= fileAccess
	}
	attr := unix.LandlockPathBeneathAttr{Allowed_access: access & r.handled, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(r.fd), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&attr)), 0, 0, 0)
	if errno != 0 {
		r.err = errors.Join(r.err, fmt.Errorf("landlock: %q: %w", path, errno))
	}
}

// enforce enforces the ruleset on the calling thread. It needs no_new_privs.
func (r *ruleset) enforce() error {
	defer unix.Close(r.fd)
	if r.err != nil {
		return r.err
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(r.fd), 0, 0); errno != 0 {
		return fmt.Errorf("landlock: %w", errno)
	}
	return nil
}
