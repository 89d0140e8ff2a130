package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Limits of the file of verdicts.
const (
	maxVerdicts     = 16       // the oldest go
	maxVerdictsSize = 64 << 10 // bytes
)

// How long to wait for another's probe, and how often to look whether it is over.
const (
	lockWait = 3 * probeTime
	lockPoll = 20 * time.Millisecond
)

// verdicts are those of earlier probes, locked. A file that can't be had, or holds something else, is one
// without verdicts: then there is a probe each time.
type verdicts struct {
	file *os.File // nil: there is none
	all  []verdict
}

// openVerdicts opens and reads the file at path, once nobody else has it open. Who may not write it can still
// read what others found. Nobody can hold it for ever: whoever can read it can lock it.
func openVerdicts(ctx context.Context, path string) (*verdicts, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		f, err = os.Open(path)
	}
	if err != nil {
		return &verdicts{}, nil
	}
	for began := time.Now(); time.Since(began) < lockWait; {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
			break
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, context.Cause(ctx)
		case <-time.After(lockPoll):
		}
	}
	v := &verdicts{file: f}
	b, readErr := io.ReadAll(io.LimitReader(f, maxVerdictsSize))
	if readErr != nil || json.Unmarshal(b, &v.all) != nil {
		v.all = nil
	}
	if err != nil { // not ours to write
		f.Close()
		v.file = nil
	}
	return v, nil
}

// find returns what is known of a machine; Works of it is not looked at.
func (v *verdicts) find(of verdict) (works, known bool) {
	for _, old := range v.all {
		of.Works = old.Works
		if old == of {
			return old.Works, true
		}
	}
	return false, false
}

// add keeps a verdict. Those of other boots hold for nothing any more.
func (v *verdicts) add(newest verdict) {
	if v.file == nil {
		return
	}
	kept := []verdict{newest}
	for _, old := range v.all {
		if old.Boot == newest.Boot && len(kept) < maxVerdicts {
			kept = append(kept, old)
		}
	}
	v.all = kept
	b, err := json.MarshalIndent(kept, "", "  ")
	if err != nil || v.file.Truncate(0) != nil {
		return
	}
	_, _ = v.file.WriteAt(append(b, '\n'), 0) // what is cut short holds no verdict
}

func (v *verdicts) close() {
	if v.file != nil {
		v.file.Close()
	}
}
