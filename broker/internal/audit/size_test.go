package audit

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// hostile is a request with as much in it as the wire takes, of what takes the most room when it is escaped.
func hostile() *Record {
	r := request("/" + strings.Repeat(`"`, protocol.MaxPath-1))
	r.Method, r.Authority = strings.Repeat("|", protocol.MaxMethod), strings.Repeat(`"`, protocol.MaxAuthority)
	r.Dialled = strings.Repeat("\xff", protocol.MaxFieldValue)
	r.Fields = nil
	for range protocol.MaxFields {
		r.Fields = append(r.Fields, protocol.Field{Name: "user-agent", Value: strings.Repeat("\xff", 400)})
	}
	return r
}

// TestAttack38HugeRecord records requests that are as large as they can be. Were a line longer than a reader takes,
// it would pass for a torn one, and the next broker would cut the audit off there.
func TestAttack38HugeRecord(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{})
	id, err := l.Begin(hostile())
	must(t, err)
	must(t, l.Event(hostile()))
	must(t, l.End(id, &Outcome{Status: 200}))
	must(t, l.Event(&Record{Event: "after"}))
	must(t, l.Close())
	holds(t, dir, 4)
	must(t, openLog(t, dir, Options{}).Close())
	all := lines(t, dir)
	if len(all) != 4 || all[3].Event != "after" {
		t.Errorf("%d records survive the next broker, want 4", len(all))
	}
	paths, err := segments(dir)
	must(t, err)
	b, err := os.ReadFile(paths[0])
	must(t, err)
	for line := range bytes.Lines(bytes.TrimRight(b, "\x00")) {
		if len(line) > maxLine {
			t.Errorf("a line of %d bytes, at most %d are read", len(line), maxLine)
		}
	}
}

// TestAttack30HiddenReflection uses up a session's budget. What the broker says of the session is recorded even so.
func TestAttack30HiddenReflection(t *testing.T) {
	dir := t.TempDir()
	l := openLog(t, dir, Options{RecordsPerSecond: 1})
	refused := 0
	for range 50 {
		if l.Event(request("/")) != nil {
			refused++
		}
	}
	suspended := request("/")
	suspended.Event, suspended.Free = "reflection", true
	must(t, l.Event(suspended))
	must(t, l.Close())
	all := lines(t, dir)
	if refused == 0 || !slices.ContainsFunc(all, func(r control.AuditRecord) bool { return r.Event == "reflection" }) {
		t.Errorf("after %d records beyond the budget the last one is %+v", refused, all[len(all)-1])
	}
}
