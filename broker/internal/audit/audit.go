// Package audit records every exchange before it happens and after it ended, one line of JSON each, in
// a hash chain: each line carries the SHA-256 of the one before, so that an edit, a removal within, a
// reordering or an insertion shows, and where. The chain has no key: a cut at the end, and a change by who
// writes everything behind it anew, show only against a copy of the last hash kept elsewhere.
//
// Lines stand in segments, files that are allocated before they are used. Room is kept for the end of
// every exchange that has begun, so that a full disk refuses what is new and loses nothing that is open.
// A line is written before the call that made it returns and is on disk at most SyncInterval later: the
// death of the process loses nothing, the loss of power at most that.
package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// SyncInterval is how long a line may wait to be forced to disk.
const SyncInterval = 100 * time.Millisecond

// DefaultSegment is the size of a segment in bytes.
const DefaultSegment = 16 << 20

// maxEnd bounds the line of an exchange's end, in bytes; maxLine that of any record. A longer one would pass for torn
// when it is read.
const (
	maxEnd  = 1 << 10
	maxLine = 96 << 10
)

// Errors that callers match.
var (
	ErrFull   = errors.New("no room to record in")
	ErrBudget = errors.New("the session's audit budget is used up")
	ErrClosed = errors.New("the audit is closed")
)

// Options tune a Log. The zero value means the defaults.
type Options struct {
	Segment          int64 // bytes; DefaultSegment
	RecordsPerSecond int   // per session, with a burst of ten seconds' worth; DefaultRate
	BytesPerHour     int64 // per session; DefaultBytes
}

// An ID names an exchange that has begun: the sequence number of its first line.
type ID uint64

// A Log appends to the audit in one directory. It is safe for concurrent use.
type Log struct {
	dir string
	opt Options

	mu      sync.Mutex
	seg     *os.File
	size    int64 // allocated in seg
	offset  int64 // where the next line goes
	length  int   // of the last line
	seq     uint64
	prev    [32]byte
	open    map[ID]struct{}
	budgets map[string]*budget
	buf     []byte // scratch for one line
	dirty   bool
	failed  error // a write failed midway: nothing may follow a torn line

	stop chan struct{}
	done chan struct{}
}

// Open opens the audit in dir, or begins one. A torn last line is cut off, and exchanges that had begun
// and not ended are recorded as interrupted.
func Open(dir string, opt Options) (*Log, error) {
	if opt.Segment == 0 {
		opt.Segment = DefaultSegment
	}
	opt.Segment = max(opt.Segment, 2*maxLine)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, opt: opt, open: map[ID]struct{}{}, budgets: map[string]*budget{},
		stop: make(chan struct{}), done: make(chan struct{})}
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.closeSegment())
	}
	go l.syncer()
	return l, nil
}

// Begin records that an exchange is about to happen. It is written when Begin returns; only then may the
// exchange happen. The error matches ErrFull or ErrBudget, or is one of writing.
func (l *Log) Begin(r *Record) (ID, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.spend(r); err != nil {
		return 0, err
	}
	seq, err := l.append("begin", maxEnd, func(b []byte) []byte { return r.appendTo(b) })
	if err != nil {
		return 0, err
	}
	l.open[ID(seq)] = struct{}{}
	l.charge(r, endCost)
	return ID(seq), nil
}

// End records how an exchange ended. Room for it was kept by Begin.
func (l *Log) End(id ID, o *Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.open[id]; !ok {
		return fmt.Errorf("exchange %d is not open", id)
	}
	_, err := l.append("end", -maxEnd, func(b []byte) []byte { return o.appendTo(b, id) })
	if err == nil {
		delete(l.open, id)
	}
	return err
}

// Event records something that is no exchange, or an exchange that was refused. Past the session's
// budget refusals are counted instead, and the count is recorded once there is budget again.
func (l *Log) Event(r *Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.spend(r); err != nil {
		l.budgets[r.Session].suppressed++
		return err
	}
	_, err := l.append("event", 0, func(b []byte) []byte { return r.appendTo(b) })
	if err == nil {
		l.charge(r, 0)
	}
	return err
}

// append writes one line. room is what it keeps free for an end to come, or, negative, what was kept
// for this line.
func (l *Log) append(kind string, room int64, fill func([]byte) []byte) (uint64, error) {
	if l.failed != nil {
		return 0, l.failed
	}
	b := appendHead(l.buf[:0], l.seq+1, time.Now(), &l.prev, kind)
	b = fill(b)
	b = append(b, '}', '\n')
	l.buf = b[:0]
	if len(b) > maxLine {
		return 0, fmt.Errorf("record of %d bytes, at most %d are read back", len(b), maxLine)
	}
	reserved := int64(len(l.open))*maxEnd + room
	if l.offset+int64(len(b))+reserved > l.size {
		if err := l.rotate(int64(len(b)) + reserved); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrFull, err)
		}
	}
	if _, err := l.seg.WriteAt(b, l.offset); err != nil {
		l.failed = fmt.Errorf("writing the audit: %w", err)
		return 0, l.failed
	}
	l.offset, l.length = l.offset+int64(len(b)), len(b)
	l.seq++
	l.prev = lineHash(b[:len(b)-1])
	l.dirty = true
	return l.seq, nil
}

// rotate begins a new segment that holds at least need bytes. On failure the old one stays in use.
func (l *Log) rotate(need int64) error {
	path := filepath.Join(l.dir, segmentName(l.seq+1))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	size := max(l.opt.Segment, need)
	if err := unix.Fallocate(int(f.Fd()), 0, 0, size); err != nil {
		return errors.Join(fmt.Errorf("allocating %q: %w", path, err), f.Close(), os.Remove(path))
	}
	if err := errors.Join(f.Sync(), syncDir(l.dir), l.closeSegment()); err != nil {
		return errors.Join(err, f.Close())
	}
	l.seg, l.size, l.offset = f, size, 0
	return nil
}

// closeSegment forces the segment to disk and closes it.
func (l *Log) closeSegment() error {
	if l.seg == nil {
		return nil
	}
	err := errors.Join(l.seg.Sync(), l.seg.Close())
	l.seg = nil
	return err
}

// syncer forces dirty lines to disk every SyncInterval.
func (l *Log) syncer() {
	defer close(l.done)
	tick := time.NewTicker(SyncInterval)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-tick.C:
			l.sync()
		}
	}
}

func (l *Log) sync() {
	l.mu.Lock()
	if !l.dirty || l.seg == nil {
		l.mu.Unlock()
		return
	}
	l.dirty = false
	fd, err := unix.Dup(int(l.seg.Fd())) // so that a rotation meanwhile closes nothing under us
	l.mu.Unlock()
	if err == nil {
		err = errors.Join(unix.Fdatasync(fd), unix.Close(fd))
	}
	if err != nil {
		l.mu.Lock()
		l.failed = fmt.Errorf("forcing the audit to disk: %w", err)
		l.mu.Unlock()
	}
}

// Close forces everything to disk. Exchanges that are still open are recorded as interrupted by the next
// Open.
func (l *Log) Close() error {
	close(l.stop)
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.closeSegment()
	l.failed = ErrClosed
	return err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
