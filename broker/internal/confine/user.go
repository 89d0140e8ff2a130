package confine

import (
	"bufio"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Users that are nobody's: systemd, which gives out more ranges than anybody, leaves the first free, and gives the
// second to services that come and go. Containers often have only the ids below 65,536.
var freeUsers = []uint32{1_900_000_000, 62_500}

// maxUsers is how many programs there are at most.
const maxUsers = 1024

// ownUser returns user number n of those that are nobody's.
func ownUser(n int) (User, error) {
	if n < 0 || n >= maxUsers {
		return User{}, fmt.Errorf("plugin number %d, at most %d have users of their own", n, maxUsers)
	}
	for _, base := range freeUsers {
		id := base + uint32(n)
		if mapped("/proc/self/uid_map", id) && mapped("/proc/self/gid_map", id) {
			return User{id, id}, nil
		}
	}
	return User{}, &Error{fmt.Errorf("no user that is nobody's exists in the broker's user namespace"), "name one with user = … (docs/plugins.md)"}
}

// mapped reports whether an id exists in our user namespace (user_namespaces(7)).
func mapped(file string, id uint32) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(lines.Text(), &inside, &outside, &n); err == nil && inside <= uint64(id) && uint64(id) < inside+n {
			return true
		}
	}
	return false
}

// Reaches reports whether programs will reach a directory that only the broker's user can: as that user, or because it is
// bound for them. Root that may not mount has no other way than to put theirs elsewhere.
func Reaches() bool {
	if os.Geteuid() != 0 {
		return true
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[0].Effective&(1<<unix.CAP_SYS_ADMIN) != 0
}
