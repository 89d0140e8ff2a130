package limit

import "time"

// A bucket fills at rate a second up to its size. The zero value bounds nothing.
type bucket struct {
	rate, size float64
	left       float64
	at         time.Time
}

func newBucket(rate, size float64) bucket { return bucket{rate, size, size, time.Now()} }

func (b *bucket) bounded() bool { return b.rate > 0 }

// fill adds what the time since the last call has brought. A clock that was set back brings nothing.
func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.left = min(b.left+passed*b.rate, b.size)
	}
	b.at = now
}

// wait returns how long it takes until n are there; 0: they are.
func (b *bucket) wait(now time.Time, n float64) time.Duration {
	if !b.bounded() {
		return 0
	}
	if b.fill(now); b.left >= n {
		return 0
	}
	return time.Duration((n - b.left) / b.rate * float64(time.Second))
}
