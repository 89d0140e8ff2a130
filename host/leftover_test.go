package main_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A leftover is a process of a program of ours that a test left behind.
type leftover struct {
	pid  int
	text string // its arguments, and where it works
}

// leftovers returns what is left of the programs in bin once everything that ends by itself has had time to. Whatever outlives
// its parent is a child of ours.
func leftovers(wait time.Duration) []leftover {
	for deadline := time.Now().Add(wait); ; time.Sleep(50 * time.Millisecond) {
		all := atWork(os.Getpid())
		if len(all) == 0 || time.Now().After(deadline) {
			return all
		}
	}
}

// atWork returns the processes below root that run a program in bin.
func atWork(root int) (all []leftover) {
	parents := map[int]int{}
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		pid, _ := strconv.Atoi(filepath.Base(dir))
		stat, err := os.ReadFile(dir + "/stat")
		if err != nil {
			continue
		}
		var state string
		var parent int
		_, _ = fmt.Sscan(string(stat[bytes.LastIndexByte(stat, ')')+1:]), &state, &parent)
		if state != "Z" {
			parents[pid] = parent
		}
	}
	for pid := range parents {
		args, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !under(parents, pid, root) || !ours(pid, args) {
			continue
		}
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		text := strings.ReplaceAll(string(bytes.Trim(args, "\x00")), "\x00", " ")
		for v := range strings.SplitSeq(string(environ), "\x00") {
			if strings.HasPrefix(v, "TORNO_STATE=") || strings.HasPrefix(v, "XDG_RUNTIME_DIR=") {
				text += " " + v
			}
		}
		all = append(all, leftover{pid, text})
	}
	slices.SortFunc(all, func(a, b leftover) int { return a.pid - b.pid })
	return all
}

// ours reports whether a process runs a program in bin.
func ours(pid int, args []byte) bool {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return strings.HasPrefix(exe, bin+"/") || bytes.HasPrefix(args, []byte(bin+"/"))
}

// under reports whether pid is below root.
func under(parents map[int]int, pid, root int) bool {
	for range 100 {
		parent, ok := parents[pid]
		if !ok {
			return false
		}
		if parent == root {
			return true
		}
		pid = parent
	}
	return false
}

// endLeftovers ends what tests left behind and reports whether there was anything.
func endLeftovers() bool {
	all := leftovers(30 * time.Second)
	for _, l := range all {
		fmt.Fprintf(os.Stderr, "left behind by a test: %d %s\n", l.pid, l.text)
		_ = syscall.Kill(l.pid, syscall.SIGKILL)
	}
	return len(all) > 0
}

// A broker that nobody ends is found.
func TestLeftovers(t *testing.T) {
	h := newHouse(t, "")
	found := slices.ContainsFunc(atWork(os.Getpid()), func(l leftover) bool {
		return l.pid == h.serve.Process.Pid && strings.Contains(l.text, "serve") && strings.Contains(l.text, h.dir)
	})
	if !found {
		t.Errorf("the broker is not among %v", atWork(os.Getpid()))
	}
}
