package broker

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// What one session may have logged. Much of what is logged a guest can bring about at will, and a full disk would stop all
// sessions: nothing that can't be recorded happens.
const (
	logRate  = 5       // lines a second
	logBurst = 100     // lines at once
	maxAttr  = 4 << 10 // bytes of one attribute; a stack fits
)

// A sparing handler passes on what its bucket allows, and says with the next line how many it left out. It cuts
// attributes that are too long.
type sparing struct {
	slog.Handler
	bucket *logBucket
}

func newSparing(h slog.Handler) slog.Handler {
	return sparing{h, &logBucket{left: logBurst, at: time.Now()}}
}

func (h sparing) WithAttrs(attrs []slog.Attr) slog.Handler {
	return sparing{h.Handler.WithAttrs(attrs), h.bucket}
}

func (h sparing) WithGroup(name string) slog.Handler {
	return sparing{h.Handler.WithGroup(name), h.bucket}
}

func (h sparing) Handle(ctx context.Context, r slog.Record) error {
	skipped, ok := h.bucket.take(r.Time)
	if !ok {
		return nil
	}
	line := slog.NewRecord(r.Time, r.Level, r.Message, r.PC)
	r.Attrs(func(a slog.Attr) bool {
		if s := a.Value.Resolve().String(); len(s) > maxAttr {
			a.Value = slog.StringValue(s[:maxAttr] + "…")
		}
		line.AddAttrs(a)
		return true
	})
	if skipped > 0 {
		line.AddAttrs(slog.Int("left_out", skipped))
	}
	return h.Handler.Handle(ctx, line)
}

// A logBucket is a token bucket of lines.
type logBucket struct {
	mu      sync.Mutex
	left    float64
	at      time.Time
	skipped int
}

// take reports whether another line may be logged, and how many were not since the last one.
func (b *logBucket) take(now time.Time) (skipped int, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.left, b.at = min(b.left+passed*logRate, logBurst), now
	}
	if b.left < 1 {
		b.skipped++
		return 0, false
	}
	b.left--
	skipped, b.skipped = b.skipped, 0
	return skipped, true
}
