package audit

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// recoverWithin is what taking up the audit of a broker that was killed may take of the processor: all of one segment is
// read. The rest of a second is for everything else that a broker does before it is ready.
const recoverWithin = 300 * time.Millisecond

// recoverSlack is what a slower processor gets on top.
const recoverSlack = 3

// processor is the time that this process has had of it: what others do on the machine is not in it.
func processor(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	must(t, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// killed makes a directory as a broker leaves it that is killed when a segment is nearly full, with exchanges that are open.
func killed(t testing.TB) string {
	t.Helper()
	dir, to := t.TempDir(), t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	defer l.Close()
	for i := 0; l.offset < DefaultSegment*7/8; i++ {
		id, err := l.Begin(request("/x"))
		must(t, err)
		if i%300 > 0 {
			must(t, l.End(id, &Outcome{Status: 200}))
		}
	}
	must(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// A full segment is taken up within what is promised, and all that was open in it is recorded as interrupted.
func TestRecoverLoad(t *testing.T) {
	dir := killed(t)
	before := processor(t)
	l := openLog(t, dir, Options{})
	took := processor(t) - before
	must(t, l.Close())
	v := verified(t, dir)
	t.Logf("%d records take %v of the processor (promised: %v)", v.Records, took.Round(time.Millisecond), recoverWithin)
	if took > recoverSlack*recoverWithin {
		t.Errorf("%v of the processor, promised are %v", took, recoverWithin)
	}
	if !v.OK || v.Interrupted < 50 || v.Records < 10_000 {
		t.Errorf("little was taken up: %+v", v)
	}
}

func BenchmarkRecover(b *testing.B) {
	dir := killed(b)
	var took time.Duration
	for b.Loop() {
		b.StopTimer()
		again := b.TempDir()
		must(b, os.CopyFS(again, os.DirFS(dir)))
		began := processor(b)
		b.StartTimer()
		l := openLog(b, again, Options{})
		took += processor(b) - began
		b.StopTimer()
		must(b, l.Close())
		b.StartTimer()
	}
	b.ReportMetric(float64(took.Microseconds())/1e3/float64(b.N), "cpu-ms/op")
}
