package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// A goBench is a set of benchmarks of a package, on as many cores, and the rows that are made of them.
type goBench struct {
	what    string
	pkg     string
	pattern string
	cores   int
	time    string // of each, as -benchtime
	rows    []goRow
}

// A goRow is one row of benchmarks. Its goal's key is a benchmark's name and, behind a space, the unit of the figure.
type goRow struct {
	goal
	over string // key of a figure to divide by; empty: none
}

// Scrubbing's limits are for runs of 12 bytes: secrets whose runs are shorter, R = 8, are rare.
var goBenches = []goBench{
	{what: "scrubbing", pkg: "./broker/internal/redact", pattern: "BenchmarkScrub", cores: 1, time: "300ms", rows: []goRow{
		{goal: goal{key: "Scrub/R=12/json GB/cpu-s", name: "scrubbing, R = 12, JSON", unit: "GB/s", must: limits{least: 2.5}, aim: limits{least: 5}}},
		{goal: goal{key: "Scrub/R=12/random GB/cpu-s", name: "scrubbing, R = 12, random bytes", unit: "GB/s", must: limits{least: 2.5}, aim: limits{least: 5}}},
		{goal: goal{key: "Scrub/R=12/hostile GB/cpu-s", name: "scrubbing, R = 12, hostile text", unit: "GB/s", must: limits{least: 0.5}, aim: limits{least: 1}}},
		{goal: goal{key: "Scrub/R=12/escapes GB/cpu-s", name: "scrubbing, R = 12, nothing but escapes", unit: "GB/s", must: limits{least: 0.5}, aim: limits{least: 1}}},
		{goal: goal{key: "Scrub/R=8/json GB/cpu-s", name: "scrubbing, R = 8, JSON", unit: "GB/s"}},
		{goal: goal{key: "Scrub/R=8/random GB/cpu-s", name: "scrubbing, R = 8, random bytes", unit: "GB/s"}},
		{goal: goal{key: "Scrub/R=8/hostile GB/cpu-s", name: "scrubbing, R = 8, hostile text", unit: "GB/s"}},
		{goal: goal{key: "Scrub/R=8/escapes GB/cpu-s", name: "scrubbing, R = 8, nothing but escapes", unit: "GB/s"}},
	}},
	{what: "searching memory", pkg: "./broker/internal/proof", pattern: "BenchmarkSearch", cores: 1, time: "3x", rows: []goRow{
		{goal: goal{key: "Search/random cpu-s/GiB", name: "proof of 1 GiB of random bytes", unit: "s", must: limits{most: 1.5}}},
		{goal: goal{key: "Search/pointers cpu-s/GiB", name: "proof of 1 GiB of a program's heap", unit: "s", must: limits{most: 1.5}}},
		{goal: goal{key: "Search/text cpu-s/GiB", name: "proof of 1 GiB of text", unit: "s", must: limits{most: 1.5}}},
		{goal: goal{key: "Search/zero cpu-s/GiB", name: "proof of 1 GiB of zeros", unit: "s", must: limits{most: 1.5}}},
	}},
	{what: "signing", pkg: "./broker/internal/sign", pattern: "BenchmarkSigned$", cores: 1, time: "300ms", rows: []goRow{
		{goal: goal{key: "Signed/sigv4 cpu-ns/op", name: "signing a small request, SigV4", unit: "µs", divide: 1e3, must: limits{most: 15}}},
		{goal: goal{key: "Signed/sigv4a cpu-ns/op", name: "signing a small request, SigV4A", unit: "µs", divide: 1e3}},
		{goal: goal{key: "Signed/hmac cpu-ns/op", name: "signing a small request, HMAC in a field", unit: "µs", divide: 1e3, must: limits{most: 8}}},
		{goal: goal{key: "Signed/hmac_query cpu-ns/op", name: "signing a small request, HMAC in the query", unit: "µs", divide: 1e3, must: limits{most: 8}}},
		{goal: goal{key: "Signed/azure-storage cpu-ns/op", name: "signing a small request, Azure Storage", unit: "µs", divide: 1e3, must: limits{most: 8}}},
		{goal: goal{key: "Signed/rfc9421_hmac-sha256 cpu-ns/op", name: "signing a small request, RFC 9421, HMAC", unit: "µs", divide: 1e3, must: limits{most: 8}}},
		{goal: goal{key: "Signed/rfc9421_ed25519 cpu-ns/op", name: "signing a small request, RFC 9421, Ed25519", unit: "µs", divide: 1e3, must: limits{most: 40}}},
		{goal: goal{key: "Signed/jwt-request_HS256 cpu-ns/op", name: "signing a small request, JWT, HS256", unit: "µs", divide: 1e3}},
	}},
	{what: "access tokens", pkg: "./broker/internal/mint", pattern: "BenchmarkCached$", cores: 1, time: "300ms", rows: []goRow{
		{goal: goal{key: "Cached ns/op", name: "a token that is there", unit: "µs", divide: 1e3, must: limits{most: 1}}},
	}},
	{what: "the store of a fleet, 1,000 agents with 50 secrets each", pkg: "./broker/internal/store", pattern: "BenchmarkFleet", cores: 2, time: "10x", rows: []goRow{
		{goal: goal{key: "Fleet/open cpu-ms/op", name: "store of 50,000 secrets: opening", unit: "ms", must: limits{most: 200}, aim: limits{most: 60}}},
		{goal: goal{key: "Fleet/first cpu-ms/op", name: "  listing all for the first time", unit: "ms", must: limits{most: 300}}},
		{goal: goal{key: "Fleet/all cpu-ms/op", name: "  listing all", unit: "ms", must: limits{most: 50}, aim: limits{most: 20}}},
		{goal: goal{key: "Fleet/one cpu-ms/op", name: "  listing one agent", unit: "ms", must: limits{most: 5}, aim: limits{most: 0.5}}},
		{goal: goal{key: "Fleet/verify cpu-ms/op", name: "  verifying every entry", unit: "ms", must: limits{most: 1000}}},
	}},
	{what: "sessions of a fleet", pkg: "./broker", pattern: "BenchmarkFleetSession", cores: 2, time: "100x", rows: []goRow{
		{goal: goal{key: "FleetSession cpu-ms/op", name: "session start, 16 declared secrets", unit: "ms", must: limits{most: 5}, aim: limits{most: 3}}},
	}},
	{what: "the audit of a broker that was killed", pkg: "./broker/internal/audit", pattern: "BenchmarkRecover$", cores: 2, time: "5x", rows: []goRow{
		{goal: goal{key: "Recover cpu-ms/op", name: "taking up a full segment of the audit", unit: "ms", must: limits{most: 300}}},
	}},
	{what: "the vsock device", pkg: "./host/internal/vhostvsock", pattern: "Benchmark(Connect|RoundTrip|ToHost|ToGuest)$", cores: 2, time: "500ms", rows: []goRow{
		{goal: goal{key: "Connect/vsock ns/op", name: "vsock: connecting", unit: "µs", divide: 1e3}},
		{goal: goal{key: "Connect/vsock ns/op", name: "  of that of a Unix socket", unit: "×"}, over: "Connect/unix ns/op"},
		{goal: goal{key: "RoundTrip/vsock ns/op", name: "vsock: a byte there and back", unit: "µs", divide: 1e3}},
		{goal: goal{key: "RoundTrip/vsock ns/op", name: "  of that of a Unix socket", unit: "×"}, over: "RoundTrip/unix ns/op"},
		{goal: goal{key: "ToHost/vsock MB/s", name: "vsock: to the host", unit: "MB/s"}},
		{goal: goal{key: "ToHost/vsock MB/s", name: "  of that of a Unix socket", unit: "×"}, over: "ToHost/unix MB/s"},
		{goal: goal{key: "ToGuest/vsock MB/s", name: "vsock: to the guest", unit: "MB/s"}},
		{goal: goal{key: "ToGuest/vsock MB/s", name: "  of that of a Unix socket", unit: "×"}, over: "ToGuest/unix MB/s"},
	}},
}

