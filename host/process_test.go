package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The process that owns a guest never opens the store: nothing of torno run, or of what it starts, holds
// a file of the state directory, while a run is under way.
func TestRunOpensNoState(t *testing.T) {
	for isolation, processes := range map[string]int{
		"microvm":   2, // torno run, QEMU
		"namespace": 4, // torno run, two stages of which one is the guest, the workload
	} {
		t.Run(isolation, func(t *testing.T) { testOpensNoState(t, isolation, processes) })
	}
}

func testOpensNoState(t *testing.T, isolation string, processes int) {
	h := newAgentHouse(t)
	cmd := h.command("run", "--agent", "my-agent", "--isolation", isolation, "--trust-config", "--", "/bin/sh", "-c", "echo up; sleep 60")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(h.dir, "state")
	if n := openBelow(t, h.serve.Process.Pid, state); n == 0 {
		t.Error("the broker has nothing open there either: this test sees nothing")
	}
	tree := descendants(t, cmd.Process.Pid)
	if len(tree) < processes {
		t.Errorf("only %d processes: %v", len(tree), tree)
	}
	for _, pid := range tree {
		if n := openBelow(t, pid, state); n > 0 {
			t.Errorf("process %d has %d files of %s open", pid, n, state)
		}
	}
	// And when torno run is killed, nothing of it stays.
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		left := 0
		for _, pid := range tree {
			if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil && !strings.Contains(string(stat), ") Z ") {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d processes outlive torno run", left)
		}
	}
}

// openBelow counts the descriptors of a process that lead below dir, or are mapped from there.
func openBelow(t *testing.T, pid int, dir string) int {
	t.Helper()
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil && strings.HasPrefix(to, dir+"/") {
			n++
		}
	}
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		t.Fatal(err)
	}
	return n + strings.Count(string(maps), " "+dir+"/")
}

// descendants returns pid and all processes below it.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	children := map[int][]int{}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		var id, parent int
		var state string
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err != nil {
			continue
		}
		_, rest, _ := strings.Cut(string(stat), ") ")
		if _, err := fmt.Sscan(e.Name(), &id); err != nil {
			continue
		}
		if _, err := fmt.Sscan(rest, &state, &parent); err == nil {
			children[parent] = append(children[parent], id)
		}
	}
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		all = append(all, children[all[i]]...)
	}
	return all
}
