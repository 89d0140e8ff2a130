package metric

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// parse reads the page as Prometheus does.
func parse(t *testing.T, b []byte) map[string]*dto.MetricFamily {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(b))
	if err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return families
}

// value returns the sample of a family whose labels have all of these values.
func value(t *testing.T, families map[string]*dto.MetricFamily, name string, labels ...string) float64 {
	t.Helper()
	for _, m := range families[name].GetMetric() {
		got := map[string]bool{}
		for _, l := range m.GetLabel() {
			got[l.GetValue()] = true
		}
		fits := true
		for _, l := range labels {
			fits = fits && got[l]
		}
		if fits {
			return m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	t.Errorf("no sample of %s with %q", name, labels)
	return math.NaN()
}

func TestWrite(t *testing.T) {
	var m Metrics
	m.Agent("a").Answered.Add(7)
	m.Agent("b").Down.Add(1 << 40)
	m.Agent("a").Refused.Add(2)
	m.Reason("denied")
	m.Reason("denied")
	m.Asked("allowed")
	m.Duration.Observe(3 * time.Millisecond)
	m.Duration.Observe(time.Hour)
	f := parse(t, m.Write(&Gauges{
		Version: "v1 \"quoted\" \\ \n", Sessions: map[string]int{"a": 3}, Streams: 5, Waiting: 1,
		Process: Process{Started: time.UnixMilli(1_700_000_000_500), Resident: 1 << 30, Open: 12, CPU: 1500 * time.Millisecond, Goroutines: 40, HeapLive: 1 << 21},
	}))
	for _, tt := range []struct {
		name   string
		labels []string
		want   float64
	}{
		{"torno_exchanges_total", []string{"a", "answered"}, 7}, {"torno_exchanges_total", []string{"a", "refused"}, 2},
		{"torno_exchanges_total", []string{"b", "failed"}, 0}, {"torno_content_bytes_total", []string{"b", "down"}, 1 << 40},
		{"torno_reasons_total", []string{"denied"}, 2}, {"torno_approvals_total", []string{"allowed"}, 1}, {"torno_sessions", []string{"a"}, 3},
		{"torno_build_info", []string{"v1 \"quoted\" \\ \n"}, 1}, {"torno_streams", nil, 5}, {"torno_approvals_waiting", nil, 1},
		{"process_start_time_seconds", nil, 1_700_000_000.5}, {"process_cpu_seconds_total", nil, 1.5}, {"process_open_fds", nil, 12}, {"go_gc_heap_live_bytes", nil, 1 << 21},
	} {
		if got := value(t, f, tt.name, tt.labels...); got != tt.want {
			t.Errorf("%s %q: %v, want %v", tt.name, tt.labels, got, tt.want)
		}
	}
	h := f["torno_exchange_duration_seconds"].GetMetric()[0].GetHistogram()
	if h.GetSampleCount() != 2 || h.GetSampleSum() != 3600.003 || len(h.GetBucket()) != len(bounds)+1 {
		t.Errorf("histogram: %v", h)
	}
	for _, b := range h.GetBucket() {
		want := uint64(0)
		switch le := b.GetUpperBound(); {
		case math.IsInf(le, 1):
			want = 2
		case le >= 0.005:
			want = 1
		}
		if b.GetCumulativeCount() != want {
			t.Errorf("up to %v s: %d, want %d", b.GetUpperBound(), b.GetCumulativeCount(), want)
		}
	}
}

// However many agents there are, the page is bounded.
func TestAgentsAreBounded(t *testing.T) {
	var m Metrics
	for i := range 3 * MaxAgents {
		m.Agent(fmt.Sprintf("agent-%d", i)).Answered.Add(1)
	}
	page := m.Write(&Gauges{})
	f := parse(t, page)
	if got := value(t, f, "torno_exchanges_total", others, "answered"); got != 2*MaxAgents {
		t.Errorf("%v of the others", got)
	}
	if n := len(f["torno_exchanges_total"].GetMetric()); n != 3*(MaxAgents+1) || len(page) > 1<<20 {
		t.Errorf("%d samples, %d bytes", n, len(page))
	}
}

// TestPage wants every metric in docs/metrics.md.
func TestPage(t *testing.T) {
	page, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var m Metrics
	for name := range parse(t, m.Write(&Gauges{})) {
		if !bytes.Contains(page, []byte("`"+name+"`")) {
			t.Errorf("docs/metrics.md lacks %s", name)
		}
	}
}
