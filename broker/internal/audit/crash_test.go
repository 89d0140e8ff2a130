package audit

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperEnv makes the test binary a child that records until it is killed.
const helperEnv = "TORNO_AUDIT_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperEnv); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child records exchanges, some of them open at any time, and prints each beginning that was recorded.
func child(dir string) {
	l, err := Open(dir, Options{Signer: testSigner, Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	var ids []ID
	for err == nil {
		var id ID
		if id, err = l.Begin(request("/child")); err == nil {
			fmt.Println(id)
			if ids = append(ids, id); len(ids) > 5 {
				err = l.End(ids[0], &Outcome{Status: 200})
				ids = ids[1:]
			}
		}
	}
	fmt.Println("error", err)
	os.Exit(1)
}

// Killed 50 times at odd moments: every beginning that was acknowledged is there, the chain holds, and
// what was open is recorded as interrupted.
func TestAttack36Kill(t *testing.T) {
	dir := t.TempDir()
	acknowledged := map[uint64]bool{}
	for i := range 50 {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), helperEnv+"="+dir)
		out := &bytes.Buffer{}
		cmd.Stdout, cmd.Stderr = out, os.Stderr
		must(t, cmd.Start())
		time.Sleep(time.Duration(8+5*i%23) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if strings.Contains(out.String(), "error") {
			t.Fatalf("round %d: %s", i, out)
		}
		for line := range strings.Lines(out.String()) {
			var id uint64
			if _, err := fmt.Sscan(line, &id); err == nil && strings.HasSuffix(line, "\n") {
				acknowledged[id] = true
			}
		}
	}
	must(t, openLog(t, dir, Options{}).Close())
	if v := verified(t, dir); !v.OK {
		t.Fatalf("verdict %+v", v)
	}
	open, interrupted := map[uint64]bool{}, 0
	for _, r := range lines(t, dir) {
		switch r.Type {
		case "begin":
			open[r.Seq] = true
			delete(acknowledged, r.Seq)
		case "end":
			delete(open, r.Begin)
			if r.Interrupted {
				interrupted++
			}
		}
	}
	if len(acknowledged) > 0 || len(open) > 0 || interrupted == 0 {
		t.Errorf("%d acknowledged and lost, %d never ended, %d interrupted", len(acknowledged), len(open), interrupted)
	}
}

// A full disk refuses what is new and loses the end of nothing that is open.
func TestAttack37DiskFull(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounts a small file system (run as root)")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mounts a small file system (run where mount(2) is allowed): %v", err)
	}
	defer func() { must(t, unix.Unmount(dir, 0)) }()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	var ids []ID
	for {
		id, err := l.Begin(request("/"))
		if errors.Is(err, ErrFull) {
			break
		}
		must(t, err)
		if ids = append(ids, id); len(ids) > 100_000 {
			t.Fatal("1 MiB never fills")
		}
	}
	if err := l.Event(request("/")); err != nil && !errors.Is(err, ErrFull) {
		t.Errorf("an event on a full disk: %v", err)
	}
	for _, id := range ids {
		must(t, l.End(id, &Outcome{Status: 200, Upstream: strings.Repeat("x", 200)}))
	}
	must(t, l.Close())
	var ends int
	for _, r := range lines(t, dir) {
		if r.Type == "end" && !r.Interrupted {
			ends++
		}
	}
	if v := verified(t, dir); !v.OK || ends != len(ids) {
		t.Errorf("%d begun, %d ended, verdict %+v", len(ids), ends, v)
	}
}
