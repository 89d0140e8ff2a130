package audit

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"torno.internal/protocol/control"
)

// fill records until n segments have begun.
func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	last, begun := "", 0
	for begun < n {
		must(t, l.Event(&Record{Event: "filler", Free: true, Reason: strings.Repeat("x", maxValue)}))
		if name := l.seg.Name(); name != last {
			last, begun = name, begun+1
		}
	}
}

// total returns how much all segments take, and their paths.
func total(t *testing.T, dir string) (bytes int64, paths []string) {
	t.Helper()
	paths, err := segments(dir)
	must(t, err)
	for _, p := range paths {
		if info, err := os.Stat(p); err == nil {
			bytes += info.Size()
		}
	}
	return bytes, paths
}

// The oldest segments go before all take more than is wanted. The rest verifies, says what went, and still names any
// that went otherwise.
func TestRetentionBytes(t *testing.T) {
	const keep = 4 * 3 * maxLine
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, KeepBytes: keep})
	must(t, l.Event(&Record{Event: "secret_set", Agent: "a", Commit: 41, Manifest: strings.Repeat("0", 64)}))
	for range 10 {
		fill(t, l, 2)
		eventually(t, "the oldest segments go", func() bool { n, _ := total(t, dir); return n <= keep })
		if v := verified(t, dir); !v.OK {
			t.Fatalf("verdict %+v", v)
		}
	}
	must(t, l.Close())
	v := verified(t, dir)
	if !v.OK || v.First < 100 || len(v.Notes) != 1 || v.Records != v.Last-v.First+1 {
		t.Errorf("verdict %+v", v)
	}
	if c, err := LastCommit(dir); err != nil || c.Commit != 41 {
		t.Errorf("the last commit that is found: %+v, %v", c, err)
	}
	if c, err := CommitsSince(dir, 0); err != nil || len(c) > 0 {
		t.Errorf("commits whose records were deleted: %+v, %v", c, err)
	}
	l = openLog(t, dir, Options{})
	if l.commit != 41 || len(l.manifest) != 64 {
		t.Errorf("the store's last commit is forgotten: %d, %q", l.commit, l.manifest)
	}
	must(t, l.Close())
	_, paths := total(t, dir)
	within := t.TempDir()
	must(t, os.CopyFS(within, os.DirFS(dir)))
	must(t, os.Remove(filepath.Join(within, filepath.Base(paths[1]))))
	if v := verified(t, within); v.OK || !strings.Contains(v.Problem, "expected segment") {
		t.Errorf("a segment that is missing within: %+v", v)
	}
	must(t, os.Remove(paths[0]))
	if v := verified(t, dir); v.OK || v.Record == 0 || !strings.Contains(v.Problem, "none says that they were deleted") {
		t.Errorf("a segment that went otherwise: %+v", v)
	}
}

// Segments go when all their records are older than is wanted, and never the one in use.
func TestRetentionAge(t *testing.T) {
	dir := t.TempDir()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	l := openLog(t, dir, Options{Segment: 1, KeepFor: 24 * time.Hour, now: now})
	fill(t, l, 3)
	time.Sleep(3 * SyncInterval)
	if _, paths := total(t, dir); len(paths) != 3 {
		t.Errorf("%d segments before their time, want 3", len(paths))
	}
	ahead.Store(int64(23 * time.Hour))
	fill(t, l, 2)
	ahead.Store(int64(25 * time.Hour))
	eventually(t, "old segments go", func() bool { _, paths := total(t, dir); return len(paths) == 2 })
	ahead.Store(int64(100 * time.Hour))
	eventually(t, "the others go", func() bool { _, paths := total(t, dir); return len(paths) == 1 })
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.First == 1 {
		t.Errorf("verdict %+v", v)
	}
}

