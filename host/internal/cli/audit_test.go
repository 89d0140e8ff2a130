package cli

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"strings"
	"testing"
	"time"

	logs "go.opentelemetry.io/proto/otlp/logs/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"torno.internal/broker"
	"torno.internal/protocol/control"
)

// hostileText ends lines, steers terminals and looks like other things.
const hostileText = "=1\n{\"seq\":9}\r\x00\x1b[2J\u009b\u202e,\"\xff"

// hostileEntry says hostileText wherever somebody else has a say.
func hostileEntry() *broker.AuditEntry {
	at := time.Date(2026, 1, 31, 14, 30, 0, 5, time.UTC)
	return &broker.AuditEntry{
		Record: control.AuditRecord{Seq: 7, Time: at, Type: control.AuditBegin, Session: "s", Agent: "a", Method: hostileText, Protocol: hostileText,
			Scheme: "https", Authority: hostileText, Path: hostileText, Fields: []string{hostileText, "user-agent: " + hostileText}, Dialled: hostileText,
			Verdict: "allow", List: "allow", Rule: hostileText, Secret: "K", Version: 2, Placeholders: 3},
		End: &control.AuditRecord{Seq: 8, Time: at, Type: control.AuditEnd, Begin: 7, Reason: hostileText, Status: 200, Up: 1, Down: 2, DialMicros: 3,
			HeadMicros: 4, Micros: 5, Upstream: hostileText, Via: hostileText, Masked: 6, Aborted: true},
	}
}

// harmlessLines wants lines, of at most so many columns, in which nothing steers a terminal.
func harmlessLines(t *testing.T, out string, columns int) {
	t.Helper()
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		if n := len([]rune(line)); n > columns {
			t.Errorf("%d columns: %s", n, line)
		}
		if i := strings.IndexFunc(line, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x202e || r == 0xfffd }); i >= 0 {
			t.Errorf("%q stands in %q", line[i:i+1], line)
		}
	}
}

func TestAuditLines(t *testing.T) {
	e := hostileEntry()
	for _, r := range []*control.AuditRecord{&e.Record, e.End} {
		harmlessLines(t, describe(r).fit(screen)+"\n", screen)
		if line := describe(r).fit(1 << 20); !strings.Contains(line, `\x1b[2J`) && r == &e.Record {
			t.Errorf("the control is missing in %q", line)
		}
	}
	var out bytes.Buffer
	if err := printEntry(&out, e); err != nil {
		t.Fatal(err)
	}
	if err := printResult(&out, e, screen); err != nil {
		t.Fatal(err)
	}
	harmlessLines(t, out.String(), screen)
	// What a line is about stays in it, though its URL is long.
	long := control.AuditRecord{Seq: 1, Type: control.AuditRefused, Agent: "my-agent", Method: "GET", Scheme: "https", Authority: "x.example:443",
		Path: "/" + strings.Repeat("p", 500), Reason: "denied_by_rule", List: "deny", Rule: "x.example"}
	if line := describe(&long).fit(screen); !strings.Contains(line, "GET x.example/ppp") || !strings.HasSuffix(line, "… refused: denied_by_rule (deny: x.example)") && !strings.Contains(line, "refused: denied") {
		t.Errorf("%q", line)
	}
}

// A row has a cell for each column, whatever stands in it, and none is a formula.
func TestAuditCSV(t *testing.T) {
	e := hostileEntry()
	var out bytes.Buffer
	w := csv.NewWriter(&out)
	row := []string{}
	for _, c := range csvColumns {
		row = append(row, cell(c.of(&e.Record, e.End)))
	}
	if err := w.Write(row); err != nil {
		t.Fatal(err)
	}
	w.Flush()
	harmlessLines(t, out.String(), 1<<20)
	back, err := csv.NewReader(&out).ReadAll()
	if err != nil || len(back) != 1 || len(back[0]) != len(csvColumns) {
		t.Fatalf("%q, %v", back, err)
	}
	for i, c := range back[0] {
		if c != "" && strings.ContainsAny(c[:1], "=+-@") {
			t.Errorf("column %s is a formula: %q", csvColumns[i].name, c)
		}
	}
}

// What is exported is OTLP as its own definition reads it, which knows every member.
func TestAuditOTLP(t *testing.T) {
	for name, e := range map[string]*broker.AuditEntry{
		"hostile": hostileEntry(),
		"event":   {Record: control.AuditRecord{Seq: 1, Time: time.Unix(1, 2), Type: control.AuditEvent, Event: "secret_set", Secret: "K", By: "pid 1", Count: 9, SHA256: "00"}},
		"refused": {Record: control.AuditRecord{Seq: 1, Time: time.Unix(1, 2), Type: control.AuditRefused, Reason: "denied", Approval: "x"}},
		"cut off": {Record: control.AuditRecord{Seq: 1, Time: time.Unix(1, 2), Type: control.AuditBegin}, End: &control.AuditRecord{Seq: 2, Type: control.AuditEnd, Interrupted: true}},
	} {
		b, err := json.Marshal(otlpRequestOf([]otlpLog{otlpLogOf(e)}))
		if err != nil {
			t.Fatal(err)
		}
		harmlessLines(t, string(b), 1<<20)
		var data logs.LogsData
		if err := protojson.Unmarshal(b, &data); err != nil {
			t.Errorf("%s: %v\n%s", name, err, b)
			continue
		}
		r := data.ResourceLogs[0].ScopeLogs[0].LogRecords[0]
		if !strings.HasPrefix(r.EventName, "torno.") || r.TimeUnixNano != uint64(e.Record.Time.UnixNano()) || len(r.Attributes) < 2 {
			t.Errorf("%s: %+v", name, r)
		}
		for _, a := range r.Attributes {
			if a.Value == nil || a.Value.Value == nil {
				t.Errorf("%s: attribute %s has no value", name, a.Key)
			}
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 2*3600)
	now := time.Date(2026, 1, 31, 14, 30, 0, 0, zone)
	for s, want := range map[string]time.Time{
		"":                     {},
		"90m":                  now.Add(-90 * time.Minute),
		"3d":                   now.AddDate(0, 0, -3),
		"12:15":                time.Date(2026, 1, 31, 12, 15, 0, 0, zone),
		"12:15:30":             time.Date(2026, 1, 31, 12, 15, 30, 0, zone),
		"2026-01-02":           time.Date(2026, 1, 2, 0, 0, 0, 0, zone),
		"2026-01-02 03:04":     time.Date(2026, 1, 2, 3, 4, 0, 0, zone),
		"2026-01-02T03:04:05Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	} {
		if got, err := parseTime("--since", s, now); err != nil || !got.Equal(want) {
			t.Errorf("%q is %v, %v; want %v", s, got, err, want)
		}
	}
	for _, bad := range []string{"yesterday", "-1h", "-3d", "25:00", "2026-13-01", "3", "d"} {
		if got, err := parseTime("--since", bad, now); err == nil {
			t.Errorf("%q is %v", bad, got)
		}
	}
}
