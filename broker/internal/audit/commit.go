package audit

import (
	"bytes"
	"errors"
	"slices"

	"torno.internal/protocol/control"
)

// Commit records what one commit of the store did, one record each with the commit's number, and returns when they
// are on disk. The last record alone has the hash of the manifest: with it the commit counts as recorded.
func (l *Log) Commit(records []Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range records {
		r := &records[i]
		if _, err := l.append(control.AuditEvent, 0, r.appendTo); err != nil {
			return err
		}
		l.committed(r)
	}
	return l.await(l.seq)
}

// LastCommit returns the last record in dir of a commit of the store, or a zero one if there is none. It may be a
// checkpoint: each segment begins with one that repeats it.
func LastCommit(dir string) (control.AuditRecord, error) {
	var last control.AuditRecord
	err := eachCommit(dir, func(here []control.AuditRecord) bool {
		for i := range slices.Backward(here) {
			if here[i].Manifest != "" {
				last = here[i]
				return false
			}
		}
		return true
	})
	return last, err
}

// CommitsSince returns the records in dir of commits of the store after number, oldest first.
func CommitsSince(dir string, number uint64) ([]control.AuditRecord, error) {
	var all []control.AuditRecord
	err := eachCommit(dir, func(here []control.AuditRecord) bool {
		here = slices.DeleteFunc(here, func(r control.AuditRecord) bool { return r.Type != control.AuditEvent })
		older := 0
		for older < len(here) && here[older].Commit <= number {
			older++
		}
		all = append(here[older:len(here):len(here)], all...)
		return older == 0
	})
	return all, err
}

// eachCommit calls f with the records of commits in each segment, the newest segment first, until f
// returns false.
func eachCommit(dir string, f func(here []control.AuditRecord) bool) error {
	paths, err := segments(dir)
	if err != nil {
		return err
	}
	for i := len(paths) - 1; i >= 0; i-- {
		var here []control.AuditRecord
		_, err := scanFrom(paths[i], 0, func(line []byte) error {
			if !bytes.Contains(line, []byte(`,"commit":`)) { // a quote in a string is escaped: none looks like this
				return nil
			}
			r, err := Decode(line)
			if err != nil || r.Commit == 0 {
				return errors.Join(errors.New("a commit of the store is recorded badly"), err)
			}
			here = append(here, r)
			return nil
		})
		if err != nil {
			return err
		}
		if !f(here) {
			return nil
		}
	}
	return nil
}
