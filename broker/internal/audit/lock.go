package audit

import (
	"sync/atomic"
	"time"
)

// A lock is a mutex that not everybody waits for: where the disk does not answer, whoever holds it holds it for as long as that
// takes, in the middle of a system call, and others must be told. Its methods but watch are safe for concurrent use. init makes
// it usable.
type lock struct {
	held   atomic.Bool
	turns  atomic.Uint64 // how often it was taken
	freed  chan struct{} // holds one wake-up
	stuck  atomic.Bool
	alarms chan struct{} // one for each watch; nobody but watch sends
}

// init makes the zero value usable.
func (l *lock) init() { l.freed, l.alarms = make(chan struct{}, 1), make(chan struct{}) }

// Lock waits for as long as it takes.
func (l *lock) Lock() {
	for !l.held.CompareAndSwap(false, true) {
		<-l.freed
	}
	l.turns.Add(1)
}

// LockSoon is Lock, but gives up and returns false where somebody holds it and does not come back.
func (l *lock) LockSoon() bool {
	for !l.held.CompareAndSwap(false, true) {
		if l.stuck.Load() {
			return false
		}
		select {
		case <-l.freed:
		case <-l.alarms:
		}
	}
	l.turns.Add(1)
	return true
}

// Unlock wakes one of those who wait. Somebody else may be quicker, and then wakes the next.
func (l *lock) Unlock() {
	if l.stuck.Load() {
		l.stuck.Store(false)
	}
	l.held.Store(false)
	select {
	case l.freed <- struct{}{}:
	default: // one is awake already
	}
}

// watch notices until stop that the lock has been held for so long. It closes done when it ends.
func (l *lock) watch(stop <-chan struct{}, done chan<- struct{}, long time.Duration) {
	defer close(done)
	tick := time.NewTicker(max(long/4, time.Millisecond))
	defer tick.Stop()
	turn, since := l.turns.Load(), time.Now()
	for {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			if t := l.turns.Load(); t != turn || !l.held.Load() {
				turn, since = t, now
			}
			stuck := now.Sub(since) >= long
			if stuck {
				l.stuck.Store(true)
			}
			for woken := true; stuck && woken; {
				select {
				case l.alarms <- struct{}{}:
				default:
					woken = false
				}
			}
		}
	}
}
