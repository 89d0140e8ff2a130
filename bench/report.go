package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"text/tabwriter"
)

// A goal is one line of the table. Limits of zero do not count; those on ratios hold for the median of
// the rounds' ratios.
type goal struct {
	key, name, unit string
	divide          float64 // what values are divided by before they are shown; 0: 1
	must, aim       limits
}

// limits bound a figure.
type limits struct {
	nginx, proxy float64 // at most so many times that of the yardstick
	most, least  float64 // in the goal's unit
}

var goals = []goal{
	{key: keySmall32, name: "CPU per small request, 32 connections", unit: "µs", must: limits{nginx: 2, proxy: 0.9}, aim: limits{nginx: 1.5, proxy: 0.65}},
	{key: keySmall1, name: "CPU per small request, 1 connection", unit: "µs", must: limits{proxy: 1}, aim: limits{proxy: 0.8}},
	{key: keyAdded, name: "added to the median time, 1 connection", unit: "µs", must: limits{nginx: 1.75}, aim: limits{nginx: 1.3}},
	{key: keyConnect, name: "CPU per new connection", unit: "µs", must: limits{nginx: 1.15}, aim: limits{nginx: 0.95}},
	{key: keyDown, name: "CPU per GB down", unit: "s", divide: 1e6, must: limits{nginx: 1.6}, aim: limits{nginx: 1.35}},
	{key: keyUp, name: "CPU per GB up", unit: "s", divide: 1e6, must: limits{nginx: 1.3}, aim: limits{nginx: 1.05}},
	{key: keySigned, name: "upload in chunks that are signed anew", unit: "% of one that is not", must: limits{least: 80}, aim: limits{least: 90}},
	{key: keyEvents, name: "added to an event's median time", unit: "µs", must: limits{nginx: 2.5}, aim: limits{nginx: 1.7}},
	{key: keyJoined, name: "events that came together with another", unit: "%", must: limits{most: 5}, aim: limits{most: 1}},
	{key: keyMemory, name: "memory after load", unit: "MiB", divide: 1 << 10, must: limits{most: 40}, aim: limits{most: 28}},
	{key: keyIdle, name: "memory per idle connection", unit: "KiB", must: limits{most: 40}, aim: limits{most: 20}},
}

var auditGoal = goal{key: "audit_share", name: "audit's share of the CPU", unit: "%", must: limits{most: 25}, aim: limits{most: 10}}

// A row is one line of the report. What was not measured is not a number, and left out of JSON.
type row struct {
	Key     string               `json:"key"`
	Name    string               `json:"name"`
	Unit    string               `json:"unit"`
	Values  map[string]float64   `json:"values"` // medians by subject, in Unit
	Rounds  map[string][]float64 `json:"rounds,omitempty"`
	ToNginx *float64             `json:"ratio_to_nginx,omitempty"`
	ToProxy *float64             `json:"ratio_to_reverse_proxy,omitempty"`
	Must    string               `json:"must,omitempty"`
	Aim     string               `json:"aim,omitempty"`
	Verdict string               `json:"verdict"`
	Missing string               `json:"missing,omitempty"` // why there is no value
}

// A report is all that was measured.
type report struct {
	Rows    []row            `json:"rows"`
	Idle    map[string]int64 `json:"idle_connections"`
	Seconds float64          `json:"seconds"`
	Load    string           `json:"load_average_before"` // of /proc/loadavg: who else used the machine
	Machine string           `json:"machine"`
}

func newReport(m *meter) *report {
	r := &report{Idle: m.idled}
	for _, g := range goals {
		if m.only != "" && m.figures[g.key] == nil {
			continue
		}
		r.Rows = append(r.Rows, compare(g, m.figures[g.key]))
	}
	return r
}

// compare makes the row of a figure that was taken of all subjects.
func compare(g goal, rounds map[string][]float64) row {
	divide := g.divide
	if divide == 0 {
		divide = 1
	}
	w := row{Key: g.key, Name: g.name, Unit: g.unit, Values: map[string]float64{}, Rounds: map[string][]float64{}, Must: g.must.String(), Aim: g.aim.String()}
	for name, values := range rounds {
		for _, v := range values {
			w.Rounds[name] = append(w.Rounds[name], v/divide)
		}
		if v := median(w.Rounds[name]); !math.IsNaN(v) {
			w.Values[name] = v
		}
	}
	w.ToNginx = number(median(ratios(rounds[nameTorno], rounds[nameNginx])))
	w.ToProxy = number(median(ratios(rounds[nameTorno], rounds[nameProxy])))
	w.judge(g)
	return w
}

