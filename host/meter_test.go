package main_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// A meter is a session in namespaces that does no harm, and says how long its requests take.
type meter struct {
	*running
	answers int
}

func (h *house) startMeter() *meter {
	h.t.Helper()
	return &meter{running: h.startRun([]string{"--isolation", "namespace"}, `echo ready; exec python3 -c '
import http.client, ssl, sys, time
c = http.client.HTTPSConnection("files.example.org", context=ssl.create_default_context(), timeout=120)
for path in sys.stdin:
    times = []
    for i in range(200 if path == "/hello\n" else 1):
        began = time.monotonic(); c.request("GET", path.strip()); c.getresponse().read(); times.append(time.monotonic() - began)
    print("%.3f" % (1000 * sorted(times)[len(times) * 99 // 100]), flush=True)'`)}
}

// measure returns the 99th percentile of the time that a request for path takes, in milliseconds.
func (m *meter) measure(t *testing.T, path string) (ms float64) {
	t.Helper()
	if _, err := io.WriteString(m.stdin, path+"\n"); err != nil {
		t.Fatal(err)
	}
	m.answers++
	m.await(t, "measurement", func(out string) bool { return strings.Count(out, "\n") == 1+m.answers })
	if _, err := fmt.Sscan(lastLine(m.stdout.String()), &ms); err != nil {
		t.Fatal(err)
	}
	return ms
}

// quiet measures what there is without an attack, and that a slow request is seen.
func (m *meter) quiet(t *testing.T) float64 {
	t.Helper()
	m.measure(t, "/hello")
	if ms := m.measure(t, "/slow/1000"); ms < 1000 {
		t.Errorf("a request that takes a second took %v ms: nothing is measured", ms)
	}
	return m.measure(t, "/hello")
}

// end ends the session, which must have gone well.
func (m *meter) end(t *testing.T) {
	t.Helper()
	_ = m.stdin.Close()
	if err := m.Wait(); err != nil {
		t.Errorf("%v: %s", err, m.stderr)
	}
}
