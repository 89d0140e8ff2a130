package audit

import (
	"slices"
	"strconv"
	"time"

	"torno.internal/protocol/control"
)

// How far apart checkpoints may be. What stands behind the last one is in the chain, but not yet signed.
const (
	CheckpointRecords  = 10_000
	CheckpointInterval = time.Minute
)

// maxCheckpoint is the room that is always kept for one, in bytes: that of a segment's beginning needs more.
const maxCheckpoint = 8 << 10

// maxOpen is how many open exchanges the beginning of a segment lists. Of more the next broker learns from the
// segments before.
const maxOpen = 3500

// Checkpoint records a checkpoint now and returns its line.
func (l *Log) Checkpoint() ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.checkpoint(); err != nil {
		return nil, err
	}
	return slices.Clone(l.buf[:l.length-1]), nil
}

// checkpoint signs all that is recorded so far.
func (l *Log) checkpoint() error {
	_, err := l.append(control.AuditCheckpoint, -maxCheckpoint, l.opt.Signer.appendSigned)
	return err
}

// due reports whether a checkpoint should be recorded, for there are records behind the last one.
func (l *Log) due(now time.Time) bool {
	return l.seq > l.checkpointed && (l.seq-l.checkpointed >= CheckpointRecords || now.Sub(l.checkpointAt) >= CheckpointInterval)
}

// appendOpen appends the exchanges that are open where a segment begins, oldest first.
func (l *Log) appendOpen(b []byte) []byte {
	if len(l.open) == 0 {
		return b
	}
	ids := make([]ID, 0, len(l.open))
	for id := range l.open {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	b = append(appendName(b, "open"), '[')
	for i, id := range ids[:min(len(ids), maxOpen)] {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendUint(b, uint64(id), 10)
	}
	b = append(b, ']')
	return appendCount(b, "open_more", int64(max(0, len(ids)-maxOpen)))
}
