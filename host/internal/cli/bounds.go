package cli

import (
	"fmt"
	"strings"
	"time"

	"torno.internal/protocol/control"
)

// boundsOf says in one line what all of a session's exchanges together are held to.
func boundsOf(l *control.AgentLimits) string {
	if l == nil {
		return ""
	}
	parts := boundParts(l.Bounds)
	if l.IdleSeconds > 0 {
		parts = append(parts, fmt.Sprintf("ends after %v without a request", time.Duration(l.IdleSeconds)*time.Second))
	}
	if l.TotalSeconds > 0 {
		parts = append(parts, fmt.Sprintf("ends %v after its beginning", time.Duration(l.TotalSeconds)*time.Second))
	}
	return strings.Join(parts, ", ")
}

// ruleLimitsOf has a row for each rule with limits of its own.
func ruleLimitsOf(l *control.AgentLimits) [][2]string {
	if l == nil {
		return nil
	}
	var rows [][2]string
	for _, r := range l.Rules {
		rows = append(rows, [2]string{"limits", strings.Join(boundParts(r.Bounds), ", ") + " for " + r.Rule})
	}
	return rows
}

func boundParts(b control.Bounds) []string {
	var parts []string
	add := func(set bool, format string, args ...any) {
		if set {
			parts = append(parts, fmt.Sprintf(format, args...))
		}
	}
	switch {
	case b.Burst > 0:
		add(true, "%v requests a second, %d at once", b.RequestsPerSecond, b.Burst)
	default:
		add(b.RequestsPerSecond > 0, "%v requests a second", b.RequestsPerSecond)
	}
	add(b.Concurrent > 0, "%d open together", b.Concurrent)
	add(b.MiBUpPerHour > 0, "%d MiB up an hour", b.MiBUpPerHour)
	add(b.MiBDownPerHour > 0, "%d MiB down an hour", b.MiBDownPerHour)
	return parts
}
