package audit

import "time"

// What one session may record, so that one workload can't fill the disk.
const (
	DefaultRate  = 200      // records a second
	DefaultBytes = 64 << 20 // bytes an hour
	burst        = 10       // seconds' worth of records at once
)

// maxBudgets is how many sessions are counted at once; beyond it those idle longest are forgotten.
const maxBudgets = 4096

// A budget is one session's: a token bucket of records and one of bytes.
type budget struct {
	at         time.Time
	records    float64
	bytes      float64
	suppressed int64 // refusals that were not recorded
}

// endCost is what an exchange's end costs its session beforehand, in bytes: it is recorded whatever is left.
const endCost = 256

// spend takes one record out of its session's budget; charge takes its bytes, once they are counted. Operators' events
// have no session, and what is free, such as that a session was suspended, must not be lost in a flood of refusals.
func (l *Log) spend(r *Record) error {
	if r.Session == "" || r.Free {
		return nil
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
		b = &budget{at: now, records: rate * burst, bytes: volume}
		l.budgets[r.Session] = b
	}
	passed := now.Sub(b.at).Seconds()
	b.at = now
	b.records = min(b.records+passed*rate, rate*burst)
	b.bytes = min(b.bytes+passed*volume/3600, volume)
	if b.records < 1 || b.bytes <= 0 {
		return ErrBudget
	}
	b.records--
	return l.suppressed(r, b)
}

// charge takes the line that was just written for r, and more bytes to come, out of the budget that spend has opened.
func (l *Log) charge(r *Record, more int) {
	if b := l.budgets[r.Session]; b != nil && !r.Free {
		b.bytes -= float64(l.length + more)
	}
}

// suppressed records how many refusals were not, now that there is budget again.
func (l *Log) suppressed(r *Record, b *budget) error {
	if b.suppressed == 0 {
		return nil
	}
	n := b.suppressed
	b.suppressed = 0
	_, err := l.append("event", 0, func(line []byte) []byte {
		line = appendPair(line, "session", r.Session)
		line = appendPair(line, "agent", r.Agent)
		line = appendPair(line, "event", "refusals_suppressed")
		return appendNumber(line, "count", n)
	})
	return err
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
	delete(l.budgets, oldest)
}
