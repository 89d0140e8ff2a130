package audit

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// DefaultLag is how long a line may not be on disk before nothing new is recorded.
const DefaultLag = 5 * time.Second

// A disk is what of the segments is not known to be on it. Log.mu guards it; parts are synced and closed by one
// goroutine alone.
type disk struct {
	parts []*part       // of the segments, oldest first; the last is of the one in use
	since time.Time     // when the oldest line was written that is not known to be there; zero: all are
	chain chain         // the last line that is known to be there
	err   error         // why the last attempt failed
	lost  error         // what was written can't be read back: nothing new may happen
	round chan struct{} // closed when an attempt ends
	kick  chan struct{} // asks for one
}

// A part is what of a segment, from an offset on, is not known to be on disk.
type part struct {
	f        *os.File
	from, to int64 // to is known once the segment is out of use
	fresh    bool  // nor that the file is there
	retired  bool
}

func (d *disk) init() { d.round, d.kick = make(chan struct{}), make(chan struct{}, 1) }

// dirty notes that a line was written.
func (d *disk) dirty() {
	if d.since.IsZero() {
		d.since = time.Now()
	}
}

// retire says that the segment in use ends at offset to, if there is one.
func (d *disk) retire(to int64) {
	if n := len(d.parts); n > 0 {
		d.parts[n-1].to, d.parts[n-1].retired = to, true
	}
}

// add begins a new segment.
func (d *disk) add(f *os.File) { d.parts = append(d.parts, &part{f: f, fresh: true}) }

// ready reports why nothing new may be recorded, if so.
func (l *Log) ready() error {
	switch d := &l.disk; {
	case l.closed:
		return ErrClosed
	case d.lost != nil:
		return fmt.Errorf("%w: %w", ErrSlow, d.lost)
	case d.err != nil:
		return fmt.Errorf("%w: %w", ErrSlow, d.err)
	case !d.since.IsZero() && time.Since(d.since) > l.opt.MaxLag:
		return fmt.Errorf("%w: nothing for %v", ErrSlow, time.Since(d.since).Round(time.Second))
	}
	return nil
}

// stuck is why nothing can be recorded where a line is being written and the disk does not answer.
func (l *Log) stuck() error {
	return fmt.Errorf("%w: a write has not returned for %v", ErrSlow, l.opt.MaxLag)
}

// await waits until line seq is on disk. It gives l.mu up meanwhile.
func (l *Log) await(seq uint64) error {
	timer := time.NewTimer(l.opt.MaxLag)
	defer timer.Stop()
	for l.disk.chain.seq < seq {
		round := l.disk.round
		select {
		case l.disk.kick <- struct{}{}:
		default: // somebody has asked already
		}
		l.mu.Unlock()
		late := false
		select {
		case <-round:
		case <-timer.C:
			late = true
		}
		l.mu.Lock()
		if late {
			return fmt.Errorf("%w within %v", ErrSlow, l.opt.MaxLag)
		}
		if err := l.ready(); err != nil {
			return err
		}
	}
	return nil
}

// flush forces to disk what is not known to be there.
func (l *Log) flush() {
	l.mu.Lock()
	d := &l.disk
	if d.since.IsZero() || l.seg == nil || d.lost != nil {
		l.mu.Unlock()
		return
	}
	began, reached, again, chain := time.Now(), chain{seq: l.seq, prev: l.prev}, d.err != nil, d.chain
	parts := make([]part, len(d.parts))
	for i, p := range d.parts {
		parts[i] = *p
	}
	parts[len(parts)-1].to = l.offset
	l.mu.Unlock()
	err := l.force(parts, again, chain)
	l.mu.Lock()
	defer l.mu.Unlock()
	close(d.round)
	d.round = make(chan struct{})
	if d.err = err; errors.Is(err, errLost) {
		d.lost = err
	}
	if err != nil {
		return
	}
	d.flushed(parts)
	d.chain = reached
	d.since = time.Time{}
	if l.seq > reached.seq {
		d.since = began
	}
}

// flushed forgets what is on disk.
func (d *disk) flushed(parts []part) {
	for i, p := range parts {
		d.parts[i].from, d.parts[i].fresh = p.to, false
	}
	d.parts = slices.DeleteFunc(d.parts, func(p *part) bool {
		if !p.retired || p.from < p.to {
			return false
		}
		p.f.Close()
		return true
	})
}

// force syncs parts. After an attempt that failed the kernel may take for written what is not: then it is written
// again first.
func (l *Log) force(parts []part, again bool, c chain) error {
	fresh := false
	for _, p := range parts {
		if again {
			if err := rewrite(p, &c); err != nil {
				return err
			}
		}
		if err := l.opt.sync(p.f); err != nil {
			return fmt.Errorf("forcing the audit to disk: %w", err)
		}
		fresh = fresh || p.fresh
	}
	if fresh {
		return syncDir(l.dir)
	}
	return nil
}

// errLost means that lines which were written can't be read back.
var errLost = errors.New("the disk lost records")

// rewrite writes a part once more, if it is still there to be read: it must follow from c.
func rewrite(p part, c *chain) error {
	b, err := io.ReadAll(io.NewSectionReader(p.f, p.from, p.to-p.from))
	if err != nil {
		return fmt.Errorf("reading back: %w", err)
	}
	for line := range bytes.Lines(b) {
		if _, err := c.line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
			return fmt.Errorf("%w: record %d: %w", errLost, c.seq+1, err)
		}
	}
	if _, err := p.f.WriteAt(b, p.from); err != nil {
		return fmt.Errorf("writing the audit again: %w", err)
	}
	return nil
}

func datasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }

// release forces everything to disk and closes the segments.
func (l *Log) release() error {
	var errs []error
	for _, p := range l.disk.parts {
		errs = append(errs, l.opt.sync(p.f), p.f.Close())
	}
	l.disk.parts, l.seg = nil, nil
	return errors.Join(errs...)
}
