package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
)

// scrubGoals are what the benchmarks of package redact must reach. Secrets whose runs are shorter, R = 8, are rare.
var scrubGoals = []goal{
	{key: "Scrub/R=12/json", name: "scrubbing, R = 12, JSON", unit: "GB/s", must: limits{least: 2.5}, aim: limits{least: 5}},
	{key: "Scrub/R=12/random", name: "scrubbing, R = 12, random bytes", unit: "GB/s", must: limits{least: 2.5}, aim: limits{least: 5}},
	{key: "Scrub/R=12/hostile", name: "scrubbing, R = 12, hostile text", unit: "GB/s", must: limits{least: 0.5}, aim: limits{least: 1}},
	{key: "Scrub/R=12/escapes", name: "scrubbing, R = 12, nothing but escapes", unit: "GB/s", must: limits{least: 0.5}, aim: limits{least: 1}},
	{key: "Scrub/R=8/json", name: "scrubbing, R = 8, JSON", unit: "GB/s"},
	{key: "Scrub/R=8/random", name: "scrubbing, R = 8, random bytes", unit: "GB/s"},
	{key: "Scrub/R=8/hostile", name: "scrubbing, R = 8, hostile text", unit: "GB/s"},
	{key: "Scrub/R=8/escapes", name: "scrubbing, R = 8, nothing but escapes", unit: "GB/s"},
}

// scrubSpeeds runs the benchmarks of package redact on one core and returns GB/s by name.
func scrubSpeeds(ctx context.Context) (map[string]float64, error) {
	fmt.Fprintln(os.Stderr, "scrubbing")
	test := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "BenchmarkScrub", "-benchtime", "300ms", "-cpu", "1", "./broker/internal/redact")
	out, err := test.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("benchmarks of redact: %w: %s", err, bytes.TrimSpace(out))
	}
	return parseSpeeds(string(out)), nil
}

var speedLine = regexp.MustCompile(`(?m)^Benchmark(\S+?)(?:-\d+)?\s.*?([\d.]+) MB/s`)

// parseSpeeds reads the output of go test -bench.
func parseSpeeds(out string) map[string]float64 {
	speeds := map[string]float64{}
	for _, m := range speedLine.FindAllStringSubmatch(out, -1) {
		if mb, err := strconv.ParseFloat(m[2], 64); err == nil {
			speeds[m[1]] = mb / 1e3
		}
	}
	return speeds
}
