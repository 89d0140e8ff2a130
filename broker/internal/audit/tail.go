package audit

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"time"
)

// followInterval is how often a followed audit is looked at for new lines.
const followInterval = 200 * time.Millisecond

// Tail calls f with the last lines of the audit in dir, at most last of them, oldest first, and then, if
// follow is set, with each new one until ctx ends or f fails. A line is valid until f returns.
func Tail(ctx context.Context, dir string, last int, follow bool, f func(line []byte) error) error {
	t := &tail{dir: dir, f: f}
	if err := t.last(last); err != nil {
		return err
	}
	if !follow {
		return nil
	}
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		if err := t.more(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// A tail stands after the last line that it has shown.
type tail struct {
	dir    string
	f      func([]byte) error
	path   string // segment
	offset int64  // in it
}

// last shows the last n lines. Segments are read from the newest back, until there are enough.
func (t *tail) last(n int) error {
	paths, err := segments(t.dir)
	if err != nil {
		return err
	}
	var lines [][]byte // the newest n so far, oldest first
	for i := len(paths) - 1; i >= 0 && (len(lines) < n || t.path == ""); i-- {
		var here [][]byte
		offset, err := scanFrom(paths[i], 0, func(line []byte) error {
			if here = append(here, bytes.Clone(line)); len(here) > n {
				here = here[1:]
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if t.path == "" {
			t.path, t.offset = paths[i], offset
		}
		lines = append(here, lines...)
		lines = lines[max(0, len(lines)-n):]
	}
	for _, line := range lines {
		if err := t.f(line); err != nil {
			return err
		}
	}
	return nil
}

// more shows what has been written since.
func (t *tail) more(ctx context.Context) error {
	for ctx.Err() == nil {
		paths, err := segments(t.dir) // before reading, so that the segment read is done if another follows
		if err != nil {
			return err
		}
		if t.path != "" {
			t.offset, err = scanFrom(t.path, t.offset, t.f)
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // deleted, for it need not be kept
				return err
			}
		}
		next := ""
		for _, p := range paths {
			if p > t.path {
				next = p
				break
			}
		}
		if next == "" {
			return nil
		}
		t.path, t.offset = next, 0
	}
	return nil
}
