package audit

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

func openLog(t testing.TB, dir string, opt Options) *Log {
	t.Helper()
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

// lines returns every record.
func lines(t testing.TB, dir string) []control.AuditRecord {
	t.Helper()
	var all []control.AuditRecord
	must(t, Tail(t.Context(), dir, 1<<30, false, func(line []byte) error {
		r, err := Parse(line)
		all = append(all, r)
		return err
	}))
	return all
}

func verified(t testing.TB, dir string) control.AuditVerdict {
	t.Helper()
	v, err := Verify(dir)
	must(t, err)
	return v
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
	if v := verified(t, dir); !v.OK || v.Records != 2 {
		t.Errorf("verdict %+v", v)
	}
}

// write makes an audit of n exchanges and returns its one segment's path and its lines.
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
	raw, err := os.ReadFile(path)
	must(t, err)
	return dir, path, bytes.SplitAfter(bytes.TrimRight(raw, "\x00"), []byte("\n"))[:2*n]
}

// An edit, a removal within, a reordering, an insertion and a copy are named. A cut at the end is not, nor is an edit by
// somebody who writes everything behind it anew, which is why the head is kept elsewhere.
func TestAttack38EditedAudit(t *testing.T) {
	for name, c := range map[string]struct {
		change func([][]byte) [][]byte
		want   string // part of the problem; empty: none
	}{
		"untouched": {func(l [][]byte) [][]byte { return l }, ""},
		"edited": {func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], []byte("x.example"), []byte("y.example"), 1)
			return l
		}, "record 6"},
		"removed within": {func(l [][]byte) [][]byte { return append(l[:4:4], l[5:]...) }, "record 5"},
		"reordered":      {func(l [][]byte) [][]byte { l[4], l[5] = l[5], l[4]; return l }, "record 5"},
		"inserted":       {func(l [][]byte) [][]byte { return append(l[:5:5], l[4:]...) }, "record 6"},
		"first removed":  {func(l [][]byte) [][]byte { return l[1:] }, "record 1"},
		"not ours":       {func(l [][]byte) [][]byte { l[4] = []byte("{}\n"); return l }, "record 5"},
		"torn within":    {func(l [][]byte) [][]byte { l[4] = l[4][:10]; return l }, "record 5"},
		"after the end":  {func(l [][]byte) [][]byte { return append(l, make([]byte, 64), []byte("x\n")) }, "record 21"},
		"cut at the end": {func(l [][]byte) [][]byte { return l[:16] }, ""},
		"all behind it written anew": {func(l [][]byte) [][]byte {
			l[4] = bytes.Replace(l[4], []byte("x.example"), []byte("y.example"), 1)
			for i := 5; i < len(l); i++ {
				prev := lineHash(l[i-1][:len(l[i-1])-1])
				at := bytes.Index(l[i], []byte(`"prev":"`)) + len(`"prev":"`)
				l[i] = slices.Concat(l[i][:at], appendHex(nil, prev[:]), l[i][at+64:])
			}
			return l
		}, ""},
		"clock of the end": {func(l [][]byte) [][]byte {
			l[19] = bytes.Replace(l[19], []byte(`"time":"2`), []byte(`"time":"1`), 1)
			return l
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, path, all := write(t, 10)
			head := verified(t, dir).Head
			must(t, os.WriteFile(path, append(bytes.Join(c.change(all), nil), make([]byte, 4096)...), 0o600))
			v := verified(t, dir)
			if v.OK != (c.want == "") || !strings.Contains(v.Problem, c.want) {
				t.Errorf("verdict %+v, want %q", v, c.want)
			}
			if name != "untouched" && v.OK && v.Head == head {
				t.Error("the head does not show it either")
			}
		})
	}
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
	if v := verified(t, dir); !v.OK || v.Records != 2 {
		t.Errorf("verdict %+v", v)
	}
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
		line := append(appendEscaped([]byte{'"'}, s), '"')
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

func FuzzParseLink(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"x","prev":"` + strings.Repeat("0", 64) + `","type":"end","begin":7}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if k, err := parseLink(line); err != nil && k != (link{}) && k.kind == "" {
			return // what was read before the error is not used
		}
	})
}

// Recording costs no allocation.
func TestNoAllocation(t *testing.T) {
	l := openLog(t, t.TempDir(), Options{RecordsPerSecond: 1 << 30, BytesPerHour: 1 << 60})
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
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: 1 << 30, BytesPerHour: 1 << 60})
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
	v := verified(t, dir)
	if !v.OK || v.Records != 3980 || len(paths) < 3 {
		t.Errorf("verdict %+v over %d segments", v, len(paths))
	}
	l = openLog(t, dir, Options{})
	must(t, l.Close())
	if v := verified(t, dir); !v.OK || v.Records != 4000 {
		t.Errorf("after a restart, with 20 interrupted: %+v", v)
	}
}

// A session that records too much gets no more exchanges; its refusals are counted instead.
func TestBudget(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: 5})
	var recorded, over int
	for range 100 {
		if err := l.Event(request("/")); errors.Is(err, ErrBudget) {
			over++
		} else {
			must(t, err)
			recorded++
		}
	}
	if recorded < 50 || recorded > 52 {
		t.Errorf("%d recorded, want the burst of 50", recorded)
	}
	if _, err := l.Begin(request("/")); !errors.Is(err, ErrBudget) {
		t.Errorf("an exchange beyond the budget: %v", err)
	}
	other := request("/")
	other.Session = "other"
	must(t, l.Event(other))
	time.Sleep(450 * time.Millisecond)
	must(t, l.Event(request("/")))
	must(t, l.Close())
	for _, r := range lines(t, dir) {
		if r.Event == "refusals_suppressed" && r.Count == int64(over) {
			return
		}
	}
	t.Errorf("no record says that %d refusals were suppressed", over)
}

// Many at once keep the chain.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: 1 << 30, BytesPerHour: 1 << 60})
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
	if v := verified(t, dir); !v.OK || v.Records != 6400 {
		t.Errorf("verdict %+v", v)
	}
}

// Following shows what is written, across segments, each record once and in order.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: 1 << 30, BytesPerHour: 1 << 60})
	must(t, l.Event(request("/0")))
	done := errors.New("done")
	seen := make(chan error, 1)
	go func() {
		next := uint64(1)
		seen <- Tail(t.Context(), dir, 1<<30, true, func(line []byte) error {
			r, err := Parse(line)
			if err == nil && r.Seq != next {
				err = fmt.Errorf("record %d after %d", r.Seq, next-1)
			}
			if next++; err == nil && next > 1500 {
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
	case <-time.After(10 * time.Second):
		t.Error("not all records were shown")
	}
	must(t, l.Close())
}

func BenchmarkExchange(b *testing.B) {
	l := openLog(b, b.TempDir(), Options{RecordsPerSecond: 1 << 30, BytesPerHour: 1 << 60})
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
