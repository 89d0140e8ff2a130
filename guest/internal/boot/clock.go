package boot

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// setClock takes the host's time. What the answer took to get here is put right by the first event.
func (g *guest) setClock(context.Context) error { return settime(g.hello.Time) }

func settime(t time.Time) error {
	now := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
		return fmt.Errorf("setting the clock to %v: %w", t.Format(time.RFC3339), err)
	}
	return nil
}

// correctClock takes the host's time again, where the clock is the guest's own.
func (g *guest) correctClock(host time.Time) {
	if !g.ownsKernel() {
		return
	}
	if t, ok := g.drift.correct(time.Now(), host); ok {
		if err := settime(t); err != nil {
			g.Log.Error("clock", "error", err)
		}
	}
}

// How far the clock may be from the host's.
const (
	clockTolerance = 100 * time.Millisecond
	clockLeap      = 2 * time.Second // more is no word's way here
)

// A drift tells a clock that is wrong from a word that was late. The host's time is that of when it spoke: a
// clock that is behind it is wrong for sure, as after a pause; one that is ahead may be right, on a busy
// machine. It is wrong only if it was ahead of each of the last words.
type drift struct {
	ahead [3]time.Duration // of the last words
	words int
}

// correct returns what to set the clock to, if that should be done.
func (d *drift) correct(now, host time.Time) (time.Time, bool) {
	ahead := now.Round(0).Sub(host)
	if ahead < -clockTolerance || ahead > clockLeap {
		*d = drift{}
		return host, true
	}
	d.ahead[d.words%len(d.ahead)] = ahead
	d.words++
	least := min(d.ahead[0], d.ahead[1], d.ahead[2])
	if d.words < len(d.ahead) || least <= clockTolerance {
		return time.Time{}, false
	}
	*d = drift{}
	return now.Round(0).Add(-least), true
}