// run runs the benchmarks and returns their figures.
func (g *goBench) run(ctx context.Context) (map[string]float64, error) {
	fmt.Fprintln(os.Stderr, g.what)
	test := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", g.pattern, "-benchtime", g.time, "-cpu", strconv.Itoa(g.cores), g.pkg)
	out, err := test.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of %s: %w: %s", g.pkg, err, bytes.TrimSpace(out))
	}
	return parseFigures(string(out)), nil
}

var figureLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s+\d+((?:\s+[\d.e+-]+ \S+)+)`)

// parseFigures reads the output of go test -bench: by a benchmark's name, a space and the figure's unit.
func parseFigures(out string) map[string]float64 {
	figures := map[string]float64{}
	for _, m := range figureLine.FindAllStringSubmatch(out, -1) {
		words := strings.Fields(m[2])
		for i := 0; i+1 < len(words); i += 2 {
			if v, err := strconv.ParseFloat(words[i], 64); err == nil {
				figures[m[1]+" "+words[i+1]] = v
			}
		}
	}
	return figures
}

// addFigures adds the rows of a set of benchmarks, whose figures could not be had if err is not nil.
func (r *report) addFigures(rows []goRow, figures map[string]float64, err error) {
	for _, row := range rows {
		value, ok := figures[row.key]
		if row.divide != 0 {
			value /= row.divide
		}
		key := row.key
		if row.over != "" {
			var there bool
			if value, there = value/figures[row.over], figures[row.over] != 0; !there {
				ok = false
			}
			row.key += " / " + row.over
		}
		missing := err
		if missing == nil && !ok {
			missing = fmt.Errorf("no benchmark %s", key)
		}
		r.single(row.goal, value, missing)
	}
}
