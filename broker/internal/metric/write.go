package metric

import (
	"bytes"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ContentType is the type of what Write writes.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// Gauges are what holds at the moment of writing.
type Gauges struct {
	Version  string
	Sessions map[string]int // by agent
	Streams  int
	Waiting  int // requests that wait for a person
	Process  Process
}

// Process is what the operating system says of the broker's process.
type Process struct {
	Started    time.Time
	Resident   int64 // bytes
	Open       int   // descriptors
	CPU        time.Duration
	Goroutines int
	HeapLive   int64 // bytes of Go's heap that were in use at the last collection
}

// Write returns all metrics.
func (m *Metrics) Write(g *Gauges) []byte {
	p := &page{}
	p.family("torno_build_info", "gauge", "The version that runs; always 1.")
	p.sample("torno_build_info", 1, "version", g.Version)
	p.family("torno_sessions", "gauge", "Sessions that are live.")
	for _, name := range slices.Sorted(maps.Keys(g.Sessions)) {
		p.sample("torno_sessions", float64(g.Sessions[name]), "agent", name)
	}
	p.single("torno_streams", "gauge", "Streams of guests that are open.", float64(g.Streams))
	p.single("torno_approvals_waiting", "gauge", "Requests that wait for a person.", float64(g.Waiting))
	m.write(p)
	p.single("process_start_time_seconds", "gauge", "When the process started, in seconds since 1970.", float64(g.Process.Started.UnixMilli())/1000)
	p.single("process_resident_memory_bytes", "gauge", "Memory of the process.", float64(g.Process.Resident))
	p.single("process_open_fds", "gauge", "Descriptors that are open.", float64(g.Process.Open))
	p.single("process_cpu_seconds_total", "counter", "Processor time of the process.", g.Process.CPU.Seconds())
	p.single("go_goroutines", "gauge", "Goroutines.", float64(g.Process.Goroutines))
	p.single("go_gc_heap_live_bytes", "gauge", "Memory of the heap that was in use at the last garbage collection.", float64(g.Process.HeapLive))
	return p.Bytes()
}

// perAgent are the counters of an Agent.
var perAgent = []struct {
	name, help string
	labels     []string // besides agent
	value      func(*Agent) uint64
}{
	{"torno_exchanges_total", "Exchanges that have ended: answered by the upstream, refused before it was asked, or failed after.", []string{"result", "answered"}, func(a *Agent) uint64 { return a.Answered.Load() }},
	{"torno_exchanges_total", "", []string{"result", "refused"}, func(a *Agent) uint64 { return a.Refused.Load() }},
	{"torno_exchanges_total", "", []string{"result", "failed"}, func(a *Agent) uint64 { return a.Failed.Load() }},
	{"torno_content_bytes_total", "Bytes of content, up to upstreams and down from them.", []string{"direction", "up"}, func(a *Agent) uint64 { return a.Up.Load() }},
	{"torno_content_bytes_total", "", []string{"direction", "down"}, func(a *Agent) uint64 { return a.Down.Load() }},
	{"torno_masked_runs_total", "Runs of secrets that were masked in answers.", nil, func(a *Agent) uint64 { return a.Masked.Load() }},
}

func (m *Metrics) write(p *page) {
	m.mu.Lock()
	defer m.mu.Unlock()
	agents := slices.Sorted(maps.Keys(m.agents))
	for _, c := range perAgent {
		if c.help != "" {
			p.family(c.name, "counter", c.help)
		}
		for _, name := range agents {
			p.sample(c.name, float64(c.value(m.agents[name])), append([]string{"agent", name}, c.labels...)...)
		}
	}
	p.counters("torno_reasons_total", "Exchanges that were refused or failed, by reason.", "reason", m.reasons)
	p.counters("torno_approvals_total", "Requests that a person was asked about, by what came of it.", "outcome", m.asked)
	p.histogram("torno_exchange_duration_seconds", "How long exchanges took that were answered.", &m.Duration)
	p.histogram("torno_response_head_seconds", "How long it took until their responses' heads were there.", &m.Head)
}

// A page is text in the making.
type page struct{ bytes.Buffer }

func (p *page) family(name, kind, help string) {
	p.WriteString("# HELP " + name + " " + help + "\n# TYPE " + name + " " + kind + "\n")
}

// escape escapes a label's value.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// sample writes one line; labels are names and values in turn.
func (p *page) sample(name string, value float64, labels ...string) {
	p.WriteString(name)
	for i := 0; i+1 < len(labels); i += 2 {
		before := byte(',')
		if i == 0 {
			before = '{'
		}
		p.WriteByte(before)
		p.WriteString(labels[i] + `="` + escape.Replace(strings.ToValidUTF8(labels[i+1], "?")) + `"`)
	}
	if len(labels) > 0 {
		p.WriteByte('}')
	}
	p.WriteString(" " + strconv.FormatFloat(value, 'g', -1, 64) + "\n")
}

func (p *page) single(name, kind, help string, value float64) {
	p.family(name, kind, help)
	p.sample(name, value)
}

func (p *page) counters(name, help, label string, values map[string]uint64) {
	p.family(name, "counter", help)
	for _, key := range slices.Sorted(maps.Keys(values)) {
		p.sample(name, float64(values[key]), label, key)
	}
}

func (p *page) histogram(name, help string, h *Histogram) {
	p.family(name, "histogram", help)
	total := uint64(0)
	for i := range h.buckets {
		total += h.buckets[i].Load()
		le := "+Inf"
		if i < len(bounds) {
			le = strconv.FormatFloat(bounds[i].Seconds(), 'g', -1, 64)
		}
		p.sample(name+"_bucket", float64(total), "le", le)
	}
	p.sample(name+"_sum", time.Duration(h.sum.Load()).Seconds())
	p.sample(name+"_count", float64(total))
}
