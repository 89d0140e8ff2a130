package main

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseStat(t *testing.T) {
	const rest = " S 42 7 7 0 -1 4194560 1 2 3 4 150 25 5 6 20 0 9 0 100 1 1"
	for _, line := range []string{"7 (torno)" + rest, "7 (a b) R 1 (x))" + rest, "7 ()" + rest + "\n"} {
		got, err := parseStat([]byte(line))
		if want := (stat{parent: 42, cpu: 1750 * time.Millisecond}); err != nil || got != want {
			t.Errorf("parseStat(%q) = %+v, %v, want %+v", line, got, err, want)
		}
	}
	for _, line := range []string{"", "7 torno S 42", "7 (torno) S 42 7 7 0 -1 4194560 1 2 3 4 150", "7 (t) S x 7 7 0 -1 4194560 1 2 3 4 150 25", "7 (t) S 1 7 7 0 -1 4194560 1 2 3 4 150 x"} {
		if s, err := parseStat([]byte(line)); err == nil {
			t.Errorf("parseStat(%q) = %+v", line, s)
		}
	}
}

func TestParsePSS(t *testing.T) {
	const text = "5581-7fff ---p 00000000 00:00 0 [rollup]\nRss:                4212 kB\nPss:                1234 kB\nPss_Dirty:           99 kB\n"
	if got, err := parsePSS(text); err != nil || got != 1234 {
		t.Errorf("parsePSS = %d, %v, want 1234", got, err)
	}
	for _, text := range []string{"", "Rss: 1 kB\n", "Pss: 1 MB\n", "Pss: x kB\n"} {
		if got, err := parsePSS(text); err == nil {
			t.Errorf("parsePSS(%q) = %d", text, got)
		}
	}
}

// The workload below a guest does not count as the guest.
func TestBelow(t *testing.T) {
	all := map[int]stat{1: {}, 10: {parent: 1}, 11: {parent: 10}, 12: {parent: 11}, 13: {parent: 12}, 14: {parent: 11}, 20: {parent: 1}, 21: {parent: 20}}
	for _, tt := range []struct {
		roots, without, want []int
	}{
		{[]int{10}, nil, []int{10, 11, 12, 13, 14}},
		{[]int{10}, []int{12}, []int{10, 11, 14}},
		{[]int{10, 11, 20}, []int{12}, []int{10, 11, 14, 20, 21}},
		{[]int{99}, nil, nil},
	} {
		got := below(all, tt.roots, tt.without)
		slices.Sort(got)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("below(%v without %v) (-want +got):\n%s", tt.roots, tt.without, diff)
		}
	}
}

// What the kernel says of this process holds together.
func TestOwnProcess(t *testing.T) {
	before, err := cpuOf([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(200 * time.Millisecond); time.Now().Before(end); {
	}
	after, err := cpuOf([]int{os.Getpid()})
	if err != nil || after-before < 50*time.Millisecond || after-before > 2*time.Second {
		t.Errorf("200 ms of work took %v of CPU time, %v", after-before, err)
	}
	all, err := processes()
	if err != nil || all[os.Getpid()].parent != os.Getppid() {
		t.Errorf("parent %d, want %d, %v", all[os.Getpid()].parent, os.Getppid(), err)
	}
	if kib, err := memoryOf([]int{os.Getpid()}); err != nil || kib < 1<<10 || kib > 1<<20 {
		t.Errorf("%d KiB, %v", kib, err)
	}
}

func TestModelName(t *testing.T) {
	for info, want := range map[string]string{
		"processor\t: 0\nmodel\t\t: 1\nmodel name\t: Some CPU: fast\n": "Some CPU: fast",
		"processor\t: 0\n": "unknown processor",
	} {
		if got := modelName(info); got != want {
			t.Errorf("modelName(%q) = %q, want %q", info, got, want)
		}
	}
}
