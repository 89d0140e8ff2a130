package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"torno.internal/protocol/control"
)

// Verify reads the whole audit in dir and checks its chain. Its memory is bounded whatever the length.
// The verdict names the first bad record. An audit that was cut at its end verifies: compare Head with
// one that was kept elsewhere.
func Verify(dir string) (control.AuditVerdict, error) {
	paths, err := segments(dir)
	if err != nil {
		return control.AuditVerdict{}, err
	}
	var c chain
	for _, path := range paths {
		if err := c.segment(path); err != nil {
			var bad *brokenError
			if !errors.As(err, &bad) {
				return control.AuditVerdict{}, err
			}
			return control.AuditVerdict{Records: c.seq, Head: hex.EncodeToString(c.prev[:]), Problem: err.Error()}, nil
		}
	}
	return control.AuditVerdict{OK: true, Records: c.seq, Head: hex.EncodeToString(c.prev[:])}, nil
}

// A brokenError says where the chain breaks.
type brokenError struct {
	file string
	seq  uint64
	why  string
}

func (e *brokenError) Error() string {
	return fmt.Sprintf("record %d in %s: %s", e.seq, filepath.Base(e.file), e.why)
}

// A chain follows the lines as they were written.
type chain struct {
	seq  uint64
	prev [32]byte
}

func (c *chain) segment(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	bad := func(why string) error { return &brokenError{path, c.seq + 1, why} }
	if want := segmentName(c.seq + 1); filepath.Base(path) != want {
		return bad("expected segment " + want + ": one is missing, added or renamed")
	}
	s := newScanner(f)
	for {
		line, err := s.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return bad(err.Error())
		}
		if err := c.line(line); err != nil {
			return bad(err.Error())
		}
	}
	zeros, err := s.rest()
	if err != nil {
		return err
	}
	if !zeros {
		return bad("something stands after the last record")
	}
	return nil
}

// line checks one line against the one before it.
func (c *chain) line(line []byte) error {
	k, err := parseLink(line)
	switch {
	case err != nil:
		return err
	case k.seq != c.seq+1:
		return fmt.Errorf("it carries number %d: a record is missing, added or moved", k.seq)
	case k.prev != c.prev:
		return errors.New("it does not follow from the record before it: one of the two was changed")
	}
	c.seq, c.prev = k.seq, lineHash(line)
	return nil
}
