// Package metric counts what the broker does, and writes it in the text format of Prometheus (version 0.0.4). Labels are
// agents and reasons alone: names that an operator chose, and a closed table. What a workload chooses, such as a host, is
// in none.
package metric

import (
	"sync"
	"sync/atomic"
	"time"
)

// MaxAgents is how many agents are told apart; the others are counted together, as agent "other agents".
const MaxAgents = 1000

// others is no agent's name, for those have no spaces.
const others = "other agents"

// An Agent is what one agent's sessions did.
type Agent struct {
	Answered, Refused, Failed atomic.Uint64 // exchanges: by the upstream, before it was asked, and after
	Up, Down                  atomic.Uint64 // bytes of content
	Masked                    atomic.Uint64 // runs of secrets in answers
}

// Metrics is ready for use. It is safe for concurrent use.
type Metrics struct {
	Duration Histogram // of exchanges that were answered, to their ends
	Head     Histogram // until their responses' heads were there

	mu      sync.Mutex
	agents  map[string]*Agent
	reasons map[string]uint64 // of refusals and failures
	asked   map[string]uint64 // by what came of asking a person
}

// Agent returns the counters of an agent, which stay the same.
func (m *Metrics) Agent(name string) *Agent {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.agents == nil {
		m.agents = map[string]*Agent{}
	}
	a := m.agents[name]
	if a == nil && len(m.agents) >= MaxAgents {
		name = others
		a = m.agents[name]
	}
	if a == nil {
		a = &Agent{}
		m.agents[name] = a
	}
	return a
}

// Reason counts a reason of the closed table.
func (m *Metrics) Reason(reason string) { m.count(&m.reasons, reason) }

// Asked counts what came of asking a person, one of a few words.
func (m *Metrics) Asked(outcome string) { m.count(&m.asked, outcome) }

func (m *Metrics) count(in *map[string]uint64, key string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if *in == nil {
		*in = map[string]uint64{}
	}
	(*in)[key]++
}

// bounds of a Histogram's buckets: from what torno costs itself to what a language model takes.
var bounds = [...]time.Duration{
	time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second, 30 * time.Second, time.Minute, 5 * time.Minute, 15 * time.Minute,
}

// A Histogram counts durations. It is ready for use, and safe for concurrent use.
type Histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // each without those below
	sum     atomic.Int64                   // nanoseconds
}

// Observe counts d.
func (h *Histogram) Observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(int64(d))
}
