package audit

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"torno.internal/protocol/control"
)

// write makes an audit of n exchanges and returns its one segment's path and its lines: a checkpoint, two lines an
// exchange, a checkpoint.
func write(t *testing.T, n int) (dir, path string, all [][]byte) {
	t.Helper()
	dir = t.TempDir()
	l := openLog(t, dir, Options{})
	for i := range n {
		id, err := l.Begin(request(fmt.Sprintf("/%d", i)))
		must(t, err)
		must(t, l.End(id, &Outcome{Status: 200}))
	}
	must(t, l.Close())
	path = filepath.Join(dir, segmentName(1))
	return dir, path, linesOf(t, path)
}

// linesOf returns a segment's lines with their ends.
func linesOf(t *testing.T, path string) [][]byte {
	t.Helper()
	raw, err := os.ReadFile(path)
	must(t, err)
	return slices.Collect(bytes.Lines(bytes.TrimRight(raw, "\x00")))
}

// chained gives every line from i on the number and the hash that follow from the lines before it, as who does not
// have the keys can.
func chained(l [][]byte, i int) [][]byte {
	for ; i < len(l); i++ {
		r, err := Decode(l[i][:len(l[i])-1])
		if err != nil {
			panic(err)
		}
		prev := lineHash(l[i-1][:len(l[i-1])-1])
		_, rest, _ := bytes.Cut(l[i], []byte(`","type":"`))
		l[i] = appendHead(nil, uint64(i)+1, r.Time, &prev, "")
		l[i] = append(l[i][:len(l[i])-1], rest...)
	}
	return l
}

// edit changes one record.
func edit(l [][]byte, i int) [][]byte {
	l[i] = bytes.Replace(l[i], []byte("x.example"), []byte("y.example"), 1)
	return l
}

// Every way to change the audit without the keys is named, with the first bad record and where it stands: but a cut
// at the end, and an older copy, which show against a checkpoint that was kept elsewhere.
func TestAttack38EditedAudit(t *testing.T) {
	for name, c := range map[string]struct {
		change func([][]byte) [][]byte // of 22 lines, the first and the last of which are checkpoints
		record uint64                  // the first bad one; 0: none is seen
		since  uint64                  // the first bad one when the last checkpoint was kept elsewhere
	}{
		"untouched":      {func(l [][]byte) [][]byte { return l }, 0, 0},
		"edited":         {func(l [][]byte) [][]byte { return edit(l, 5) }, 7, 7},
		"removed within": {func(l [][]byte) [][]byte { return append(l[:4:4], l[5:]...) }, 5, 5},
		"reordered":      {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, 5, 5},
		"inserted twice": {func(l [][]byte) [][]byte { return append(l[:5:5], l[4:]...) }, 6, 6},
		"first removed":  {func(l [][]byte) [][]byte { return l[1:] }, 1, 1},
		"not ours":       {func(l [][]byte) [][]byte { l[4] = []byte("{}\n"); return l }, 5, 5},
		"torn within":    {func(l [][]byte) [][]byte { l[4] = l[4][:10]; return l }, 5, 5},
		"behind the end": {func(l [][]byte) [][]byte { return append(l, make([]byte, 64), []byte("x\n")) }, 23, 23},
		"another spelling": {func(l [][]byte) [][]byte {
			l[5] = bytes.Replace(l[5], []byte(`"agent"`), []byte(`"\u0061gent"`), 1)
			return chained(l, 6)
		}, 6, 6},
		"edited, and all behind it written anew":  {func(l [][]byte) [][]byte { return chained(edit(l, 5), 6) }, 22, 22},
		"removed, and all behind it written anew": {func(l [][]byte) [][]byte { return chained(append(l[:4:4], l[6:]...), 4) }, 20, 20},
		"inserted, and all behind it written anew": {func(l [][]byte) [][]byte {
			return chained(slices.Insert(l, 5, bytes.Clone(l[5]), bytes.Clone(l[5])), 5)
		}, 24, 22},
		"checkpoint edited": {func(l [][]byte) [][]byte {
			l[21] = bytes.Replace(l[21], []byte(`"time":"2`), []byte(`"time":"9`), 1)
			return l
		}, 22, 22},
		"checkpoint removed, and all behind it written anew": {func(l [][]byte) [][]byte { return chained(edit(l, 5), 6)[:21] }, 0, 22},
		"first checkpoint removed, and all written anew": {func(l [][]byte) [][]byte {
			l = l[1:21]
			l[0] = append(appendHead(nil, 1, time0, &[32]byte{}, "event"), []byte(",\"event\":\"x\"}\n")...)
			return chained(l, 1)
		}, 1, 1},
		"cut at the end":        {func(l [][]byte) [][]byte { return l[:16] }, 0, 22},
		"cut within a line":     {func(l [][]byte) [][]byte { l[15] = l[15][:40]; return l[:16] }, 16, 16},
		"an event without keys": {func(l [][]byte) [][]byte { return chained(slices.Insert(l, 21, bytes.Clone(l[20])), 21) }, 23, 22},
		"clock set back": {func(l [][]byte) [][]byte {
			l[20] = bytes.Replace(l[20], []byte(`"time":"2`), []byte(`"time":"1`), 1)
			return chained(l, 21)
		}, 21, 21},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path, all := write(t, 10)
			kept := string(bytes.TrimSpace(all[21]))
			must(t, os.WriteFile(path, append(bytes.Join(c.change(all), nil), make([]byte, 4096)...), 0o600))
			named(t, path, verified(t, dir), c.record)
			named(t, path, verified(t, dir, kept), c.since)
		})
	}
}

