package soak

import (
	"fmt"
	"maps"
	"sync"
)

// What a ledger knows of a thing.
const (
	isSet     = "set"
	isRevoked = "revoked"
	isDeleted = "deleted"
	isLive    = "live"
	isEnded   = "ended"
)

// An entry is what was acknowledged last of a thing, and whether something was asked for since whose answer is not known.
type entry struct {
	what    string
	version int
	asked   bool
}

// A ledger keeps what the broker has acknowledged: whatever happens, none of it may be lost.
type ledger struct {
	mu       sync.Mutex
	secrets  map[string]entry // by name
	sessions map[string]entry // by id
	granted  map[string]bool  // sessions for whose whole length something was allowed
	answered map[string]bool  // paths below /n/ that were answered with 200
	allowed  map[string]bool  // paths of requests that a person allowed
	counts   map[string]int   // acknowledgements, by kind
}

func newLedger() *ledger {
	return &ledger{
		secrets: map[string]entry{}, sessions: map[string]entry{}, granted: map[string]bool{},
		answered: map[string]bool{}, allowed: map[string]bool{}, counts: map[string]int{},
	}
}

// asked notes that something is asked for, before it is.
func (l *ledger) asked(of map[string]entry, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := of[name]
	e.asked = true
	of[name] = e
}

// acknowledged notes an answer.
func (l *ledger) acknowledged(of map[string]entry, name, what string, version int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	of[name] = entry{what: what, version: version}
	l.counts[what]++
}

// note adds to a set.
func (l *ledger) note(to map[string]bool, kind, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	to[name] = true
	l.counts[kind]++
}

// count is how often something of that kind was acknowledged.
func (l *ledger) count(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[kind]
}

// copySecrets returns what is known of secrets and of sessions, and which of those were granted something.
func (l *ledger) copy() (secrets, sessions map[string]entry, granted map[string]bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.secrets), maps.Clone(l.sessions), maps.Clone(l.granted)
}

// judgeSecret says what of an acknowledged state is lost, by the newest version that there ever was, and the state of what
// is there; "" if nothing is.
func judgeSecret(name string, e entry, last int, state string) string {
	if e.what == "" {
		return ""
	}
	if last < e.version {
		return fmt.Sprintf("%s: version %d was acknowledged, %d is there", name, e.version, last)
	}
	if last > e.version || e.asked || state == e.what || e.what == isRevoked && state == isDeleted {
		return "" // what came after it, unacknowledged, may have changed it
	}
	return fmt.Sprintf("%s: version %d was %s, and is %s", name, e.version, e.what, state)
}
