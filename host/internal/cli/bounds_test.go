package cli

import (
	"testing"

	"torno.internal/protocol/control"
)

func TestBoundsOf(t *testing.T) {
	l := &control.AgentLimits{
		Bounds:      control.Bounds{RequestsPerSecond: 0.5, Burst: 20, Concurrent: 8, MiBUpPerHour: 64, MiBDownPerHour: 1024},
		IdleSeconds: 1800, TotalSeconds: 28800,
		Rules: []control.RuleLimits{{Rule: "POST api.example.com", Bounds: control.Bounds{RequestsPerSecond: 2}}},
	}
	want := "0.5 requests a second, 20 at once, 8 open together, 64 MiB up an hour, 1024 MiB down an hour, ends after 30m0s without a request, ends 8h0m0s after its beginning"
	if got := boundsOf(l); got != want {
		t.Errorf("%q", got)
	}
	if rows := ruleLimitsOf(l); len(rows) != 1 || rows[0][1] != "2 requests a second for POST api.example.com" {
		t.Errorf("%q", rows)
	}
	if boundsOf(nil) != "" || ruleLimitsOf(nil) != nil {
		t.Error("nothing is bounded, and something said")
	}
}
