package confine

import (
	"errors"
	"fmt"
	"io/fs"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Accesses that a path is given for (landlock(7)).
const (
	readAccess  = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	writeAccess = readAccess | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_REFER |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_SYM | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE

	// fileAccess are those that make sense for what is no directory.
	fileAccess = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// fileBits are how many accesses to files each version of landlock knows; later ones know no fewer than the last.
var fileBits = []uint{1: 13, 2: 14, 3: 15, 4: 15, 5: 16}

// A ruleset is what landlock will still allow to the calling thread, and to what it executes.
type ruleset struct {
	fd      int
	handled uint64 // accesses to files that are denied unless allowed
	err     error  // the first of allow
}

// landlock lets the program reach what it was promised, and its directory. Without a root directory of its own there
// must be one of these kernels that know it.
func (p *plan) landlock(dir string) error {
	r, err := newRuleset(p.Network)
	if err != nil {
		return err
	}
	if r == nil {
		if p.Namespaces {
			return nil
		}
		return &Error{errors.New("this kernel has neither namespaces for the broker's user nor landlock"), "a plugin would see every file of that user: enable one of the two"}
	}
	r.allow(dir, writeAccess)
	if p.Namespaces {
		r.allow("/tmp", writeAccess)
	}
	for _, path := range devices {
		r.allow(path, unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_WRITE_FILE)
	}
	if p.Network {
		for _, path := range networkFiles {
			r.allow(path, unix.LANDLOCK_ACCESS_FS_READ_FILE|unix.LANDLOCK_ACCESS_FS_READ_DIR)
		}
	}
	for _, path := range p.Read {
		r.allow(path, readAccess)
	}
	for _, path := range p.Write {
		r.allow(path, writeAccess)
	}
	return r.enforce()
}

// newRuleset returns a ruleset that denies all that this kernel can deny, or nil if it can deny nothing.
func newRuleset(network bool) (*ruleset, error) {
	version, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno == unix.ENOSYS || errno == unix.EOPNOTSUPP {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("landlock: %w", errno)
	}
	attr := unix.LandlockRulesetAttr{Handled_access_fs: 1<<fileBits[min(int(version), len(fileBits)-1)] - 1}
	size := uintptr(8)
	if version >= 4 {
		if size = 16; !network {
			attr.Handled_access_net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		}
	}
	if version >= 6 {
		size = 24
		attr.Scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
	}
	fd, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if errno != 0 {
		return nil, fmt.Errorf("landlock: %w", errno)
	}
	return &ruleset{fd: int(fd), handled: attr.Handled_access_fs}, nil
}

// allow allows access to path and what is below it. What is not there needs no rule.
func (r *ruleset) allow(path string, access uint64) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		r.fail(path, err)
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
		r.fail(path, errno)
	}
}

func (r *ruleset) fail(path string, err error) {
	r.err = errors.Join(r.err, fmt.Errorf("landlock: %q: %w", path, err))
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
