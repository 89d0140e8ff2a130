package audit

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"torno.internal/protocol/control"
)

// maxUnsigned is how many records may follow one another without a checkpoint: some come late, on a full disk.
const maxUnsigned = 10 * CheckpointRecords

// maxSince is how many checkpoints an audit is checked against at once.
const maxSince = 10_000

// verifyTries is how often Verify begins anew when segments are deleted under it.
const verifyTries = 3

// Verify reads the whole audit in dir and checks its chain, its checkpoints' signatures if check has keys, and that it
// holds each checkpoint of check.Since. The verdict names the first bad record. Its memory is bounded whatever the
// length. The audit may be in use.
func Verify(dir string, check control.AuditCheck) (control.AuditVerdict, error) {
	for try := 1; ; try++ {
		v, err := verify(dir, check)
		if try < verifyTries && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		return v, err
	}
}

func verify(dir string, check control.AuditCheck) (control.AuditVerdict, error) {
	c, err := newChecker(check)
	if err != nil {
		return control.AuditVerdict{}, err
	}
	paths, err := segments(dir)
	if err != nil {
		return control.AuditVerdict{}, err
	}
	if len(paths) == 0 {
		return control.AuditVerdict{}, fmt.Errorf("%q holds no audit", dir)
	}
	c.verdict.First = firstOf(paths[0])
	c.chain.seq, c.chain.loose = c.verdict.First-1, c.verdict.First > 1
	for i, path := range paths {
		if err = c.segment(path, i == len(paths)-1); err != nil {
			break
		}
	}
	if err == nil {
		err = c.end(paths)
	}
	var bad *brokenError
	if errors.As(err, &bad) {
		c.verdict.Problem, c.verdict.Record, c.verdict.File, c.verdict.Offset = bad.why.Error(), bad.seq, bad.file, bad.offset
	} else if err != nil {
		return control.AuditVerdict{}, err
	}
	v := c.verdict
	v.OK, v.Last, v.Head = err == nil, c.chain.seq, hex.EncodeToString(c.chain.prev[:])
	return v, nil
}

// A checker is an audit that is being verified.
type checker struct {
	verdict      control.AuditVerdict
	chain        chain
	verifier     *verifier
	since        map[uint64]string // checkpoints that must be there, by number
	checkpointed uint64            // the last one
	through      uint64            // the last record that was deleted by right
}

func newChecker(check control.AuditCheck) (*checker, error) {
	c := &checker{since: map[uint64]string{}}
	if check.Keys != nil {
		var err error
		if c.verifier, err = newVerifier(*check.Keys); err != nil {
			return nil, err
		}
		c.verdict.Keys = append(c.verdict.Keys, c.verifier.ids[:]...)
	}
	if len(check.Since) > maxSince {
		return nil, fmt.Errorf("%d checkpoints, at most %d are looked for", len(check.Since), maxSince)
	}
	for i, line := range check.Since {
		r, err := Decode([]byte(line))
		if err == nil && r.Type != control.AuditCheckpoint {
			err = fmt.Errorf("a record of type %q", r.Type)
		}
		if err == nil && c.verifier != nil {
			err = c.verifier.verify([]byte(line), &r)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d of what was kept is no checkpoint: %w", i+1, err)
		}
		if other := c.since[r.Seq]; other != "" && other != line {
			return nil, fmt.Errorf("line %d of what was kept contradicts another, of the same number %d", i+1, r.Seq)
		}
		c.since[r.Seq] = line
	}
	return c, nil
}

// segment checks one segment. What stands at the end of the last one may be being written: it is read twice.
func (c *checker) segment(path string, last bool) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	s, twice := newScanner(f), int64(-1)
	if want := segmentName(c.chain.seq + 1); filepath.Base(path) != want {
		return broken(path, 0, c.chain.seq+1, fmt.Errorf("expected segment %s: one is missing, added or renamed", want))
	}
	for {
		at := s.offset
		line, err := s.next()
		if errors.Is(err, io.EOF) {
			err = s.rest()
		}
		if last && twice != at && (errors.Is(err, errTorn) || errors.Is(err, errBehind)) {
			twice = at
			time.Sleep(SyncInterval)
			if err := s.seek(f, at); err != nil {
				return err
			}
			continue
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = c.line(line, at == 0)
		}
		if err != nil {
			return broken(path, at, c.chain.seq+1, err)
		}
	}
}

// line checks one line; begins says that it is the first of its segment.
func (c *checker) line(line []byte, begins bool) error {
	before := c.chain
	r, err := c.chain.line(line)
	if err != nil {
		return err
	}
	c.chain.time = r.Time
	kept, wanted := c.since[r.Seq]
	delete(c.since, r.Seq)
	switch {
	case wanted && kept != string(line):
		err = errors.New("a checkpoint of this number was kept elsewhere, and it is another: the audit was written anew")
	case begins && r.Type != control.AuditCheckpoint:
		err = errors.New("a segment begins with a checkpoint, and this one does not")
	case r.Type == control.AuditCheckpoint:
		err = c.checkpoint(line, &r)
	case c.checkpointed > 0 && r.Seq-c.checkpointed > maxUnsigned:
		err = fmt.Errorf("no checkpoint among the %d records before it", maxUnsigned)
	case r.Event == EventClockSetBack:
		c.verdict.Backwards++
	case r.Event == EventAuditDeleted:
		c.through = max(c.through, r.Through)
	case r.Interrupted:
		c.verdict.Interrupted++
	}
	if err != nil { // it is not good, although it follows
		c.chain = before
		return err
	}
	c.verdict.Records, c.verdict.Time = c.verdict.Records+1, r.Time
	return nil
}

func (c *checker) checkpoint(line []byte, r *control.AuditRecord) error {
	c.checkpointed = r.Seq
	if c.verifier == nil {
		return nil
	}
	if err := c.verifier.verify(line, r); err != nil {
		return err
	}
	c.verdict.Checkpoints, c.verdict.Signed = c.verdict.Checkpoints+1, r.Seq
	return nil
}

// end looks at what only the end shows.
func (c *checker) end(paths []string) error {
	first := c.verdict.First
	if first > 1 {
		if c.through < first-1 {
			return broken(paths[0], 0, c.through+1, fmt.Errorf("records up to %d are missing, and none says that they were deleted", first-1))
		}
		c.verdict.Notes = append(c.verdict.Notes, fmt.Sprintf("records up to %d were deleted, as broker.toml says", first-1))
	}
	for _, seq := range slices.Sorted(maps.Keys(c.since)) {
		if seq < first {
			c.verdict.Notes = append(c.verdict.Notes, fmt.Sprintf("checkpoint %d was deleted meanwhile; only the signatures of later ones speak for it", seq))
			continue
		}
		return broken(paths[len(paths)-1], 0, seq, fmt.Errorf("a checkpoint of this number was kept elsewhere, and the audit ends at record %d: it was cut, or an old copy was put back", c.chain.seq))
	}
	return nil
}
