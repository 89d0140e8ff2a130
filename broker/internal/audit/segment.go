package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/control"
)

const segmentSuffix = ".log"

// segmentName is the name of the segment whose first line is seq; names sort as sequence numbers do.
func segmentName(seq uint64) string { return fmt.Sprintf("%020d%s", seq, segmentSuffix) }

// firstOf returns the number of the first line of a segment, by its name.
func firstOf(path string) uint64 {
	seq, _ := strconv.ParseUint(strings.TrimSuffix(filepath.Base(path), segmentSuffix), 10, 64)
	return seq
}

// segments returns the paths of dir's segments, oldest first.
func segments(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var paths []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), segmentSuffix); ok && len(name) == 20 {
			paths = append(paths, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(paths)
	return paths, nil
}

// rotate begins a new segment that holds at least need bytes more than what is kept free. On failure the old one stays
// in use. A segment begins with a checkpoint, so that those before it can be deleted.
func (l *Log) rotate(need int64, now time.Time) error {
	path := filepath.Join(l.dir, segmentName(l.seq+1))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	size := l.sizeFor(need)
	err = allocate(f, 0, size)
	if err == nil {
		err = l.beginSegment(f, size, now)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("segment %q: %w", path, err), f.Close(), os.Remove(path))
	}
	l.pruneAt = time.Time{}
	return nil
}

// sizeFor is the size of a segment that holds need bytes more than its beginning and what is kept free.
func (l *Log) sizeFor(need int64) int64 {
	return max(l.opt.Segment, maxLine+need+l.reserved+maxCheckpoint)
}

// beginSegment writes the first line of an empty segment and makes it the one in use.
func (l *Log) beginSegment(f *os.File, size int64, now time.Time) error {
	b, err := l.line(control.AuditCheckpoint, now, func(b []byte) []byte {
		return l.opt.Signer.appendSigned(l.appendOpen(appendCommit(b, l.commit, l.manifest)))
	})
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return err
	}
	if l.seg != nil {
		if err := l.seg.Truncate(l.offset); err != nil && l.torn > 0 {
			return err // the rest of a line would stay at its end
		}
	}
	l.disk.retire(l.offset)
	l.disk.add(f)
	l.seg, l.size, l.offset, l.torn = f, size, 0, 0
	l.wrote(b, now)
	l.checkpointed, l.checkpointAt = l.seq, now
	return nil
}

// allocate makes a file that ends at from size bytes long, with zeros that need no more room when they are written.
func allocate(f *os.File, from, size int64) error {
	if from >= size {
		return nil
	}
	err := unix.Fallocate(int(f.Fd()), 0, from, size-from)
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	zeros := make([]byte, 1<<20)
	for at := from; at < size; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros[:min(size-at, int64(len(zeros)))], at); err != nil {
			return err
		}
	}
	return f.Sync()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
