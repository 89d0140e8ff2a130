package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU time in /proc/PID/stat, USER_HZ.
const tick = 10 * time.Millisecond

// A stat is what is used of /proc/PID/stat (proc(5)).
type stat struct {
	parent int
	cpu    time.Duration // user and system
}

// parseStat reads a line of /proc/PID/stat. The second field is the name in parentheses, which may hold
// anything.
func parseStat(line []byte) (stat, error) {
	end := bytes.LastIndexByte(line, ')')
	fields := strings.Fields(string(line[end+1:]))
	const parent, user, system = 1, 11, 12 // counted from the state
	if end < 0 || len(fields) <= system {
		return stat{}, fmt.Errorf("stat line %q", line)
	}
	var s stat
	var ticks int64
	for _, i := range []int{user, system} {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("stat line %q: %w", line, err)
		}
		ticks += n
	}
	s.cpu = time.Duration(ticks) * tick
	var err error
	if s.parent, err = strconv.Atoi(fields[parent]); err != nil {
		return stat{}, fmt.Errorf("stat line %q: %w", line, err)
	}
	return s, nil
}

// parsePSS returns the proportional set size in KiB from the text of /proc/PID/smaps_rollup.
func parsePSS(text string) (int64, error) {
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "Pss:")
		if !ok {
			continue
		}
		n, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB")
		if !ok {
			return 0, fmt.Errorf("size %q", line)
		}
		return strconv.ParseInt(strings.TrimSpace(n), 10, 64)
	}
	return 0, fmt.Errorf("no Pss in %.80q", text)
}

// processes reads every process there is.
func processes() (map[int]stat, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]stat{}
	for _, path := range paths {
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil {
			continue
		}
		line, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended meanwhile
		}
		if all[pid], err = parseStat(line); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// below returns roots and all their descendants, without those of the processes in without and theirs.
func below(all map[int]stat, roots, without []int) []int {
	children := map[int][]int{}
	for pid, s := range all {
		children[s.parent] = append(children[s.parent], pid)
	}
	left := map[int]bool{}
	for _, pid := range without {
		left[pid] = true
	}
	var pids []int
	for queue := roots; len(queue) > 0; queue = queue[1:] {
		pid := queue[0]
		if _, there := all[pid]; !there || left[pid] {
			continue
		}
		left[pid] = true // once is enough
		pids = append(pids, pid)
		queue = append(queue, children[pid]...)
	}
	return pids
}

// cpuOf returns the CPU time that pids have used.
func cpuOf(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		s, err := parseStat(line)
		if err != nil {
			return 0, err
		}
		sum += s.cpu
	}
	return sum, nil
}

// memoryOf returns the PSS of pids in KiB. It needs the right to look into them (ptrace(2)), which for
// torno is root's.
func memoryOf(pids []int) (int64, error) {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return 0, err
		}
		n, err := parsePSS(string(text))
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// surroundings says what machine this is and how busy it has been: ratios depend on both, if less than
// times do. On some processors a system call costs twice what it does on others.
func surroundings() (machine, load string, err error) {
	average, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "", "", err
	}
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "", "", err
	}
	return fmt.Sprintf("%d × %s", runtime.NumCPU(), modelName(string(info))), strings.Join(strings.Fields(string(average))[:3], " "), nil
}

// modelName finds the processor's name in the text of /proc/cpuinfo.
func modelName(info string) string {
	for line := range strings.Lines(info) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}
