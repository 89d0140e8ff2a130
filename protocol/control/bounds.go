package control

// Bounds say how much may be asked for. Zero members don't bound.
type Bounds struct {
	RequestsPerSecond float64 `json:"requests_per_second,omitempty"`
	Burst             int     `json:"burst,omitempty"`      // requests at once; a second's worth, at least one, if zero
	Concurrent        int     `json:"concurrent,omitempty"` // exchanges that are open at once
	MiBUpPerHour      int     `json:"mib_up_per_hour,omitempty"`
	MiBDownPerHour    int     `json:"mib_down_per_hour,omitempty"`
}

// AgentLimits bound each session of an agent. The zero value bounds nothing. Where an agent's file and the operator's
// both have some, all of them hold.
type AgentLimits struct {
	Bounds
	IdleSeconds  int          `json:"idle_seconds,omitempty"`  // without an exchange, after which the session ends
	TotalSeconds int          `json:"total_seconds,omitempty"` // after its beginning, when the session ends
	Rules        []RuleLimits `json:"rules,omitempty"`
}

// RuleLimits bound those exchanges of a session that a rule matches, in any reading of them.
type RuleLimits struct {
	Rule string `json:"rule"`
	Bounds
}

// MaxRuleLimits is how many RuleLimits one file may have.
const MaxRuleLimits = 64
