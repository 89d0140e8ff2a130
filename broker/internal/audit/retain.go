package audit

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"torno.internal/protocol/control"
)

// pruneInterval is how often it is looked for segments that are too old; for too many, with every new one.
const pruneInterval = time.Hour

// prune deletes the oldest segments, as far as they need not be kept. A record that says so is on disk before they go;
// the checkpoint at the beginning of the first that stays signs for those that went.
func (l *Log) prune() {
	victims, seq := l.condemn()
	if len(victims) == 0 {
		return
	}
	l.flush()
	l.mu.Lock()
	recorded := l.disk.chain.seq >= seq
	l.mu.Unlock()
	if !recorded { // the disk does not take it; later
		return
	}
	for _, path := range victims {
		if os.Remove(path) != nil {
			return
		}
	}
	_ = syncDir(l.dir) // what comes back after a loss of power is deleted again
}

// condemn chooses the segments to delete and records it, as record seq.
func (l *Log) condemn() (victims []string, seq uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.opt.now()
	d := l.pruneAt.Sub(now)
	if l.opt.KeepBytes == 0 && l.opt.KeepFor == 0 || d > 0 && d <= pruneInterval {
		return nil, 0
	}
	l.pruneAt = now.Add(pruneInterval)
	victims, err := l.superfluous(now)
	if err != nil || len(victims) == 0 {
		return nil, 0
	}
	paths, err := segments(l.dir)
	if err != nil {
		return nil, 0
	}
	seq, err = l.append(control.AuditEvent, 0, func(b []byte) []byte {
		b = appendPair(b, "event", EventAuditDeleted)
		b = appendNumber(b, "through", int64(firstOf(paths[len(victims)])-1))
		return appendNumber(b, "count", int64(len(victims)))
	})
	if err != nil {
		return nil, 0
	}
	return victims, seq
}

// superfluous returns the segments that need not be kept, oldest first, and never the one in use.
func (l *Log) superfluous(now time.Time) ([]string, error) {
	paths, err := segments(l.dir)
	if err != nil || len(paths) < 2 {
		return nil, err
	}
	var total int64
	sizes := make([]int64, len(paths))
	for i, path := range paths {
		info, err := os.Stat(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		} else if err == nil {
			sizes[i] = info.Size()
		}
		total += sizes[i]
	}
	n := 0
	for n < len(paths)-1 {
		tooMuch := l.opt.KeepBytes > 0 && total+l.opt.Segment > l.opt.KeepBytes // the next one has to fit too
		if !tooMuch && !l.tooOld(paths[n+1], now) {
			break
		}
		total -= sizes[n]
		n++
	}
	return paths[:n], nil
}

// tooOld reports whether all that stands before a segment is.
func (l *Log) tooOld(path string, now time.Time) bool {
	if l.opt.KeepFor == 0 {
		return false
	}
	began, err := timeOf(path)
	return err == nil && now.Sub(began) > l.opt.KeepFor
}
