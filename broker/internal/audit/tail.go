package audit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
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
		if err != nil {
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
			if t.offset, err = scanFrom(t.path, t.offset, t.f); err != nil {
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

// scanFrom calls f with the whole lines of a segment from offset on and returns where they end.
func scanFrom(path string, offset int64, f func([]byte) error) (int64, error) {
	file, err := os.Open(path)
	if err != nil {
		return offset, err
	}
	defer file.Close()
	if _, err := file.Seek(offset, io.SeekStart); err != nil {
		return offset, err
	}
	s := newScanner(file)
	s.offset = offset
	for {
		line, err := s.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errTorn) { // torn: it is being written
			return s.offset, nil
		}
		if err != nil {
			return s.offset, err
		}
		if err := f(line); err != nil {
			return s.offset, err
		}
	}
}
