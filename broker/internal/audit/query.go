package audit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"sort"

	"torno.internal/protocol/control"
)

// An Entry is one exchange, or a record that is of none.
type Entry struct {
	Line, EndLine []byte // as they stand
	Record        control.AuditRecord
	End           *control.AuditRecord // of an exchange; nil: it has not ended, or this is none
}

// JSON returns the entry as one object: its record, with that of its end as member "end".
func (e *Entry) JSON() []byte {
	if e.End == nil {
		return e.Line
	}
	return slices.Concat(e.Line[:len(e.Line)-1], []byte(`,"end":`), e.EndLine, []byte("}"))
}

// ErrStop ends a Query early, without an error.
var ErrStop = errors.New("enough")

// Query calls f with every entry of the audit in dir that is wanted, in the order in which they were complete:
// exchanges when they ended, those that have not ended last. Checkpoints are left out unless they are asked for as
// event "checkpoint". Its memory is bounded by what is open at once.
func Query(ctx context.Context, dir string, wanted control.AuditFilter, f func(*Entry) error) error {
	filter, err := newFilter(wanted)
	if err != nil {
		return err
	}
	paths, err := segments(dir)
	if err != nil {
		return err
	}
	q := &query{filter: filter, f: f, open: map[uint64]*Entry{}}
	for _, path := range skip(paths, filter) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		_, err := scanFrom(path, 0, q.line)
		switch {
		case errors.Is(err, fs.ErrNotExist): // deleted meanwhile
		case errors.Is(err, ErrStop), errors.Is(err, errEnough):
			return nil
		case err != nil:
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return q.rest()
}

// skip leaves out segments that end before what is wanted begins.
func skip(paths []string, f *filter) []string {
	if f.Since.IsZero() || len(paths) < 2 {
		return paths
	}
	n := sort.Search(len(paths)-1, func(i int) bool {
		began, err := timeOf(paths[i+1])
		return err != nil || began.After(f.Since)
	})
	return paths[n:]
}

// A query is one pass over the audit.
type query struct {
	filter *filter
	f      func(*Entry) error
	open   map[uint64]*Entry // exchanges that are wanted so far
}

func (q *query) line(line []byte) error {
	r, err := Decode(line)
	if err != nil {
		return fmt.Errorf("%w (torno audit verify says more)", err)
	}
	switch r.Type {
	case control.AuditEnd:
		e := q.open[r.Begin]
		if e == nil {
			return nil
		}
		delete(q.open, r.Begin)
		e.End, e.EndLine = &r, bytes.Clone(line)
		return q.complete(e)
	case control.AuditCheckpoint:
		if q.filter.Event != control.AuditCheckpoint {
			return nil
		}
		r.Event = control.AuditCheckpoint
	}
	if len(q.open) == 0 && q.filter.tooLate(r.Time) {
		return errEnough
	}
	if !q.filter.begins(&r) {
		return nil
	}
	e := &Entry{Line: bytes.Clone(line), Record: r}
	if r.Type == control.AuditBegin {
		q.open[r.Seq] = e
		return nil
	}
	return q.complete(e)
}

func (q *query) complete(e *Entry) error {
	if !q.filter.ends(e) {
		return nil
	}
	return q.f(e)
}

// rest delivers the exchanges that have no end.
func (q *query) rest() error {
	for _, seq := range slices.Sorted(maps.Keys(q.open)) {
		if err := q.complete(q.open[seq]); errors.Is(err, ErrStop) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// ErrNoRecord means that there is no record of that number.
var ErrNoRecord = errors.New("no such record")

// Find returns the entry that record seq belongs to.
func Find(dir string, seq uint64) (*Entry, error) {
	paths, err := segments(dir)
	if err != nil {
		return nil, err
	}
	e, at, err := find(paths, seq)
	if err == nil && e.Record.Type == control.AuditEnd {
		end := e
		if e, at, err = find(paths, end.Record.Begin); errors.Is(err, ErrNoRecord) { // deleted, for it need not be kept
			return end, nil
		}
	}
	if err != nil || e.Record.Type != control.AuditBegin {
		return e, err
	}
	for _, path := range paths[at:] {
		_, err := scanFrom(path, 0, func(line []byte) error {
			if !bytes.Contains(line, fmt.Appendf(nil, `,"type":"end","begin":%d,`, e.Record.Seq)) {
				return nil
			}
			r, err := Decode(line)
			if err == nil && r.Type == control.AuditEnd && r.Begin == e.Record.Seq {
				e.End, e.EndLine = &r, bytes.Clone(line)
				err = errEnough
			}
			return err
		})
		if errors.Is(err, errEnough) {
			break
		}
		if err != nil {
			return nil, err
		}
	}
	return e, nil
}

// find returns record seq and the index of the segment that it stands in.
func find(paths []string, seq uint64) (*Entry, int, error) {
	at := sort.Search(len(paths), func(i int) bool { return firstOf(paths[i]) > seq }) - 1
	if at < 0 {
		return nil, 0, ErrNoRecord
	}
	e, next := &Entry{}, firstOf(paths[at])
	_, err := scanFrom(paths[at], 0, func(line []byte) (err error) {
		if next++; next <= seq {
			return nil
		}
		e.Line = bytes.Clone(line)
		if e.Record, err = Decode(line); err != nil {
			return err
		}
		return errEnough
	})
	switch {
	case err == nil:
		return nil, 0, ErrNoRecord
	case !errors.Is(err, errEnough):
		return nil, 0, err
	}
	return e, at, nil
}
