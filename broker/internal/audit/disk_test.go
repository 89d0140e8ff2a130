package audit

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

// A slowDisk takes as long to sync as somebody holds it, or fails.
type slowDisk struct {
	sync.Mutex
	calls atomic.Int64
	err   atomic.Pointer[error]
}

func (d *slowDisk) sync(f *os.File) error {
	d.Lock()
	defer d.Unlock()
	d.calls.Add(1)
	if err := d.err.Load(); err != nil {
		return *err
	}
	return datasync(f)
}

func (d *slowDisk) fail(err error) {
	if err == nil {
		d.err.Store(nil)
	} else {
		d.err.Store(&err)
	}
}

// begins tries until an exchange begins, or fails as wanted.
func begins(t *testing.T, l *Log, want error) (id ID) {
	t.Helper()
	eventually(t, "a beginning", func() bool {
		var err error
		id, err = l.Begin(request("/"))
		if err == nil && want != nil {
			must(t, l.End(id, &Outcome{Status: 200}))
		} else if err != nil && want == nil && !errors.Is(err, ErrSlow) {
			t.Fatal(err)
		}
		return errors.Is(err, want)
	})
	return id
}

// A disk that takes longer than MaxLag refuses what is new and nothing else, and again takes it when it has caught up.
func TestAttack37SlowSync(t *testing.T) {
	dir, disk := t.TempDir(), &slowDisk{}
	l := openLog(t, dir, Options{MaxLag: 200 * time.Millisecond, RecordsPerSecond: plenty, sync: disk.sync})
	open := begins(t, l, nil)
	disk.Lock()
	begins(t, l, ErrSlow)
	must(t, l.End(open, &Outcome{Status: 200}))
	if err := l.Act(&Record{Event: "act"}, func() error { t.Error("it was done"); return nil }); !errors.Is(err, ErrSlow) {
		t.Errorf("an act: %v", err)
	}
	disk.Unlock()
	must(t, l.End(begins(t, l, nil), &Outcome{Status: 200}))
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Interrupted > 0 {
		t.Errorf("verdict %+v", v)
	}
}

// After a sync that failed the lines are written again, for the kernel may have forgotten that they were not.
func TestAttack37FailingSync(t *testing.T) {
	dir, disk := t.TempDir(), &slowDisk{}
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty, sync: disk.sync})
	disk.fail(unix.EIO)
	begins(t, l, ErrSlow)
	for range 1000 { // beyond the segment's end
		must(t, l.Event(&Record{Event: "meanwhile", Free: true, Reason: strings.Repeat("x", maxValue)}))
	}
	disk.fail(nil)
	must(t, l.End(begins(t, l, nil), &Outcome{Status: 200}))
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Interrupted > 0 {
		t.Errorf("verdict %+v", v)
	}
}

// Where the lines can't be read back either, nothing new happens.
func TestAttack37LostRecords(t *testing.T) {
	dir, disk := t.TempDir(), &slowDisk{}
	l := openLog(t, dir, Options{RecordsPerSecond: plenty, sync: disk.sync})
	disk.Lock()
	must(t, l.Event(request("/lost")))
	disk.fail(unix.EIO)
	disk.Unlock()
	begins(t, l, ErrSlow)
	path := filepath.Join(dir, segmentName(1))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt(make([]byte, 200), l.offset-200)
	must(t, errors.Join(err, f.Close()))
	disk.fail(nil)
	eventually(t, "the loss", func() bool { _, err := l.Begin(request("/")); return errors.Is(err, errLost) })
	must(t, l.Close())
}

// On a file system that became read-only nothing new happens; what ended meanwhile is recorded once it is writable.
func TestAttack37ReadOnly(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	id, err := l.Begin(request("/"))
	must(t, err)
	readonly, err := os.Open(filepath.Join(dir, segmentName(1)))
	must(t, err)
	defer readonly.Close()
	swap := func(f *os.File) *os.File {
		l.mu.Lock()
		defer l.mu.Unlock()
		old := l.seg
		l.seg = f
		return old
	}
	writable := swap(readonly)
	if _, err := l.Begin(request("/")); err == nil {
		t.Error("an exchange began unrecorded")
	}
	if err := l.Event(request("/")); err == nil {
		t.Error("a refusal passes for recorded")
	}
	if err := l.End(id, &Outcome{Status: 201}); err == nil {
		t.Error("an end passes for recorded")
	}
	// A write that failed may have left anything behind.
	_, err = writable.WriteAt([]byte(strings.Repeat("x", 300)), l.offset)
	must(t, err)
	swap(writable)
	eventually(t, "the late end", func() bool {
		all := lines(t, dir)
		return slices.ContainsFunc(all, func(r control.AuditRecord) bool { return r.Status == 201 })
	})
	must(t, l.End(begins(t, l, nil), &Outcome{Status: 202}))
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Interrupted > 0 {
		t.Errorf("verdict %+v", v)
	}
}

// With SyncAlways an exchange begins once its line is on disk, and not at all where that takes too long. Many share
// one sync.
func TestSyncAlways(t *testing.T) {
	dir, disk := t.TempDir(), &slowDisk{}
	l := openLog(t, dir, Options{SyncAlways: true, MaxLag: 300 * time.Millisecond, RecordsPerSecond: plenty, sync: disk.sync})
	before := disk.calls.Load()
	id, err := l.Begin(request("/"))
	must(t, err)
	if l.mu.Lock(); l.disk.chain.seq < uint64(id) || disk.calls.Load() == before {
		t.Error("the beginning is not on disk")
	}
	l.mu.Unlock()
	disk.Lock()
	began := make(chan error, 50)
	for range cap(began) {
		go func() {
			id, err := l.Begin(request("/"))
			if err == nil {
				err = l.End(id, &Outcome{Status: 200})
			}
			began <- err
		}()
	}
	eventually(t, "all beginnings are written", func() bool { l.mu.Lock(); defer l.mu.Unlock(); return len(l.open) == 1+cap(began) || len(began) > 0 })
	before = disk.calls.Load()
	if len(began) > 0 && !errors.Is(<-began, ErrSlow) {
		t.Error("an exchange began before it was on disk")
	}
	disk.Unlock()
	eventually(t, "the disk catches up", func() bool { return len(began) >= cap(began)-1 })
	if n := disk.calls.Load() - before; n > 25 {
		t.Errorf("%d syncs for %d beginnings", n, cap(began))
	}
	disk.Lock()
	if _, err := l.Begin(request("/late")); !errors.Is(err, ErrSlow) {
		t.Errorf("a disk that does not answer: %v", err)
	}
	disk.Unlock()
	must(t, l.End(id, &Outcome{Status: 200}))
	must(t, l.Close())
	all := lines(t, dir)
	if v := verified(t, dir); !v.OK || v.Interrupted > 0 || !slices.ContainsFunc(all, func(r control.AuditRecord) bool { return r.Reason == unwritten }) {
		t.Errorf("verdict %+v", v)
	}
}

// An act that can't be recorded is not done; one that fails is not recorded.
func TestAct(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	refused := errors.New("refused")
	must(t, l.Act(&Record{Event: "done"}, func() error { return nil }))
	if err := l.Act(&Record{Event: "failed"}, func() error { return refused }); !errors.Is(err, refused) {
		t.Errorf("an act that fails: %v", err)
	}
	must(t, l.Close())
	if err := l.Act(&Record{Event: "closed"}, func() error { t.Error("it was done"); return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	if all := lines(t, dir); len(all) != 1 || all[0].Event != "done" {
		t.Errorf("%+v", all)
	}
}
