package confine

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A CGroup is a control group (cgroups(7), version 2) for one program. Nil is none.
type CGroup struct {
	path string
	dir  *os.File
}

// NewCGroup makes a control group whose name begins with name below one that has been given to us, with as many of the limits as are
// in our hands. It returns nil where no group has.
func NewCGroup(name string, memory int64) (*CGroup, error) {
	parent := delegated()
	if parent == "" {
		return nil, nil
	}
	// Fails where the parent has processes itself, or is not to have these controllers: then there is no limit.
	_ = os.WriteFile(filepath.Join(parent, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0)
	path, err := os.MkdirTemp(parent, name+"-")
	if err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	c := &CGroup{path: path}
	limits := map[string]string{"pids.max": strconv.Itoa(maxProcesses), "cpu.weight": "50", "memory.swap.max": "0"}
	if memory > 0 {
		limits["memory.max"] = strconv.FormatInt(memory, 10)
	}
	for file, value := range limits {
		path := filepath.Join(c.path, file)
		if _, err := os.Stat(path); err != nil {
			continue // the controller is not ours
		}
		if err := os.WriteFile(path, []byte(value), 0); err != nil {
			c.End()
			return nil, fmt.Errorf("control group: %w", err)
		}
	}
	if c.dir, err = os.Open(c.path); err != nil {
		c.End()
		return nil, fmt.Errorf("control group: %w", err)
	}
	return c, nil
}

// use has the process start in the group.
func (c *CGroup) use(attr *syscall.SysProcAttr) {
	if c != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(c.dir.Fd())
	}
}

// End kills what is left in the group, and removes it. Once more, it does nothing.
func (c *CGroup) End() {
	if c == nil {
		return
	}
	if c.dir != nil {
		c.dir.Close()
	}
	_ = os.WriteFile(filepath.Join(c.path, "cgroup.kill"), []byte("1"), 0)
	for range 100 { // until the last of them has ended
		if err := os.Remove(c.path); !errors.Is(err, unix.EBUSY) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// delegated returns the control group below which we may make others: our own, or the one around it where systemd has
// put us into a subgroup for that. Empty: none.
func delegated() string {
	mount, own := ownGroup()
	if mount == "" {
		return ""
	}
	for _, path := range []string{filepath.Dir(own), own} {
		full := filepath.Join(mount, path)
		if isDelegated(full) && unix.Access(full, unix.W_OK) == nil {
			return full
		}
	}
	if own == "/" && unix.Access(mount, unix.W_OK) == nil { // a container's own
		return mount
	}
	return ""
}

// isDelegated reports whether systemd has marked a group as somebody else's to divide.
func isDelegated(path string) bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [1]byte
		if n, err := unix.Getxattr(path, name, value[:]); err == nil && n == 1 && value[0] == '1' {
			return true
		}
	}
	return false
}

// ownGroup returns where cgroups are mounted, and which of them is ours.
func ownGroup() (mount, own string) {
	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return "", ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if path, ok := strings.CutPrefix(lines.Text(), "0::"); ok {
			own = path
		}
	}
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		var fs unix.Statfs_t
		if unix.Statfs(dir, &fs) == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC && own != "" {
			return dir, own
		}
	}
	return "", ""
}
