package audit

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"torno.internal/protocol/control"
)

// A chain follows lines as they were written.
type chain struct {
	seq   uint64
	prev  [32]byte
	time  time.Time // of the last line; zero: times are not looked at
	loose bool      // the next line may be any
}

// line checks one line against the one before it and reads it.
func (c *chain) line(line []byte) (control.AuditRecord, error) {
	r, err := Decode(line)
	switch {
	case err != nil:
		return r, err
	case c.loose:
	case r.Seq != c.seq+1:
		return r, fmt.Errorf("it carries number %d: a record is missing, added or moved", r.Seq)
	case r.Prev != string(appendHex(nil, c.prev[:])):
		return r, errors.New("it does not follow from the record before it: one of the two was changed")
	case r.Time.Before(c.time) && r.Event != EventClockSetBack:
		return r, errors.New("it is earlier than the record before it, and none says that the clock was set back")
	}
	c.seq, c.prev, c.loose = r.Seq, lineHash(line), false
	return r, nil
}

// A brokenError says where the chain breaks.
type brokenError struct {
	file   string
	offset int64  // of the bad record
	seq    uint64 // its number, as it should be
	why    error
}

func broken(path string, offset int64, seq uint64, why error) error {
	return &brokenError{filepath.Base(path), offset, seq, why}
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("record %d in %s at byte %d: %v", e.seq, e.file, e.offset, e.why)
}
