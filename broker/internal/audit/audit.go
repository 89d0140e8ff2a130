// Package audit records every exchange before it happens and after it ended, one line of JSON each, in
// a hash chain: each line carries the SHA-256 of the one before, so that an edit, a removal within, a
// reordering or an insertion shows, and where. Checkpoints in the chain are signed with Ed25519 (RFC 8032) and
// ML-DSA-65 (FIPS 204), so that nobody without the keys writes it anew. A cut at the end shows against a checkpoint
// that was kept elsewhere. docs/audit.md describes each byte.
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
	"time"

	"torno.internal/protocol/control"
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
	ErrSlow   = errors.New("the disk does not take what is recorded")
	ErrBudget = errors.New("the session's audit budget is used up")
	ErrClosed = errors.New("the audit is closed")
)

// Options tune a Log. The zero value of each but Signer means the default.
type Options struct {
	Signer           *Signer
	Segment          int64         // bytes; DefaultSegment
	RecordsPerSecond int           // per session, with a burst of ten seconds' worth; DefaultRate
	BytesPerHour     int64         // per session; DefaultBytes
	SyncAlways       bool          // Begin returns when its line is on disk
	MaxLag           time.Duration // how long a line may not be on disk before nothing new is recorded; DefaultLag
	KeepBytes        int64         // of all segments: the oldest are deleted before there are more; 0: all are kept
	KeepFor          time.Duration // segments whose records are all older are deleted; 0: all are kept

	now  func() time.Time       // for tests; nil: the clock
	sync func(f *os.File) error // for tests; nil: fdatasync
}

// An ID names an exchange that has begun: the sequence number of its first line.
type ID uint64

// A Log appends to the audit in one directory. It is safe for concurrent use.
type Log struct {
	dir string
	opt Options

	mu           lock
	seg          *os.File
	size         int64 // allocated in seg
	offset       int64 // where the next line goes
	torn         int64 // bytes from offset on that a failed write may have left
	length       int   // of the last line
	seq          uint64
	prev         [32]byte
	last         time.Time // of the last line
	checkpointed uint64    // the last checkpoint
	checkpointAt time.Time
	commit       uint64 // the last one of the store that is recorded
	manifest     string
	reserved     int64 // kept for what must be recorded: ends, and acts under way
	open         map[ID]struct{}
	late         map[ID]Outcome // ends that could not be written yet
	budgets      map[string]*budget
	aggregateAt  time.Time
	pruneAt      time.Time
	buf          []byte // the last line
	disk         disk
	closed       bool

	stop    chan struct{}
	done    chan struct{} // the keeper has ended
	watched chan struct{} // and whoever watches mu
}

// Open opens the audit in dir, or begins one. A torn last line is cut off, and exchanges that had begun
// and not ended are recorded as interrupted.
func Open(dir string, opt Options) (*Log, error) {
	if opt.Signer == nil {
		return nil, errors.New("no key to sign the audit with")
	}
	opt.fill()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir, opt: opt, open: map[ID]struct{}{}, late: map[ID]Outcome{}, budgets: map[string]*budget{},
		stop: make(chan struct{}), done: make(chan struct{}), watched: make(chan struct{})}
	l.disk.init()
	l.mu.init()
	if err := l.recover(); err != nil {
		return nil, errors.Join(err, l.release())
	}
	l.aggregateAt, l.pruneAt = l.last.Add(aggregateInterval), l.last
	go l.keeper()
	go l.mu.watch(l.stop, l.watched, opt.MaxLag)
	return l, nil
}

func (o *Options) fill() {
	if o.Segment == 0 {
		o.Segment = DefaultSegment
	}
	o.Segment = max(o.Segment, 3*maxLine)
	if o.MaxLag == 0 {
		o.MaxLag = DefaultLag
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.sync == nil {
		o.sync = datasync
	}
}

// Begin records that an exchange is about to happen. It is written when Begin returns; only then may the
// exchange happen. The error matches ErrFull, ErrSlow or ErrBudget, or is one of writing.
func (l *Log) Begin(r *Record) (ID, error) {
	if !l.mu.LockSoon() {
		return 0, l.stuck()
	}
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return 0, err
	}
	if !l.spend(r) {
		l.suppress(r)
		return 0, ErrBudget
	}
	seq, err := l.append(control.AuditBegin, maxEnd, r.appendTo)
	if err != nil {
		return 0, err
	}
	l.open[ID(seq)] = struct{}{}
	l.reserved += maxEnd
	l.charge(r, endCost)
	if !l.opt.SyncAlways {
		return ID(seq), nil
	}
	if err := l.await(seq); err != nil {
		return 0, errors.Join(err, l.end(ID(seq), &Outcome{Reason: unwritten}))
	}
	return ID(seq), nil
}

