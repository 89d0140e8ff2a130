package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// testSigner signs in tests; its keys are the same in every run.
var testSigner = func() *Signer {
	s, err := NewSigner(bytes.Repeat([]byte{7}, SeedSize))
	if err != nil {
		panic(err)
	}
	return s
}()

// plenty is more than any test records.
const plenty = 1 << 40

func openLog(t testing.TB, dir string, opt Options) *Log {
	t.Helper()
	if opt.Signer == nil {
		opt.Signer = testSigner
	}
	l, err := Open(dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func request(path string) *Record {
	return &Record{
		Session: "s", Agent: "a", Method: "GET", Scheme: "https", Authority: "x.example:443", Path: path,
		Fields:  protocol.Fields{{Name: "user-agent", Value: "curl"}, {Name: "authorization", Value: "Bearer canary-secret"}},
		Verdict: "allow", List: "allow", Rule: "x.example", Secret: "K", Version: 2,
	}
}

// lines returns every record but checkpoints.
func lines(t testing.TB, dir string) []control.AuditRecord {
	t.Helper()
	var all []control.AuditRecord
	must(t, Tail(t.Context(), dir, 1<<30, false, func(line []byte) error {
		r, err := Decode(line)
		if r.Type != control.AuditCheckpoint {
			all = append(all, r)
		}
		return err
	}))
	return all
}

// verified checks an audit with the keys of testSigner, and against checkpoints that were kept.
func verified(t testing.TB, dir string, since ...string) control.AuditVerdict {
	t.Helper()
	keys := testSigner.Public()
	v, err := Verify(dir, control.AuditCheck{Keys: &keys, Since: since})
	must(t, err)
	return v
}

// holds wants an audit that verifies, with so many records that are no checkpoints.
func holds(t testing.TB, dir string, records int) {
	t.Helper()
	if v := verified(t, dir); !v.OK || int(v.Records)-v.Checkpoints != records {
		t.Errorf("verdict %+v, want %d records beside the checkpoints", v, records)
	}
}

func TestBeginEnd(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	id, err := l.Begin(request("/v1/x?api_key=canary-secret&q=1&%6bey=canary-secret"))
	must(t, err)
	must(t, l.End(id, &Outcome{Status: 200, BytesUp: 1, BytesDown: 2, Duration: 1500 * time.Microsecond, Upstream: "192.0.2.1:443"}))
	if err := l.End(id, &Outcome{}); err == nil {
		t.Error("an exchange ended twice")
	}
	must(t, l.Close())
	got := lines(t, dir)
	if len(got) != 2 || got[0].Type != "begin" || got[0].Path != "/v1/x?api_key=***&q=1&%6bey=***" || got[0].Secret != "K" ||
		got[1].Type != "end" || got[1].Begin != got[0].Seq || got[1].Status != 200 || got[1].Micros != 1500 {
		t.Errorf("records: %+v", got)
	}
	raw, err := os.ReadFile(filepath.Join(dir, segmentName(1)))
	must(t, err)
	if bytes.Contains(raw, []byte("canary-secret")) {
		t.Error("a credential was recorded")
	}
	if !bytes.Contains(raw, []byte("user-agent: curl")) { // the control: what should be there is found
		t.Error("the search finds nothing")
	}
	holds(t, dir, 2)
}

// Nothing in a request can end its line, or reach a terminal as a control character.
func TestAttack38ForgedRecord(t *testing.T) {
	hostile := "/x\n{\"seq\":9}\r\x00\x1b[2J\u009b\u202e\u2028\u200f\ufeff\"\\\xff\xc0é漢"
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	r := request(hostile)
	r.Authority, r.Method, r.Rule, r.Dialled = hostile, hostile, hostile, hostile
	r.Fields = protocol.Fields{{Name: hostile, Value: hostile}, {Name: "user-agent", Value: hostile}}
	id, err := l.Begin(r)
	must(t, err)
	must(t, l.End(id, &Outcome{Reason: hostile, Upstream: hostile}))
	must(t, l.Close())
	holds(t, dir, 2)
	must(t, Tail(t.Context(), dir, 10, false, func(line []byte) error {
		checkLine(t, line)
		return nil
	}))
	if got := lines(t, dir)[0].Authority; !strings.HasPrefix(got, "/x\n{\"seq\":9}\r\x00\x1b[2J") || !strings.HasSuffix(got, "é漢") {
		t.Errorf("what was recorded reads %q", got)
	}
}

// checkLine holds a line to be JSON in which nothing is hidden.
func checkLine(t *testing.T, line []byte) {
	t.Helper()
	if !json.Valid(line) || !utf8.Valid(line) {
		t.Errorf("not JSON: %q", line)
	}
	for _, r := range string(line) {
		if r < 0x20 || r == 0x7f || r >= 0x80 && hidden(r) {
			t.Errorf("%U stands in %q", r, line)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\n\"\\\xff\u2028")
	f.Fuzz(func(t *testing.T, s string) {
		line := append(appendEscaped([]byte{'"'}, s, maxLine), '"')
		checkLine(t, line)
		var back string
		if err := json.Unmarshal(line, &back); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(s) && back != s {
			t.Errorf("%q came back as %q", s, back)
		}
	})
}

// Recording costs no allocation.
func TestNoAllocation(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	defer l.Close()
	r, o := request("/v1/messages?q=1"), &Outcome{Status: 200, Upstream: "192.0.2.1:443"}
	if n := testing.AllocsPerRun(2000, func() {
		id, err := l.Begin(r)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.End(id, o); err != nil {
			t.Fatal(err)
		}
	}); n > 0 {
		t.Errorf("%v allocations an exchange, want 0", n)
	}
}

// Segments follow one another; the end of an exchange may stand in a later one than its beginning.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	var ids []ID
	for i := range 2000 {
		id, err := l.Begin(request(fmt.Sprintf("/%d", i)))
		must(t, err)
		if ids = append(ids, id); len(ids) > 20 {
			must(t, l.End(ids[0], &Outcome{Status: 200}))
			ids = ids[1:]
		}
	}
	must(t, l.Close())
	paths, err := segments(dir)
	must(t, err)
	if len(paths) < 3 {
		t.Errorf("%d segments", len(paths))
	}
	holds(t, dir, 3980)
	l = openLog(t, dir, Options{})
	must(t, l.Close())
	holds(t, dir, 4000) // 20 were interrupted
}

// Many at once keep the chain.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range 200 {
				id, err := l.Begin(request("/"))
				if err == nil {
					err = l.End(id, &Outcome{Status: 200})
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	must(t, l.Close())
	holds(t, dir, 6400)
}

// Following shows what is written, across segments, each record once and in order.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty})
	must(t, l.Event(request("/0")))
	done := errors.New("done")
	seen := make(chan error, 1)
	go func() {
		next := uint64(1)
		seen <- Tail(t.Context(), dir, 1<<30, true, func(line []byte) error {
			r, err := Decode(line)
			if err == nil && r.Seq != next {
				err = fmt.Errorf("record %d after %d", r.Seq, next-1)
			}
			if next++; err == nil && r.Seq > 1500 {
				err = done
			}
			return err
		})
	}()
	for i := range 1500 {
		must(t, l.Event(request(fmt.Sprintf("/%d", i))))
	}
	select {
	case err := <-seen:
		if !errors.Is(err, done) {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("not all records were shown")
	}
	must(t, l.Close())
}

func BenchmarkExchange(b *testing.B) {
	l := openLog(b, b.TempDir(), Options{RecordsPerSecond: plenty, BytesPerHour: plenty})
	defer l.Close()
	r, o := request("/v1/messages"), &Outcome{Status: 200, Upstream: "192.0.2.1:443"}
	b.ReportAllocs()
	for b.Loop() {
		id, err := l.Begin(r)
		if err == nil {
			err = l.End(id, o)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