// named wants a verdict that names a record, and the offset at which that stands or should.
func named(t *testing.T, path string, v control.AuditVerdict, want uint64) {
	t.Helper()
	if v.OK != (want == 0) || v.Record != want {
		t.Errorf("verdict %+v, want record %d", v, want)
	}
	if v.OK || v.Offset == 0 {
		return
	}
	offset := int64(0)
	for i, line := range linesOf(t, path) {
		if uint64(i)+1 == want {
			break
		}
		offset += int64(len(line))
	}
	if v.Offset != offset || v.File != filepath.Base(path) {
		t.Errorf("verdict %+v, want offset %d", v, offset)
	}
}

// An older copy of the whole directory is a good audit, and not the one that the kept checkpoint is of. So is one that
// was begun anew, with other keys.
func TestAttack38Rollback(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	must(t, l.Event(request("/1")))
	must(t, l.Close())
	old := t.TempDir()
	must(t, os.CopyFS(old, os.DirFS(dir)))
	l = openLog(t, dir, Options{})
	must(t, l.Event(request("/2")))
	kept, err := l.Checkpoint()
	must(t, err)
	must(t, l.Event(request("/3")))
	must(t, l.Close())
	if v := verified(t, dir, string(kept)); !v.OK {
		t.Errorf("untouched: %+v", v)
	}
	if v := verified(t, old, string(kept)); v.OK || v.Record != 5 || !strings.Contains(v.Problem, "ends at record 3") {
		t.Errorf("an old copy: %+v", v)
	}
	// The old copy goes on: another history with the right keys, as a broker on it would write.
	l = openLog(t, old, Options{})
	for range 5 {
		must(t, l.Event(request("/other")))
	}
	must(t, l.Close())
	if v := verified(t, old); !v.OK {
		t.Errorf("another history, nothing kept: %+v", v)
	}
	if v := verified(t, old, string(kept)); v.OK || v.Record != 5 {
		t.Errorf("another history: %+v", v)
	}
	other, err := NewSigner(bytes.Repeat([]byte{8}, SeedSize))
	must(t, err)
	anew := t.TempDir()
	l = openLog(t, anew, Options{Signer: other})
	must(t, l.Close())
	if v := verified(t, anew); v.OK || v.Record != 1 || !strings.Contains(v.Problem, "not with") {
		t.Errorf("other keys: %+v", v)
	}
}

// What is given to check against is checked itself.
func TestVerifyInput(t *testing.T) {
	dir, _, all := write(t, 1)
	good := string(bytes.TrimSpace(all[0]))
	keys := testSigner.Public()
	for name, check := range map[string]control.AuditCheck{
		"no checkpoint":       {Keys: &keys, Since: []string{string(bytes.TrimSpace(all[1]))}},
		"not JSON":            {Since: []string{"x"}},
		"edited checkpoint":   {Keys: &keys, Since: []string{strings.Replace(good, `"time":"2`, `"time":"1`, 1)}},
		"contradicting lines": {Since: []string{good, strings.Replace(good, `"time":"2`, `"time":"1`, 1)}},
		"short key":           {Keys: &control.AuditKeys{Ed25519: keys.Ed25519[:31], MLDSA65: keys.MLDSA65}},
		"no post-quantum key": {Keys: &control.AuditKeys{Ed25519: keys.Ed25519}},
		"too many":            {Since: make([]string, maxSince+1)},
	} {
		if v, err := Verify(dir, check); err == nil {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if _, err := Verify(t.TempDir(), control.AuditCheck{}); err == nil {
		t.Error("an empty directory verifies")
	}
	if v, err := Verify(dir, control.AuditCheck{Since: []string{good}}); err != nil || !v.OK || v.Signed != 0 {
		t.Errorf("without keys: %+v, %v", v, err)
	}
}

// An audit that is being written verifies, also across segments.
func TestVerifyWhileWriting(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 4000 {
			if err := l.Event(request(fmt.Sprintf("/%d", i))); err != nil {
				t.Error(err)
			}
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		if v := verified(t, dir); !v.OK {
			t.Fatalf("verdict %+v", v)
		}
	}
	must(t, l.Close())
	holds(t, dir, 4000)
}

func BenchmarkVerify(b *testing.B) {
	const records = 20_000
	dir := b.TempDir()
	l := openLog(b, dir, Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	for range records / 2 {
		id, err := l.Begin(request("/v1/messages"))
		must(b, err)
		must(b, l.End(id, &Outcome{Status: 200}))
	}
	must(b, l.Close())
	b.ReportAllocs()
	for b.Loop() {
		verified(b, dir)
	}
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
