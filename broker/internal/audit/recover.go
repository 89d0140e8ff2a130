package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// recover finds the end of the audit, cuts off a torn line there, and records exchanges that the last
// process left open as interrupted. Only the last segments are read: as far back as exchanges are open,
// at most recoverSegments.
func (l *Log) recover() error {
	paths, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return l.rotate(maxLine)
	}
	open := map[ID]struct{}{}
	for i, path := range paths[max(0, len(paths)-recoverSegments):] {
		last := i == min(len(paths), recoverSegments)-1
		if err := l.replay(path, last, open); err != nil {
			return err
		}
	}
	return l.interrupt(open)
}

// recoverSegments is how many segments are read for open exchanges. One older than that many segments
// stays without its end.
const recoverSegments = 4

// replay reads one segment; the last one stays open for appending.
func (l *Log) replay(path string, last bool, open map[ID]struct{}) error {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	s := newScanner(f)
	for {
		line, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if errors.Is(err, errTorn) && last {
			if err := cut(f, s.offset); err != nil {
				return errors.Join(err, f.Close())
			}
			break
		}
		var k link
		if err == nil {
			k, err = parseLink(line)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s at byte %d: %w (torno audit verify says more)", filepath.Base(path), s.offset, err), f.Close())
		}
		switch k.kind {
		case "begin":
			open[ID(k.seq)] = struct{}{}
		case "end":
			delete(open, k.begin)
		}
		l.seq, l.prev = k.seq, lineHash(line)
	}
	if !last {
		return f.Close()
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.seg, l.size, l.offset = f, info.Size(), s.offset
	if l.offset > 0 {
		return nil
	}
	// The last process may have died between making the segment and allocating it.
	l.size = max(l.size, l.opt.Segment)
	return unix.Fallocate(int(f.Fd()), 0, 0, l.size)
}

// cut makes everything from offset on zeros.
func cut(f *os.File, offset int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := f.Truncate(offset); err != nil {
		return err
	}
	return unix.Fallocate(int(f.Fd()), 0, 0, info.Size())
}

// interrupt records an end for every exchange that has none.
func (l *Log) interrupt(open map[ID]struct{}) error {
	ids := make([]ID, 0, len(open))
	for id := range open {
		ids = append(ids, id)
		l.open[id] = struct{}{}
	}
	slices.Sort(ids)
	for _, id := range ids {
		if err := l.End(id, &Outcome{interrupted: true}); err != nil {
			return err
		}
	}
	return nil
}
