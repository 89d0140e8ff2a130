package audit

import (
	"fmt"
	"time"

	"torno.internal/protocol/control"
)

// append writes one line. room is what it keeps free for an end to come, or, negative, what was kept
// for this line.
func (l *Log) append(kind string, room int64, fill func([]byte) []byte) (uint64, error) {
	if l.closed {
		return 0, ErrClosed
	}
	now := l.now()
	b, err := l.line(kind, now, fill)
	if err != nil {
		return 0, err
	}
	if !l.fits(int64(len(b)) + room) {
		if err := l.rotate(int64(len(b))+room, now); err != nil {
			return 0, fmt.Errorf("%w: %w", ErrFull, err)
		}
		if b, err = l.line(kind, now, fill); err != nil { // behind the new segment's beginning
			return 0, err
		}
	}
	if err := l.write(b, now); err != nil {
		return 0, err
	}
	seq, length := l.seq, l.length
	if kind == control.AuditCheckpoint {
		l.checkpointed, l.checkpointAt = seq, now
	} else if l.due(now) {
		_ = l.checkpoint() // where it fails the next one covers more
		l.length = length
	}
	return seq, nil
}

// fits reports whether so many bytes can be written and what is kept free still is.
func (l *Log) fits(n int64) bool { return l.offset+n+l.reserved+maxCheckpoint <= l.size }

// makeRoom is for what will be written later.
func (l *Log) makeRoom(n int64) error {
	if l.closed {
		return ErrClosed
	}
	if l.fits(n) {
		return nil
	}
	if err := l.rotate(n, l.now()); err != nil {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return nil
}

// now is the time of the next line. Where the clock was set back a record says so first, so that who reads the audit
// is not led to believe in an order that was not; where that can't be recorded, time stands still meanwhile.
func (l *Log) now() time.Time {
	now := l.opt.now().Round(0)
	if !now.Before(l.last) {
		return now
	}
	back := l.last.Sub(now)
	b, err := l.line(control.AuditEvent, now, func(b []byte) []byte {
		b = appendPair(b, "event", EventClockSetBack)
		return appendNumber(b, "us", max(back.Microseconds(), 1))
	})
	if err != nil || !l.fits(int64(len(b))) || l.write(b, now) != nil {
		return l.last
	}
	return now
}

// line makes the next line.
func (l *Log) line(kind string, now time.Time, fill func([]byte) []byte) ([]byte, error) {
	b := appendHead(l.buf[:0], l.seq+1, now, &l.prev, kind)
	b = fill(b)
	b = append(b, '}', '\n')
	l.buf = b[:0]
	if len(b) > maxLine {
		return nil, fmt.Errorf("record of %d bytes, at most %d are read back", len(b), maxLine)
	}
	return b, nil
}

// write writes the next line, which fits. What a write that failed may have left is overwritten by the next one.
func (l *Log) write(b []byte, now time.Time) error {
	if l.torn > 0 {
		if _, err := l.seg.WriteAt(make([]byte, l.torn), l.offset); err != nil {
			return fmt.Errorf("writing the audit: %w", err)
		}
		l.torn = 0
	}
	if _, err := l.seg.WriteAt(b, l.offset); err != nil {
		l.torn = int64(len(b))
		return fmt.Errorf("writing the audit: %w", err)
	}
	l.wrote(b, now)
	return nil
}

// wrote counts the line b, which stands at offset.
func (l *Log) wrote(b []byte, now time.Time) {
	l.offset, l.length = l.offset+int64(len(b)), len(b)
	l.seq++
	l.prev = lineHash(b[:len(b)-1])
	l.last = now
	l.disk.dirty()
}

// settle records the ends that could not be written when they came.
func (l *Log) settle() {
	for id, o := range l.late {
		if l.end(id, &o) != nil {
			return
		}
	}
}