// A clock that is set back leaves a record, whatever is recorded then, and none says less than it should.
func TestAttack38ClockSetBack(t *testing.T) {
	dir := t.TempDir()
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	l := openLog(t, dir, Options{now: now})
	id, err := l.Begin(request("/"))
	must(t, err)
	ahead.Store(int64(-time.Hour))
	must(t, l.End(id, &Outcome{Status: 200}))
	ahead.Store(int64(time.Hour)) // forward is no matter
	must(t, l.Event(request("/")))
	must(t, l.Close())
	l = openLog(t, dir, Options{}) // and while the broker did not run
	must(t, l.Close())
	var back []int64
	for _, r := range lines(t, dir) {
		if r.Event == EventClockSetBack {
			back = append(back, r.Micros)
		}
	}
	hour := func(us int64) bool { return us > 59*60e6 && us < 61*60e6 }
	if v := verified(t, dir); !v.OK || v.Backwards != 1 || len(back) != 1 || !hour(back[0]) {
		t.Errorf("verdict %+v, set back by %v", v, back)
	}
	l = openLog(t, dir, Options{})
	must(t, l.Event(request("/")))
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Backwards != 2 {
		t.Errorf("a broker that began with an earlier clock: %+v", v)
	}
}

// What is over the budget is counted, exchanges too, and the count is recorded though the session falls silent.
func TestBudget(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: 5})
	var recorded, over int64
	for i := range 100 {
		var err error
		if i%2 == 0 {
			err = l.Event(request("/"))
		} else {
			var id ID
			if id, err = l.Begin(request("/")); err == nil {
				must(t, l.End(id, &Outcome{Status: 200}))
			}
		}
		if err == nil {
			recorded++
		} else {
			over++
		}
	}
	if recorded < 50 || recorded > 60 {
		t.Errorf("%d recorded, want the burst of 50", recorded)
	}
	other := request("/")
	other.Session = "other"
	must(t, l.Event(other))
	must(t, l.Close())
	var counted int64
	for _, r := range lines(t, dir) {
		if r.Event == EventSuppressed && r.Session == "s" && r.Agent == "a" {
			counted += r.Count
		}
	}
	if counted != over {
		t.Errorf("records say that %d were suppressed, %d were", counted, over)
	}
}

// Counts of a flood that goes on are recorded meanwhile, one record for each session and interval.
func TestAggregates(t *testing.T) {
	dir := t.TempDir()
	var ahead atomic.Int64
	l := openLog(t, dir, Options{RecordsPerSecond: 1, now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	counted := func() (n int) {
		for _, r := range lines(t, dir) {
			if r.Event == EventSuppressed {
				n++
			}
		}
		return n
	}
	for round := 1; round <= 2; round++ {
		for range 100 {
			_ = l.Event(request("/"))
		}
		ahead.Add(int64(aggregateInterval) + 1)
		eventually(t, "the count", func() bool { return counted() == round })
	}
	must(t, l.Close())
	if n := counted(); n != 2 {
		t.Errorf("%d counts, want 2", n)
	}
}

// The next broker learns from the beginning of the last segment what was open, however long ago it began.
func TestInterruptedLongAgo(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	id, err := l.Begin(request("/long"))
	must(t, err)
	fill(t, l, 8)
	must(t, l.Close())
	l = openLog(t, dir, Options{})
	must(t, l.Close())
	all := lines(t, dir)
	if !slices.ContainsFunc(all, func(r control.AuditRecord) bool { return r.Interrupted && r.Begin == uint64(id) }) {
		t.Error("it was forgotten")
	}
	if v := verified(t, dir); !v.OK || v.Interrupted != 1 {
		t.Errorf("verdict %+v", v)
	}
}

// More exchanges than the beginning of a segment can list are found in the segments before it.
func TestInterruptedMany(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	for range maxOpen + 500 {
		_, err := l.Begin(&Record{Session: "s"})
		must(t, err)
	}
	first := l.seg.Name()
	for l.seg.Name() == first {
		fill(t, l, 1)
	}
	must(t, l.Close())
	l = openLog(t, dir, Options{})
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Interrupted != maxOpen+500 {
		t.Errorf("verdict %+v", v)
	}
}