// number returns nil for what is not one.
func number(v float64) *float64 {
	if math.IsNaN(v) {
		return nil
	}
	return &v
}

// single adds the row of a figure that is torno's alone.
func (r *report) single(g goal, value float64, err error) {
	w := row{Key: g.key, Name: g.name, Unit: g.unit, Values: map[string]float64{}, Must: g.must.String(), Aim: g.aim.String()}
	if err != nil {
		w.Missing = err.Error()
	} else if !math.IsNaN(value) {
		w.Values[nameTorno] = value
	}
	w.judge(g)
	r.Rows = append(r.Rows, w)
}

// judge says which limits w holds.
func (w *row) judge(g goal) {
	switch {
	case g.must == limits{}:
		w.Verdict = ""
	case !g.must.measured(w):
		w.Verdict = "not measured"
	case g.aim.held(w):
		w.Verdict = "aim"
	case g.must.held(w):
		w.Verdict = "ok"
	default:
		w.Verdict = "MISS"
	}
}

// measured reports whether there is a value for each limit.
func (l limits) measured(w *row) bool {
	_, ok := w.Values[nameTorno]
	return ok && (l.nginx == 0 || w.ToNginx != nil) && (l.proxy == 0 || w.ToProxy != nil)
}

// held reports whether w is within each limit.
func (l limits) held(w *row) bool {
	v := w.Values[nameTorno]
	return (l.nginx == 0 || *w.ToNginx <= l.nginx) && (l.proxy == 0 || *w.ToProxy <= l.proxy) &&
		(l.most == 0 || v <= l.most) && (l.least == 0 || v >= l.least)
}

func (l limits) String() string {
	var all []string
	for _, p := range []struct {
		limit  float64
		format string
	}{{l.nginx, "≤ %g × nginx"}, {l.proxy, "≤ %g × RP"}, {l.most, "≤ %g"}, {l.least, "≥ %g"}} {
		if p.limit != 0 {
			all = append(all, fmt.Sprintf(p.format, p.limit))
		}
	}
	return strings.Join(all, ", ")
}

// notes explain the table.
const notes = `
CPU is user and system time of all of a subject's processes, /proc/PID/stat: nginx's master and workers; the
broker, the guest and what stands between torno run and the guest, without the load generator. Policy, audit
and scrubbing are on. Ratios are medians of the ratios of one round; the other columns are the machine's.
RP is httputil.ReverseProxy with 256 idle connections and Go's own settings; docs/decisions/0009 says which of them torno changes. Added times are over the upstream itself, measured in
turns; inside a session the load generator pays for its system call filter and network namespace, which counts
as torno's time. Memory is PSS: broker and guest. Idle connections: %d of nginx, %d of RP, %d of torno, on fresh processes.
Uploads that are signed anew (AWS Signature Version 4, chunks of 64 KiB) take turns with ones of the same bytes that are not.
The audit's share is that of its stacks in CPU profiles of broker and guest under 32 connections (samples
below package audit, hashing and writing included, of all samples of both). Scrubbing is go test -bench of
package redact on one core, by CPU time, with all windows of 40 secrets; signing is that of package sign, by CPU time, too. A proof searches for all windows of 50; its time is
the processor's, with all pages present. The vsock device serves a driver in the same process, without a VM.
`

func (r *report) write(to io.Writer) {
	tw := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\tnginx\tRP\ttorno\t\t× nginx\t× RP\tmust\taim\t")
	for _, w := range r.Rows {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", w.Name,
			w.value(nameNginx), w.value(nameProxy), w.value(nameTorno), w.Unit, ratio(w.ToNginx), ratio(w.ToProxy), w.Must, w.Aim, w.Verdict)
	}
	_ = tw.Flush()
	fmt.Fprintf(to, notes, r.Idle[nameNginx], r.Idle[nameProxy], r.Idle[nameTorno])
	last := ""
	for _, w := range r.Rows {
		if w.Missing != "" && w.Missing != last {
			fmt.Fprintf(to, "%s: %s\n", w.Name, w.Missing)
		}
		last = w.Missing
	}
	fmt.Fprintf(to, "%s. %.0f s in all; load average before: %s.\n", r.Machine, r.Seconds, r.Load)
}

func (w *row) value(name string) string {
	v, ok := w.Values[name]
	switch {
	case !ok:
		return "-"
	case math.Abs(v) < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func ratio(v *float64) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.2f", *v)
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
