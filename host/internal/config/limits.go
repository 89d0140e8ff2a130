package config

import "torno.internal/protocol/control"

// readAgentLimits reads how much each session of an agent may ask for.
func readAgentLimits(t *table) control.AgentLimits {
	l := control.AgentLimits{Bounds: readBounds(t), IdleSeconds: t.count("idle_seconds"), TotalSeconds: t.count("total_seconds")}
	for _, r := range t.tables("rule") {
		rule := control.RuleLimits{Rule: r.text("match"), Bounds: readBounds(r)}
		switch {
		case !r.has("match"):
			r.fail(r.path, "limits.rule without match")
		case rule.Bounds == (control.Bounds{}):
			r.fail(r.path, "limits.rule bounds nothing")
		}
		r.done()
		l.Rules = append(l.Rules, rule)
	}
	t.done()
	return l
}

func readBounds(t *table) control.Bounds {
	b := control.Bounds{
		RequestsPerSecond: t.rate("requests_per_second"), Burst: t.count("burst"), Concurrent: t.count("concurrent"),
		MiBUpPerHour: t.count("mib_up_per_hour"), MiBDownPerHour: t.count("mib_down_per_hour"),
	}
	if t.has("burst") && !t.has("requests_per_second") {
		t.fail(t.at("burst"), "burst is of requests_per_second, and there is none")
	}
	return b
}
