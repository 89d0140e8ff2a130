package boot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/guest/internal/rootfs"
	"torno.internal/guest/internal/workload"
	"torno.internal/protocol"
)

// The workload's cgroup. The guest is outside of it, so that a workload that takes all it can get does not
// take the guest down: what went wrong is still told.
const (
	cgroupRoot = "/sys/fs/cgroup"
	cgroupName = "workload"
	perTask    = 256 << 10 // bytes of memory for which there may be one process or thread
	maxTasks   = 16 << 10  // and how many there may be at most
	keptBack   = 64 << 20  // bytes of memory that are not the workload's
)

func (g *guest) makeCgroup(context.Context) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	total := info.Totalram * uint64(info.Unit)
	limit := max(total-min(keptBack, total/4), total/2)
	dir := filepath.Join(cgroupRoot, cgroupName)
	controllers := []string{"memory", "pids"}
	if g.hello.Workload.User == protocol.UserRoot {
		controllers = nil // root gives them to cgroups of its own
	}
	if err := workload.Delegate(cgroupRoot, controllers...); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, value := range map[string]string{"pids.max": strconv.FormatUint(min(total/perTask, maxTasks), 10), "memory.max": strconv.FormatUint(limit, 10)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0); err != nil {
			return err
		}
	}
	var err error
	g.cgroup, err = os.Open(dir)
	return err
}

// explain adds to how the workload ended what its cgroup knows of it.
func (g *guest) explain(exit *protocol.Exit) {
	if g.cgroup == nil || exit.Hint != "" {
		return
	}
	switch dir := fmt.Sprintf("/proc/self/fd/%d", g.cgroup.Fd()); { // root mounts its own view over the path
	case count(dir, "memory.events", "oom_kill") > 0:
		exit.Hint = "the VM ran out of memory and its kernel ended processes; torno run --memory gives it more"
	case count(dir, "pids.events", "max") > 0:
		limit, _ := os.ReadFile(filepath.Join(dir, "pids.max"))
		exit.Hint = fmt.Sprintf("the command had %s processes and threads, and could not start others; torno run --memory allows more", strings.TrimSpace(string(limit)))
	}
}

// count reads a line "name number" of a cgroup's file; 0 if it is not there.
func count(dir, file, name string) int {
	text, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if number, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			n, err := strconv.Atoi(number)
			if err == nil {
				return n
			}
		}
	}
	return 0
}

// writeStatus tells the workload about its session, for what it's worth to it.
func (g *guest) writeStatus(context.Context) error {
	if len(g.hello.Status) == 0 {
		return nil
	}
	dir := filepath.Dir(protocol.StatusFile)
	return errors.Join(os.MkdirAll(dir, 0o755), rootfs.WriteFile(protocol.StatusFile, append(g.hello.Status, '\n')))
}