// Witness records an event before what it is about happens: it is written when Witness returns, and on disk where beginnings
// of exchanges have to be. The error is as Begin's.
func (l *Log) Witness(r *Record) error {
	if !l.mu.LockSoon() {
		return l.stuck()
	}
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return err
	}
	if !l.spend(r) {
		l.suppress(r)
		return ErrBudget
	}
	seq, err := l.append(r.kind(), 0, r.appendTo)
	if err != nil {
		return err
	}
	l.charge(r, 0)
	if !l.opt.SyncAlways {
		return nil
	}
	return l.await(seq)
}

// unwritten is the reason of an exchange that did not happen because its beginning was not on disk in time.
const unwritten = "audit_unavailable"

// End records how an exchange ended. Room for it was kept by Begin. Where writing fails it is kept in memory and
// recorded as soon as that works again; the error says so.
func (l *Log) End(id ID, o *Outcome) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end(id, o)
}

func (l *Log) end(id ID, o *Outcome) error {
	if _, ok := l.open[id]; !ok {
		return fmt.Errorf("exchange %d is not open", id)
	}
	_, err := l.append(control.AuditEnd, -maxEnd, func(b []byte) []byte { return o.appendTo(b, id) })
	if err != nil {
		l.late[id] = *o
		return err
	}
	delete(l.open, id)
	delete(l.late, id)
	l.reserved -= maxEnd
	return nil
}

// Event records something that is no exchange, or a request that was refused. Past the session's budget
// refusals are counted instead, and the count is recorded. What is free waits for a disk that does not answer.
func (l *Log) Event(r *Record) error {
	if r.Free {
		l.mu.Lock()
	} else if !l.mu.LockSoon() {
		return l.stuck()
	}
	defer l.mu.Unlock()
	if !l.spend(r) {
		l.suppress(r)
		return ErrBudget
	}
	_, err := l.append(r.kind(), 0, r.appendTo)
	if err == nil {
		l.charge(r, 0)
		l.committed(r)
	}
	return err
}

// committed notes a commit of the store that was recorded. Each segment begins with the last one, so that those before
// it can go.
func (l *Log) committed(r *Record) {
	if r.Manifest != "" {
		l.commit, l.manifest = r.Commit, r.Manifest
	}
}

// kind is what a record that begins nothing is.
func (r *Record) kind() string {
	if r.Event == "" {
		return control.AuditRefused
	}
	return control.AuditEvent
}

// Act does something that must be recorded, and records it as r, an event, once it is done. Where there is no room
// for that it is not done. r's strings must be short, as names are.
func (l *Log) Act(r *Record, do func() error) error {
	if err := l.prepare(); err != nil {
		return err
	}
	err := do()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.reserved -= maxEnd
	if err != nil {
		return err
	}
	if _, err := l.append(r.kind(), 0, r.appendTo); err != nil {
		return fmt.Errorf("%s was done, and could not be recorded: %w", r.Event, err)
	}
	l.committed(r)
	return nil
}

// prepare keeps room for an event.
func (l *Log) prepare() error {
	if !l.mu.LockSoon() {
		return l.stuck()
	}
	defer l.mu.Unlock()
	if err := l.ready(); err != nil {
		return err
	}
	if err := l.makeRoom(maxEnd); err != nil {
		return err
	}
	l.reserved += maxEnd
	return nil
}

// Close records a last checkpoint and forces everything to disk. Exchanges that are still open are recorded as
// interrupted by the next Open.
func (l *Log) Close() error {
	close(l.stop)
	<-l.done
	<-l.watched
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settle()
	l.aggregate()
	var err error
	if l.seq > l.checkpointed {
		err = l.checkpoint()
	}
	if errors.Is(err, ErrFull) { // then the next broker signs what stands behind the last one
		err = nil
	}
	l.closed = true
	return errors.Join(err, l.release())
}
