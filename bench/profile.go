package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Signals that binaries built with the tag profile begin and end a CPU profile at.
const (
	profileStart = syscall.Signal(40)
	profileStop  = syscall.Signal(41)
)

// profiled are the loads that profiles are taken of; the first one alone, unless profiles are kept.
var profiled = []struct {
	name string
	load command
}{
	{"busy", command{Op: opSmall, Conns: parallel, Millis: 5000}},
	{"single", command{Op: opSmall, Conns: 1, Millis: 5000}},
	{"connect", command{Op: opConnect, Conns: dialling, Count: 3000}},
	{"down", command{Op: opDown, Bytes: 8 * bulkSize}},
	{"up", command{Op: opUp, Bytes: 8 * bulkSize}},
	{"signed", command{Op: opSigned, Count: 4, Bytes: bulkSize}},
}

// A profiler is a build of torno that gives profiles, and where they go.
type profiler struct {
	dir   string
	only  string // name of the one profile that is wanted besides the first
	keep  bool
	quick bool
	err   error // why there is none
}

// newProfiler builds torno with the tag profile, before anything is measured.
func (h *house) newProfiler(ctx context.Context, o options) profiler {
	fmt.Fprintln(os.Stderr, "building to profile")
	p := profiler{only: o.only, keep: o.profile != "", quick: o.quick}
	if p.dir, p.err = h.profileDir(o.profile); p.err != nil {
		return p
	}
	for name, pkg := range map[string]string{"torno": "./host", "torno-guest": "./guest"} {
		build := exec.CommandContext(ctx, "go", "build", "-tags", "profile", "-o", filepath.Join(p.dir, name), pkg)
		if out, err := build.CombinedOutput(); err != nil {
			p.err = fmt.Errorf("building %s to profile: %w: %s", name, err, bytes.TrimSpace(out))
		}
	}
	return p
}

// profiles takes CPU profiles of broker and guest and returns the audit's share of both processes' CPU
// time, in per cent.
func (h *house) profiles(ctx context.Context, p profiler) (share float64, err error) {
	if p.err != nil {
		return 0, p.err
	}
	fmt.Fprintln(os.Stderr, "profiles")
	s, err := h.startTorno(ctx, p.dir)
	if err != nil {
		return 0, err
	}
	defer s.stop()
	pids, err := s.both()
	if err != nil {
		return 0, err
	}
	for i, one := range profiled {
		if i > 0 && (!p.keep || p.only != "" && p.only != one.name) {
			continue
		}
		load := one.load
		if p.quick {
			load.Millis /= 2
		}
		paths := []string{filepath.Join(p.dir, one.name+"-broker.pprof"), filepath.Join(p.dir, one.name+"-guest.pprof")}
		if err := s.profile(ctx, load, pids, paths); err != nil {
			return 0, fmt.Errorf("profile of %s: %w", one.name, err)
		}
	}
	return auditShare(ctx, p.dir)
}

// profileDir makes the directory for profiles, temporary for an empty path.
func (h *house) profileDir(dir string) (string, error) {
	if dir == "" {
		return os.MkdirTemp(h.dir, "profile")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	return dir, os.MkdirAll(dir, 0o755)
}

// profile takes profiles of pids during load and writes them to paths.
func (s *subject) profile(ctx context.Context, load command, pids []int, paths []string) error {
	warm := load
	warm.Millis, warm.Count, warm.Bytes = min(load.Millis, 500), min(load.Count, 50), min(load.Bytes, bulkSize)
	if _, err := s.call(ctx, warm); err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, profileStart); err != nil {
			return err
		}
	}
	split := make([]time.Duration, len(pids))
	for i, pid := range pids {
		before, err := cpuOf([]int{pid})
		if err != nil {
			return err
		}
		split[i] = -before
	}
	r, err := s.call(ctx, load)
	if err != nil {
		return err
	}
	for i, pid := range pids {
		after, err := cpuOf([]int{pid})
		if err != nil {
			return err
		}
		split[i] += after
		fmt.Fprintf(os.Stderr, "\t%s: %.1f µs of CPU time for each of %d\n", filepath.Base(paths[i]), perUnit(split[i], float64(r.Count)), r.Count)
	}
	for i, pid := range pids {
		if err := syscall.Kill(pid, profileStop); err != nil {
			return err
		}
		if err := fetchProfile(ctx, pid, paths[i]); err != nil {
			return err
		}
	}
	return nil
}

// profileFile is the name of the memory file that a profile is written to.
const profileFile = "torno-profile"

// fetchProfile waits until the profile of pid is complete and copies it.
func fetchProfile(ctx context.Context, pid int, path string) error {
	fds := fmt.Sprintf("/proc/%d/fd", pid)
	for last := int64(-1); ; {
		entries, err := os.ReadDir(fds)
		if err != nil {
			return err
		}
		for _, e := range entries {
			fd := filepath.Join(fds, e.Name())
			if to, err := os.Readlink(fd); err != nil || !strings.HasPrefix(to, "/memfd:"+profileFile) {
				continue
			}
			info, err := os.Stat(fd)
			if err != nil {
				return err
			}
			if size := info.Size(); size > 0 && size == last {
				b, err := os.ReadFile(fd)
				if err != nil {
					return err
				}
				return os.WriteFile(path, b, 0o644)
			}
			last = info.Size()
		}
		if err := pause(ctx, 300*time.Millisecond); err != nil {
			return err
		}
	}
}

// auditShare is the audit's part of the samples of both processes, in per cent.
func auditShare(ctx context.Context, dir string) (float64, error) {
	audit, broker, err := samples(ctx, filepath.Join(dir, "busy-broker.pprof"), `broker/internal/audit\.`)
	if err != nil {
		return 0, err
	}
	_, guest, err := samples(ctx, filepath.Join(dir, "busy-guest.pprof"), "")
	if err != nil {
		return 0, err
	}
	return 100 * audit.Seconds() / (broker + guest).Seconds(), nil
}

// samples asks go tool pprof for the time in stacks that focus matches, and in all.
func samples(ctx context.Context, path, focus string) (focused, all time.Duration, err error) {
	args := []string{"tool", "pprof", "-top", "-nodecount=1000000", "-nodefraction=0", "-edgefraction=0", "-unit=ms"}
	if focus != "" {
		args = append(args, "-focus="+focus)
	}
	out, err := exec.CommandContext(ctx, "go", append(args, path)...).CombinedOutput()
	if err != nil {
		return 0, 0, fmt.Errorf("go tool pprof: %w: %s", err, out)
	}
	return parseSamples(string(out))
}

var nodesLine = regexp.MustCompile(`Showing nodes accounting for (\d+(?:\.\d+)?)(?:ms)?, .* of (\d+(?:\.\d+)?)ms total`)

// parseSamples reads the summary above pprof's table.
func parseSamples(out string) (focused, all time.Duration, err error) {
	m := nodesLine.FindStringSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("go tool pprof says %.300q", out)
	}
	var ms [2]float64
	for i := range ms {
		if ms[i], err = strconv.ParseFloat(m[i+1], 64); err != nil {
			return 0, 0, err
		}
	}
	return time.Duration(ms[0] * 1e6), time.Duration(ms[1] * 1e6), nil
}
