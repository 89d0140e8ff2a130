package cli

import (
	"io"
	"strings"
	"testing"
	"time"
)

func TestTimings(t *testing.T) {
	began := time.Now()
	tm := &timings{began: began}
	tm.over("broker")
	tm.over(phaseSandbox)
	for _, piece := range []string{"[    0.3] PCI: Fatal\r\ntorno-guest: pha", "se over: init\r", "\ntorno-guest: phase over: hello\n" +
		"torno-guest: phase over: workload\ntorno-guest: phase over: after\n"} {
		if n, err := io.WriteString(tm, piece); n != len(piece) || err != nil {
			t.Fatalf("Write: %d, %v", n, err)
		}
	}
	for i := range tm.phases {
		tm.phases[i].at = began.Add(time.Duration(i+1) * 100 * time.Millisecond)
	}
	var b strings.Builder
	if err := tm.print(&b); err != nil {
		t.Fatal(err)
	}
	const want = `PHASE     TOOK      AT
broker    100.0 ms  100.0 ms
sandbox   100.0 ms  200.0 ms
init      100.0 ms  300.0 ms
hello     100.0 ms  400.0 ms
workload  100.0 ms  500.0 ms
first instruction after 500.0 ms: 100.0 ms from sandbox to init, 400.0 ms ours
`
	if b.String() != want {
		t.Errorf("got:\n%swant:\n%s", &b, want)
	}
	var none *timings
	none.over("nobody asked")
}

// A guest that says too much is not remembered.
func TestTimingsBounded(t *testing.T) {
	tm := &timings{}
	for range 1000 {
		if _, err := io.WriteString(tm, strings.Repeat("x", 1000)+phasePrefix+strings.Repeat("y", 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(tm, strings.Repeat("\n"+phasePrefix+"z\n", 1000)); err != nil {
		t.Fatal(err)
	}
	if len(tm.phases) != maxPhases || len(tm.line) > 1000 {
		t.Errorf("%d phases and %d bytes are kept; want %d and few", len(tm.phases), len(tm.line), maxPhases)
	}
}
