package audit

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

// recover finds the end of the audit, cuts off a torn line there, and records exchanges that the last
// process left open as interrupted. Only the last segment is read, and those before it whose open exchanges its
// beginning has no room to list.
func (l *Log) recover() error {
	paths, err := segments(l.dir)
	if err != nil {
		return err
	}
	if len(paths) == 0 {
		return l.rotate(0, l.now())
	}
	first, open, err := firstToReplay(paths)
	if err != nil {
		return err
	}
	for i, path := range paths[first:] {
		if err := l.replay(path, first+i == len(paths)-1, open); err != nil {
			return err
		}
	}
	l.disk.chain = chain{seq: l.seq, prev: l.prev}
	if l.offset == 0 { // the last process died before it wrote the segment's beginning
		if err := l.beginAgain(); err != nil {
			return err
		}
	}
	return l.interrupt(open)
}

// firstToReplay returns the index of the first segment to read, and the exchanges that were open where it begins.
func firstToReplay(paths []string) (int, map[ID]struct{}, error) {
	for i := len(paths) - 1; ; i-- {
		var head control.AuditRecord
		_, err := scanFrom(paths[i], 0, func(line []byte) (err error) {
			if head, err = Decode(line); err != nil {
				return broken(paths[i], 0, firstOf(paths[i]), err)
			}
			return errEnough
		})
		if err != nil && !errors.Is(err, errEnough) {
			return 0, nil, err
		}
		if i > 0 && (head.Seq == 0 || head.OpenMore > 0) { // empty, or not all of them are listed
			continue
		}
		open := map[ID]struct{}{}
		for _, id := range head.Open {
			open[ID(id)] = struct{}{}
		}
		return i, open, nil
	}
}

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
		if err == nil {
			err = l.replayLine(line, open)
		}
		if err != nil {
			return errors.Join(broken(path, s.offset, l.seq+1, err), f.Close())
		}
	}
	if !last {
		return f.Close()
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.disk.parts = []*part{{f: f, from: s.offset}}
	l.seg, l.size, l.offset = f, info.Size(), s.offset
	return nil
}

// replayLine takes over what one line says.
func (l *Log) replayLine(line []byte, open map[ID]struct{}) error {
	c := chain{seq: l.seq, prev: l.prev, loose: l.seq == 0}
	r, err := c.line(line)
	if err != nil {
		return err
	}
	switch r.Type {
	case control.AuditBegin:
		open[ID(r.Seq)] = struct{}{}
	case control.AuditEnd:
		delete(open, ID(r.Begin))
	case control.AuditCheckpoint:
		l.checkpointed, l.checkpointAt = r.Seq, r.Time
	}
	if r.Manifest != "" {
		l.commit, l.manifest = r.Commit, r.Manifest
	}
	l.seq, l.prev, l.last = c.seq, c.prev, r.Time
	return nil
}

// beginAgain makes the empty last segment one in use. Its name says how it would have begun.
func (l *Log) beginAgain() error {
	f, path := l.seg, l.seg.Name()
	if want := segmentName(l.seq + 1); filepath.Base(path) != want {
		return fmt.Errorf("segment %s is empty, and the audit goes on with %s", filepath.Base(path), want)
	}
	l.seg, l.disk.parts = nil, nil
	size := l.sizeFor(0)
	if err := allocate(f, 0, size); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := l.beginSegment(f, size, l.now()); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
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
	return allocate(f, offset, info.Size())
}

// interrupt records an end for every exchange that has none.
func (l *Log) interrupt(open map[ID]struct{}) error {
	ids := make([]ID, 0, len(open))
	for id := range open {
		ids = append(ids, id)
		l.open[id] = struct{}{}
	}
	l.reserved = int64(len(ids)) * maxEnd
	slices.Sort(ids)
	for _, id := range ids {
		if err := l.end(id, &Outcome{interrupted: true}); err != nil {
			return err
		}
	}
	return nil
}
