package boot

import (
	"testing"
	"time"
)

func TestDrift(t *testing.T) {
	const ms = time.Millisecond
	for name, c := range map[string]struct {
		ahead []time.Duration // of the clock, at each word
		moved []time.Duration // by which it is set then
	}{
		"right":                {[]time.Duration{0, 1 * ms, 90 * ms, -90 * ms}, []time.Duration{0, 0, 0, 0}},
		"behind after a pause": {[]time.Duration{3 * ms, -time.Hour, 2 * ms}, []time.Duration{0, time.Hour, 0}},
		"behind by little":     {[]time.Duration{-200 * ms}, []time.Duration{200 * ms}},
		"ahead by years":       {[]time.Duration{20000 * time.Hour}, []time.Duration{-20000 * time.Hour}},
		"late words":           {[]time.Duration{400 * ms, 1900 * ms, 50 * ms, 700 * ms, 800 * ms}, []time.Duration{0, 0, 0, 0, 0}},
		"ahead by little":      {[]time.Duration{400 * ms, 1900 * ms, 450 * ms, 1 * ms}, []time.Duration{0, 0, -400 * ms, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			var d drift
			now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
			for i, ahead := range c.ahead {
				set, ok := d.correct(now, now.Add(-ahead))
				if got := set.Sub(now); ok != (c.moved[i] != 0) || ok && got != c.moved[i] {
					t.Errorf("word %d: set %v by %v, want by %v", i, ok, got, c.moved[i])
				}
				now = now.Add(10 * time.Second)
			}
		})
	}
}
