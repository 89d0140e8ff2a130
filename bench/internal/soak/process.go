package soak

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat, USER_HZ.
const tick = 10 * time.Millisecond

// A usage is what a process holds at one moment, as the kernel says.
type usage struct {
	anonymous int64 // bytes of memory of its own: neither files nor shared
	resident  int64 // bytes of all its memory
	open      int   // descriptors
	threads   int
	cpu       time.Duration
}

// usageOf reads what a process holds. It needs the right to look into it (ptrace(2)), which for the broker is root's.
func usageOf(pid int) (usage, error) {
	var u usage
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return u, err
	}
	if err := u.parseStatus(string(status)); err != nil {
		return u, err
	}
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return u, err
	}
	u.open = len(entries)
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return u, err
	}
	u.cpu, err = parseCPU(stat)
	return u, err
}

// parseStatus reads the text of /proc/PID/status.
func (u *usage) parseStatus(text string) error {
	found := 0
	for line := range strings.Lines(text) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		if err != nil {
			continue // no line of ours
		}
		switch name {
		case "RssAnon":
			u.anonymous = n << 10
		case "VmRSS":
			u.resident = n << 10
		case "Threads":
			u.threads = int(n)
		default:
			continue
		}
		found++
	}
	if found != 3 {
		return fmt.Errorf("status of a process: %.80q", text)
	}
	return nil
}

// parseCPU reads user and system time of a line of /proc/PID/stat. The second field is the name in parentheses, which
// may hold anything.
func parseCPU(line []byte) (time.Duration, error) {
	const user, system = 11, 12 // counted from the state
	fields := strings.Fields(string(line[bytes.LastIndexByte(line, ')')+1:]))
	if len(fields) <= system {
		return 0, fmt.Errorf("stat line %q", line)
	}
	var ticks int64
	for _, f := range []string{fields[user], fields[system]} {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat line %q: %w", line, err)
		}
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}
