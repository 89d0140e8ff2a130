package audit

import (
	"time"

	"torno.internal/protocol/control"
)

// What one session may record, so that one workload can't fill the disk.
const (
	DefaultRate  = 200      // records a second
	DefaultBytes = 64 << 20 // bytes an hour
	burst        = 10       // seconds' worth of records at once
)

// maxBudgets is how many sessions are counted at once; beyond it those idle longest are forgotten.
const maxBudgets = 4096

// aggregateInterval is how often it is recorded how much was not.
const aggregateInterval = 10 * time.Second

// A budget is one session's: a token bucket of records and one of bytes.
type budget struct {
	agent      string
	at         time.Time
	records    float64
	bytes      float64
	suppressed int64 // records that were not written
}

// endCost is what an exchange's end costs its session beforehand, in bytes: it is recorded whatever is left.
const endCost = 256

// spend takes one record out of its session's budget and reports whether there was one; charge takes its bytes, once
// they are counted. Only what a workload can do as often as it likes costs anything: operators' events have no session,
// and the broker's own, such as that a session was suspended, must not be lost in a flood of refusals.
func (l *Log) spend(r *Record) bool {
	if r.Session == "" || r.Free {
		return true
	}
	rate, volume := float64(l.opt.RecordsPerSecond), float64(l.opt.BytesPerHour)
	if rate == 0 {
		rate = DefaultRate
	}
	if volume == 0 {
		volume = DefaultBytes
	}
	now := time.Now()
	b := l.budgets[r.Session]
	if b == nil {
		l.forget(now)
		b = &budget{agent: r.Agent, at: now, records: rate * burst, bytes: volume}
		l.budgets[r.Session] = b
	}
	passed := now.Sub(b.at).Seconds()
	b.at = now
	b.records = min(b.records+passed*rate, rate*burst)
	b.bytes = min(b.bytes+passed*volume/3600, volume)
	if b.records < 1 || b.bytes <= 0 {
		return false
	}
	b.records--
	return true
}

// Bound replaces how much each session may record, for what is left of its budget too: records a second, and bytes an hour.
// 0 means the default.
func (l *Log) Bound(records int, volume int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.opt.RecordsPerSecond, l.opt.BytesPerHour = records, volume
}

// charge takes the line that was just written for r, and more bytes to come, out of the budget that spend has opened.
func (l *Log) charge(r *Record, more int) {
	if b := l.budgets[r.Session]; b != nil && !r.Free {
		b.bytes -= float64(l.length + more)
	}
}

// suppress counts a record that spend did not let be written.
func (l *Log) suppress(r *Record) { l.budgets[r.Session].suppressed++ }

// aggregate records how many records of each session were not written since it last did.
func (l *Log) aggregate() {
	for id, b := range l.budgets {
		if b.suppressed > 0 {
			l.recordSuppressed(id, b)
		}
	}
}

func (l *Log) recordSuppressed(session string, b *budget) {
	_, err := l.append(control.AuditEvent, 0, func(line []byte) []byte {
		line = appendPair(line, "session", session)
		line = appendPair(line, "agent", b.agent)
		line = appendPair(line, "event", EventSuppressed)
		return appendNumber(line, "count", b.suppressed)
	})
	if err == nil { // else the next time
		b.suppressed = 0
	}
}

// forget drops the budget that was used longest ago, if there are too many.
func (l *Log) forget(now time.Time) {
	if len(l.budgets) < maxBudgets {
		return
	}
	var oldest string
	at := now
	for id, b := range l.budgets {
		if !b.at.After(at) {
			oldest, at = id, b.at
		}
	}
	if b := l.budgets[oldest]; b != nil && b.suppressed > 0 {
		l.recordSuppressed(oldest, b)
	}
	delete(l.budgets, oldest)
}
