package audit

import "time"

// keeper looks after the audit until Close: forces lines to disk, and does what is due.
func (l *Log) keeper() {
	defer close(l.done)
	tick := time.NewTicker(SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-l.disk.kick:
			l.flush()
		case <-tick.C:
			l.flush()
			l.tend()
			l.prune()
		}
	}
}

// tend records what is due.
func (l *Log) tend() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	now := l.opt.now()
	if d := now.Sub(l.aggregateAt); d >= 0 || d < -aggregateInterval { // or the clock was set back
		l.aggregateAt = now.Add(aggregateInterval)
		l.aggregate()
	}
	if l.due(now) {
		_ = l.checkpoint() // where it fails the next one covers more
	}
}
