package soak

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
)

// A Row is one figure and what is promised of it.
type Row struct {
	Part    string   `json:"part"`
	Name    string   `json:"name"`
	Value   float64  `json:"value"`
	Unit    string   `json:"unit,omitempty"`
	Must    *float64 `json:"must,omitempty"` // at most; nil: the figure is told, not judged
	Aim     *float64 `json:"aim,omitempty"`  // at most; what is better than promised
	Verdict string   `json:"verdict,omitempty"`
	Note    string   `json:"note,omitempty"`
}

// The verdicts of a Row.
const (
	verdictAim  = "PASS, aim"
	verdictPass = "PASS"
	verdictMiss = "MISS"
)

// A Report is all that was found.
type Report struct {
	Rows    []Row   `json:"rows"`
	Seconds float64 `json:"seconds"`
	Machine string  `json:"machine"`
	Load    string  `json:"load_average_before"` // of /proc/loadavg: who else used the machine
}

// A bound is what a figure is held to.
type bound struct{ must, aim float64 }

// none is a bound of nothing at all: of what was lost, or went wrong.
var none = bound{0, 0}

// judge adds a figure that must be at most b.must.
func (r *Report) judge(part, name string, value float64, unit string, b bound, note string) {
	row := Row{Part: part, Name: name, Value: value, Unit: unit, Must: &b.must, Aim: &b.aim, Note: note}
	switch {
	case math.IsNaN(value) || value > b.must:
		row.Verdict = verdictMiss
	case value <= b.aim:
		row.Verdict = verdictAim
	default:
		row.Verdict = verdictPass
	}
	r.Rows = append(r.Rows, row)
}

// tell adds a figure that nothing is promised of.
func (r *Report) tell(part, name string, value float64, unit, note string) {
	r.Rows = append(r.Rows, Row{Part: part, Name: name, Value: value, Unit: unit, Note: note})
}

// Misses counts the figures that are not as promised.
func (r *Report) Misses() int {
	n := 0
	for i := range r.Rows {
		if r.Rows[i].Verdict == verdictMiss {
			n++
		}
	}
	return n
}

// Write prints the table for people.
func (r *Report) Write(to io.Writer) {
	tw := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "part\tfigure\t\t\tmust\taim\t\t")
	for i := range r.Rows {
		row := &r.Rows[i]
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", row.Part, row.Name, number(row.Value), row.Unit, limit(row.Must), limit(row.Aim), row.Verdict, row.Note)
	}
	_ = tw.Flush()
	fmt.Fprintf(to, "%s. %.0f s in all; load average before: %s.\n", r.Machine, r.Seconds, r.Load)
}

func number(v float64) string {
	switch a := math.Abs(v); {
	case v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	case a < 10:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func limit(v *float64) string {
	if v == nil {
		return ""
	}
	return "≤ " + number(*v)
}

// WriteJSON writes the report to a file.
func (r *Report) WriteJSON(path string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}
