package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestVerdict(t *testing.T) {
	both := goal{must: limits{nginx: 2, proxy: 0.9}, aim: limits{nginx: 1.5, proxy: 0.65}}
	most := goal{must: limits{most: 40}, aim: limits{most: 28}}
	least := goal{must: limits{least: 2.5}, aim: limits{least: 5}}
	rounds := func(nginx, proxy, torno float64) map[string][]float64 {
		return map[string][]float64{nameNginx: {nginx}, nameProxy: {proxy}, nameTorno: {torno}}
	}
	for _, tt := range []struct {
		name   string
		g      goal
		rounds map[string][]float64
		want   string
	}{
		{"aim", both, rounds(10, 100, 15), "aim"},
		{"one aim missed", both, rounds(10, 20, 15), "ok"},
		{"at the limit", both, rounds(10, 100, 20), "ok"},
		{"over nginx", both, rounds(10, 100, 20.1), "MISS"},
		{"over proxy", both, rounds(10, 20, 18.1), "MISS"},
		{"no ratio", both, rounds(0, 20, 18), "not measured"},
		{"nothing", both, nil, "not measured"},
		{"most, aim", most, rounds(1, 1, 28), "aim"},
		{"most", most, rounds(1, 1, 40), "ok"},
		{"too much", most, rounds(1, 1, 41), "MISS"},
		{"least", least, rounds(1, 1, 2.5), "ok"},
		{"too little", least, rounds(1, 1, 2.4), "MISS"},
		{"no limits", goal{}, rounds(1, 1, 1), ""},
	} {
		if w := compare(tt.g, tt.rounds); w.Verdict != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, w.Verdict, tt.want)
		}
	}
}

// Ratios are of rounds, not of medians, and are what units divide out of.
func TestCompare(t *testing.T) {
	w := compare(goal{divide: 1e6}, map[string][]float64{
		nameNginx: {1e6, 10e6, 3e6}, nameProxy: {1e6, 1e6, -1}, nameTorno: {2e6, 30e6, 3e6},
	})
	if diff := cmp.Diff(map[string]float64{nameNginx: 3, nameProxy: 1, nameTorno: 3}, w.Values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if w.ToNginx == nil || *w.ToNginx != 2 || w.ToProxy == nil || *w.ToProxy != 16 {
		t.Errorf("ratios %v and %v, want 2 and 16", w.ToNginx, w.ToProxy)
	}
}

// A report with holes is still one, and JSON.
func TestReport(t *testing.T) {
	m := &meter{figures: figures{}, idled: map[string]int64{nameTorno: 7}}
	for _, name := range []string{nameNginx, nameProxy, nameTorno} {
		m.figures.add(keySmall32, &subject{target: target{Name: name}}, 12.5)
	}
	r := newReport(m)
	r.single(auditGoal, math.NaN(), errors.New("no profile"))
	var text bytes.Buffer
	r.write(&text)
	for _, want := range []string{"CPU per small request, 32 connections", "1.00", "no profile", "not measured", "7 of torno"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in\n%s", want, &text)
		}
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := r.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var back report
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(*r, back, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestParseSamples(t *testing.T) {
	focused, all, err := parseSamples("File: torno\nType: cpu\nDuration: 2.50s, Total samples = 920ms (36.78%)\nActive filters:\n   focus=audit\nShowing nodes accounting for 160ms, 17.39% of 920ms total\n      flat  flat%")
	if err != nil || focused != 160*time.Millisecond || all != 920*time.Millisecond {
		t.Errorf("%v of %v, %v", focused, all, err)
	}
	focused, all, err = parseSamples("Showing nodes accounting for 0, 0% of 1234.50ms total")
	if err != nil || focused != 0 || all != 1234500*time.Microsecond {
		t.Errorf("%v of %v, %v", focused, all, err)
	}
	if _, _, err := parseSamples("no profile"); err == nil {
		t.Error("nothing was read as samples")
	}
}

func TestGoBenches(t *testing.T) {
	figures := parseFigures(`goos: linux
BenchmarkScrub/R=12/json-2         	     426	    583685 ns/op	1796.47 MB/s	         3.196 GB/cpu-s
BenchmarkSearch/zero               	       3	  15455209 ns/op	17368.61 MB/s	         0.06182 cpu-s/GiB
BenchmarkConnect/unix-2            	   11866	     20000 ns/op
BenchmarkConnect/vsock-2           	    4731	     60000 ns/op
PASS
`)
	want := map[string]float64{
		"Scrub/R=12/json ns/op": 583685, "Scrub/R=12/json MB/s": 1796.47, "Scrub/R=12/json GB/cpu-s": 3.196,
		"Search/zero ns/op": 15455209, "Search/zero MB/s": 17368.61, "Search/zero cpu-s/GiB": 0.06182,
		"Connect/unix ns/op": 20000, "Connect/vsock ns/op": 60000,
	}
	if diff := cmp.Diff(want, figures, cmpopts.EquateApprox(0, 1e-9)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	var r report
	for _, g := range goBenches {
		r.addFigures(g.rows, figures, nil)
	}
	keys := map[string]bool{}
	for _, w := range r.Rows {
		if keys[w.Key] = true; w.Missing != "" {
			continue
		}
		want, ok := map[string]float64{
			"Scrub/R=12/json GB/cpu-s": 3.196, "Search/zero cpu-s/GiB": 0.06182, "Connect/vsock ns/op": 60,
			"Connect/vsock ns/op / Connect/unix ns/op": 3,
		}[w.Key]
		if got := w.Values[nameTorno]; !ok || got < want*0.999 || got > want*1.001 {
			t.Errorf("%s: %v, want %v", w.Key, got, want)
		}
	}
	if len(keys) != len(r.Rows) {
		t.Errorf("%d rows have %d keys", len(r.Rows), len(keys))
	}
}
