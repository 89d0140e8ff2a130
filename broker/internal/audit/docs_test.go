package audit

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// page describes the format.
const page = "../../../docs/audit.md"

// examples are one line of every type, as docs/audit.md shows them, each a millisecond after the one before.
func examples() []string {
	now, seq, prev := time0.Truncate(time.Millisecond), uint64(1040), [32]byte{}
	var lines []string
	add := func(kind string, fill func([]byte) []byte) {
		b := append(fill(appendHead(nil, seq, now, &prev, kind)), '}')
		lines = append(lines, string(b))
		now, seq, prev = now.Add(time.Millisecond), seq+1, lineHash(b)
	}
	const session = "01m8588eq2zh04vw8qn948688n"
	add(control.AuditCheckpoint, func(b []byte) []byte { return testSigner.appendSigned(append(b, `,"open":[1012]`...)) })
	add(control.AuditEvent, (&Record{Event: "session_created", Session: session, Agent: "my-agent", By: "pid 4711"}).appendTo)
	add(control.AuditBegin, (&Record{
		Session: session, Agent: "my-agent", Method: "POST", Scheme: "https", Authority: "api.example.org:443", Path: "/v1/messages?beta=true&token=x",
		Fields:  protocol.Fields{{Name: "content-type", Value: "application/json"}, {Name: "x-custom", Value: "kept from the audit"}},
		Dialled: "100.64.0.7:443", Verdict: "allow", List: "allow", Rule: "api.example.org/v1/**", Secret: "EXAMPLE_KEY", Version: 2, Placeholders: 1,
	}).appendTo)
	add(control.AuditEnd, func(b []byte) []byte {
		return (&Outcome{Status: 200, BytesUp: 512, BytesDown: 20480, Dial: 21 * time.Millisecond, Head: 310 * time.Millisecond,
			Duration: 1200 * time.Millisecond, Upstream: "192.0.2.10:443", Via: "proxy.example:3128", Masked: 1}).appendTo(b, 1042)
	})
	add(control.AuditRefused, (&Record{
		Session: session, Agent: "my-agent", Method: "GET", Scheme: "https", Authority: "evil.example.net:443", Path: "/\x1b[2J",
		Fields: protocol.Fields{{Name: "user-agent", Value: "curl/8.5"}}, Dialled: "100.64.0.9:443", Verdict: "deny", List: "default", Reason: "denied",
	}).appendTo)
	add(control.AuditEnd, func(b []byte) []byte { return (&Outcome{interrupted: true}).appendTo(b, 1012) })
	add(control.AuditEvent, (&Record{Event: "secret_set", Agent: "my-agent", Secret: "EXAMPLE_KEY", Version: 3, Commit: 17, Manifest: strings.Repeat("3a", 32)}).appendTo)
	return lines
}

// stable is a line without what differs from run to run: ML-DSA's signatures are randomised, and so the hash of what
// follows one. The page shows the beginnings of signatures.
func stable(line string) string {
	line = regexp.MustCompile(`"(ed25519|mldsa65)":"[^"]*"`).ReplaceAllString(line, `"$1":"…"`)
	return regexp.MustCompile(`"prev":"[0-9a-f]{64}"`).ReplaceAllString(line, `"prev":"…"`)
}

// The page shows every type of record as it is written, every member and every event.
func TestDocsAudit(t *testing.T) {
	raw, err := os.ReadFile(page)
	must(t, err)
	text := string(raw)
	blocks := regexp.MustCompile("(?s)```audit\n(.*?)\n```").FindAllStringSubmatch(text, -1)
	all := examples()
	if len(blocks) != len(all) {
		t.Fatalf("%d examples, want %d", len(blocks), len(all))
	}
	seen := map[string]bool{}
	for i, line := range all {
		if got, want := stable(blocks[i][1]), stable(line); got != want {
			t.Errorf("example %d is\n%s\nwant\n%s", i+1, got, want)
		}
		r, err := Decode([]byte(line))
		must(t, err)
		seen[r.Type] = true
	}
	for _, kind := range types {
		if !seen[kind] {
			t.Errorf("no example of type %s", kind)
		}
	}
	for _, m := range members {
		if !strings.Contains(text, "| `"+m.name+"` |") {
			t.Errorf("member %s is not described", m.name)
		}
	}
	for _, event := range []string{EventClockSetBack, EventAuditDeleted, EventSuppressed} {
		if !strings.Contains(text, "| `"+event+"` |") {
			t.Errorf("event %s is not described", event)
		}
	}
	if strings.Contains(strings.Join(all, ""), "kept from the audit") {
		t.Error("a value is shown that should not be")
	}
}
