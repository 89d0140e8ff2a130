package soak

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// program is the real torno, beside the real guest; both are built once for all tests of this package.
var program string

// TestMain makes the test binary the workload of real sessions too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == WorkloadCommand {
		if err := Workload(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "torno-bin")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	for name, pkg := range map[string]string{"torno": "host", "torno-guest": "guest"} {
		build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, name), "../../../"+pkg)
		build.Env, build.Stderr = append(os.Environ(), "CGO_ENABLED=0"), os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "building", name, err)
			return 1
		}
	}
	program = filepath.Join(dir, "torno")
	return m.Run()
}

// short does a little of one part. slack is what figures of time and memory may have beyond what is promised: the machine
// may be busy, and of little much is noise.
func short(t *testing.T, o Options, slack float64) *Report {
	t.Helper()
	if testing.Short() {
		t.Skip("needs real processes; run without -short")
	}
	o.Torno = program
	r := &Report{}
	if err := Run(t.Context(), &o, r); err != nil {
		t.Fatal(err)
	}
	for i := range r.Rows {
		if m := r.Rows[i].Must; m != nil && *m > 0 {
			widened := *m * slack
			r.Rows[i].Must = &widened
		}
	}
	return r
}

// check wants a miss of exactly the figures that are named.
func (r *Report) check(t *testing.T, missed ...string) {
	t.Helper()
	var table strings.Builder
	r.Write(&table)
	t.Logf("\n%s", &table)
	for i := range r.Rows {
		row := &r.Rows[i]
		if miss := row.Must != nil && !(row.Value <= *row.Must); miss != slices.Contains(missed, row.Name) {
			t.Errorf("%s: %v %s, at most %v: %s", row.Name, row.Value, row.Unit, *row.Must, row.Note)
		}
	}
}

func TestSessions(t *testing.T) {
	short(t, Options{Only: []string{"sessions"}, Sessions: 150, Settle: 2 * time.Second}, 2).check(t)
}

func TestAttack36Kills(t *testing.T) {
	short(t, Options{Only: []string{"kills"}, Kills: 4}, 10).check(t)
}

func TestChurn(t *testing.T) {
	short(t, Options{Only: []string{"churn"}, Churn: 4 * time.Second}, 2).check(t)
}

// Sessions that are never ended are noticed.
func TestChurnLeak(t *testing.T) {
	r := short(t, Options{Only: []string{"churn"}, Churn: 4 * time.Second, Leak: true}, 2)
	r.check(t, "more goroutines", "more descriptors", "more of the heap, by session")
}

// slowFS returns the file system that can be made slow.
func slowFS(t *testing.T) string {
	t.Helper()
	path, err := filepath.Abs("../../../.cache/slowfs/slowfs")
	if err == nil {
		_, err = os.Stat(path)
	}
	switch {
	case err != nil && os.Getenv("CI") != "":
		t.Fatal("slowfs is not built (make client-deps)")
	case err != nil:
		t.Skip("slowfs is not built (try: make client-deps)")
	case os.Geteuid() != 0:
		t.Skip("mounts disks (run as root)")
	}
	return path
}

func TestAttack37Disks(t *testing.T) {
	names := []string{"slow fsync, sync = always", "fsync fails (EIO)", "full (ENOSPC)", "ext4 aborts"}
	short(t, Options{Only: []string{"disks"}, SlowFS: slowFS(t), Faults: names}, 5).check(t)
}

// Exchanges that do not wait for the disk are noticed.
func TestDiskNotWaitedFor(t *testing.T) {
	o, r := Options{Torno: program, SlowFS: slowFS(t)}, &Report{}
	f := faultTable[1]
	if f.always = false; !f.waits {
		t.Fatalf("%s waits for nothing", f.name)
	}
	if err := f.try(t.Context(), &o, r); err != nil {
		t.Fatal(err)
	}
	r.check(t, "answered before they were on the disk")
}

func TestAttack40Second(t *testing.T) {
	short(t, Options{Only: []string{"second"}}, 5).check(t)
}
