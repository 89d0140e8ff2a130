package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"torno.internal/protocol/control"
)

// queried makes an audit of exchanges of several kinds, in many segments, and returns its directory.
func queried(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	base := time.Now().Truncate(time.Hour)
	var step time.Duration
	l := openLog(t, dir, Options{Segment: 1, RecordsPerSecond: plenty, BytesPerHour: plenty, now: func() time.Time { return base.Add(step) }})
	begin := func(r Record) ID {
		step += time.Second
		r.Session, r.Verdict = "s", "allow"
		id, err := l.Begin(&r)
		must(t, err)
		return id
	}
	end := func(id ID, o Outcome) { must(t, l.End(id, &o)) }
	long := begin(Record{Agent: "a", Method: "GET", Authority: "api.example.org:443", Path: "/long", Secret: "K"})
	end(begin(Record{Agent: "a", Method: "GET", Authority: "api.example.org:443", Path: "/1"}), Outcome{Status: 200})
	end(begin(Record{Agent: "b", Method: "POST", Authority: "www.example.org:8443", Path: "/2", Secret: "K"}), Outcome{Status: 404})
	must(t, l.Event(&Record{Session: "s", Agent: "b", Method: "GET", Authority: "[2001:db8::1]:443", Path: "/3", Verdict: "deny", Reason: "denied"}))
	fill(t, l, 3)
	end(begin(Record{Agent: "a", Method: "GET", Authority: "example.org:443", Path: "/4"}), Outcome{Status: 502, Reason: "connect_failed"})
	must(t, l.Event(&Record{Agent: "a", Event: "secret_set", Secret: "K", Version: 1}))
	end(long, Outcome{Status: 200})
	begin(Record{Agent: "a", Method: "GET", Authority: "open.example.org:443", Path: "/5"})
	must(t, l.Close())
	return dir
}

func TestQuery(t *testing.T) {
	dir := queried(t)
	base := time.Now().Truncate(time.Hour)
	for name, c := range map[string]struct {
		filter control.AuditFilter
		want   []string // paths, or names of events
	}{
		"agent":         {control.AuditFilter{Agent: "b"}, []string{"/2", "/3"}},
		"host":          {control.AuditFilter{Host: "API.example.org."}, []string{"/1", "/long"}},
		"host and port": {control.AuditFilter{Host: "www.example.org:8443"}, []string{"/2"}},
		"another port":  {control.AuditFilter{Host: "www.example.org:443"}, nil},
		"below":         {control.AuditFilter{Host: "*.example.org", Method: "get"}, []string{"/1", "/long", "/5"}},
		"IPv6":          {control.AuditFilter{Host: "2001:db8::1"}, []string{"/3"}},
		"IPv6 and port": {control.AuditFilter{Host: "[2001:db8::1]:443"}, []string{"/3"}},
		"status":        {control.AuditFilter{Status: "404"}, []string{"/2"}},
		"class":         {control.AuditFilter{Status: "2xx"}, []string{"/1", "/long"}},
		"range":         {control.AuditFilter{Status: "400-599"}, []string{"/2", "/4"}},
		"verdict":       {control.AuditFilter{Verdict: "deny"}, []string{"/3"}},
		"reason":        {control.AuditFilter{Reason: "connect_failed"}, []string{"/4"}},
		"secret":        {control.AuditFilter{Secret: "K"}, []string{"/2", "secret_set", "/long"}},
		"event":         {control.AuditFilter{Event: "secret_set"}, []string{"secret_set"}},
		"session":       {control.AuditFilter{Session: "s", Agent: "a"}, []string{"/1", "/4", "/long", "/5"}},
		"since":         {control.AuditFilter{Since: base.Add(4 * time.Second), Session: "s"}, []string{"/4", "/5"}},
		"until":         {control.AuditFilter{Until: base.Add(2 * time.Second), Session: "s"}, []string{"/long"}},
		"between":       {control.AuditFilter{Since: base.Add(2 * time.Second), Until: base.Add(4 * time.Second), Session: "s"}, []string{"/1", "/2", "/3"}},
		"nobody":        {control.AuditFilter{Agent: "c"}, nil},
	} {
		var got []string
		must(t, Query(t.Context(), dir, c.filter, func(e *Entry) error {
			got = append(got, e.Record.Path+e.Record.Event)
			var whole struct {
				Seq uint64                          `json:"seq"`
				End *struct{ Begin, Status uint64 } `json:"end"`
			}
			if err := json.Unmarshal(e.JSON(), &whole); err != nil || whole.Seq != e.Record.Seq || (whole.End == nil) != (e.End == nil) {
				t.Errorf("%s: %v, %s", name, err, e.JSON())
			}
			if e.End != nil && (e.End.Begin != e.Record.Seq || whole.End.Begin != e.Record.Seq) {
				t.Errorf("%s: an end of another: %+v", name, e)
			}
			return nil
		}))
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	n := 0
	must(t, Query(t.Context(), dir, control.AuditFilter{}, func(*Entry) error { n++; return ErrStop }))
	if n != 1 {
		t.Errorf("%d after the first", n)
	}
	stop := errors.New("stop")
	if err := Query(t.Context(), dir, control.AuditFilter{}, func(*Entry) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's own error is %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Query(ctx, dir, control.AuditFilter{}, func(*Entry) error { return nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, bad := range []string{"4", "x", "4x", "40x", "99", "500-400", "1000", "-", "200-"} {
		if err := Query(t.Context(), dir, control.AuditFilter{Status: bad}, func(*Entry) error { return nil }); err == nil {
			t.Errorf("status %q is taken", bad)
		}
	}
}

// Every record is found by its number, an end with its beginning, and nothing is found that is not there.
func TestFind(t *testing.T) {
	dir := queried(t)
	last, exchanges := uint64(0), 0
	must(t, Records(t.Context(), dir, time.Time{}, time.Time{}, func(line []byte, r control.AuditRecord) error {
		last = r.Seq
		if r.Event == "filler" {
			return nil
		}
		e, err := Find(dir, r.Seq)
		if err != nil {
			return err
		}
		switch {
		case r.Type == control.AuditEnd:
			exchanges++
			if e.Record.Seq != r.Begin || e.End == nil || e.End.Seq != r.Seq {
				return fmt.Errorf("end %d: %+v", r.Seq, e)
			}
		case e.Record.Seq != r.Seq || string(e.Line) != string(line):
			return fmt.Errorf("record %d: %+v", r.Seq, e)
		case r.Path == "/5" && e.End != nil:
			return errors.New("what is open has ended")
		}
		return nil
	}))
	if exchanges != 4 {
		t.Errorf("%d exchanges, want 4", exchanges)
	}
	for _, seq := range []uint64{0, last + 1, 1 << 63} {
		if e, err := Find(dir, seq); !errors.Is(err, ErrNoRecord) {
			t.Errorf("record %d: %+v, %v", seq, e, err)
		}
	}
}
