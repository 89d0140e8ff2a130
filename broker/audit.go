package broker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"torno.internal/broker/internal/audit"
	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// AuditDir returns where the broker whose state is in stateDir keeps its audit.
func AuditDir(stateDir string) string { return filepath.Join(stateDir, "audit") }

func (b *Broker) auditDir() string { return AuditDir(b.cfg.StateDir) }

// openAudit opens the audit, with the keys that sign it from the store.
func (b *Broker) openAudit() error {
	seed, err := b.store.SigningSeed()
	if err != nil {
		return err
	}
	defer seed.Wipe()
	c := b.cfg.Operator
	opt := audit.Options{
		RecordsPerSecond: c.Limits.AuditRecordsPerSecond,
		BytesPerHour:     int64(c.Limits.AuditMiBPerHour) << 20,
		SyncAlways:       c.Audit.Sync == control.AuditSyncAlways,
		KeepBytes:        int64(c.Audit.KeepMiB) << 20,
		KeepFor:          time.Duration(c.Audit.KeepDays) * 24 * time.Hour,
	}
	err = seed.Use(func(s []byte) (err error) { opt.Signer, err = audit.NewSigner(s); return err })
	if err != nil {
		return err
	}
	b.auditKey = opt.Signer.Public()
	if err := b.publishAuditKeys(); err != nil {
		return err
	}
	b.audit, err = audit.Open(b.auditDir(), opt)
	return err
}

// AuditKeysFile returns the file in which a broker leaves the public keys of its audit, so that the audit can be
// verified where no broker runs. Who may write there can put others into it: keep a copy elsewhere.
func AuditKeysFile(stateDir string) string { return filepath.Join(stateDir, "audit-keys.json") }

func (b *Broker) publishAuditKeys() error {
	keys, err := json.Marshal(b.auditKey)
	if err != nil {
		return err
	}
	path := AuditKeysFile(b.cfg.StateDir)
	if have, err := os.ReadFile(path); err == nil && bytes.Equal(have, keys) {
		return nil
	}
	if err := os.WriteFile(path+".new", keys, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// VerifyAudit checks the audit in dir, which may be a copy and may be in use. It needs no broker and no private key.
func VerifyAudit(dir string, check control.AuditCheck) (control.AuditVerdict, error) {
	return audit.Verify(dir, check)
}

// TailAudit calls f with the last lines of the audit in dir and, if follow is set, with each new one until ctx ends.
// A line is valid until f returns.
func TailAudit(ctx context.Context, dir string, last int, follow bool, f func(line []byte, r control.AuditRecord) error) error {
	return audit.Tail(ctx, dir, last, follow, func(line []byte) error {
		r, err := audit.Decode(line)
		if err != nil {
			return err
		}
		return f(line, r)
	})
}

// An AuditEntry is one exchange of the audit, or a record that is of none.
type AuditEntry = audit.Entry

// The errors of reading an audit that callers match: ErrAuditStop, returned by the function that a query calls, ends
// it without an error.
var (
	ErrAuditStop = audit.ErrStop
	ErrNoRecord  = audit.ErrNoRecord
)

// QueryAudit calls f with every entry of the audit in dir that the filter wants, in the order in which they ended.
func QueryAudit(ctx context.Context, dir string, wanted control.AuditFilter, f func(*AuditEntry) error) error {
	return audit.Query(ctx, dir, wanted, f)
}

// ReadAudit calls f with every record of the audit in dir from since on and before until, as it stands; zero times
// bound nothing. A line is valid until f returns.
func ReadAudit(ctx context.Context, dir string, since, until time.Time, f func(line []byte, r control.AuditRecord) error) error {
	return audit.Records(ctx, dir, since, until, f)
}

// FindAudit returns the entry that record seq of the audit in dir belongs to. The error matches ErrNoRecord.
func FindAudit(dir string, seq uint64) (*AuditEntry, error) { return audit.Find(dir, seq) }

// AuditKeyIDs returns the short names by which checkpoints call the keys.
func AuditKeyIDs(k control.AuditKeys) [2]string { return audit.KeyIDs(k) }

func (b *Broker) auditKeys(*http.Request) (control.AuditKeys, error) { return b.auditKey, nil }

func (b *Broker) verifyAudit(_ context.Context, check control.AuditCheck) (control.AuditVerdict, error) {
	if check.Keys == nil {
		check.Keys = &b.auditKey
	}
	v, err := audit.Verify(b.auditDir(), check)
	if err != nil {
		return v, &control.Error{Code: control.CodeInvalid, Message: err.Error()}
	}
	return v, nil
}

// checkpointAudit records a checkpoint and answers with its line.
func (b *Broker) checkpointAudit(w http.ResponseWriter, _ *http.Request) {
	line, err := b.audit.Checkpoint()
	if err != nil {
		ctlserver.WriteError(w, b.log, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(line, '\n')) // a peer that is gone needs no answer
}

func (b *Broker) tailAudit(w http.ResponseWriter, r *http.Request) {
	last, err := strconv.Atoi(r.FormValue("last"))
	if err != nil || last < 0 {
		last = 10
	}
	out := newLines(w)
	err = audit.Tail(r.Context(), b.auditDir(), last, r.FormValue("follow") != "", func(line []byte) error {
		return errors.Join(out.write(line), out.flush.Flush())
	})
	if err != nil && r.Context().Err() == nil {
		b.log.Error("audit tail", "err", err)
	}
}

// queryAudit answers with the entries that are wanted, one JSON object a line.
func (b *Broker) queryAudit(w http.ResponseWriter, r *http.Request) {
	var wanted control.AuditFilter
	if err := ctlserver.ReadJSON(w, r, &wanted); err != nil {
		ctlserver.WriteError(w, b.log, err)
		return
	}
	out := newLines(w)
	err := audit.Query(r.Context(), b.auditDir(), wanted, func(e *audit.Entry) error { return out.write(e.JSON()) })
	if err != nil && r.Context().Err() == nil {
		ctlserver.WriteError(w, b.log, &control.Error{Code: control.CodeInvalid, Message: err.Error()})
	}
}

// lines are JSON objects as they come, one a line.
type lines struct {
	w     http.ResponseWriter
	flush *http.ResponseController
}

func newLines(w http.ResponseWriter) *lines {
	w.Header().Set("Content-Type", "application/x-ndjson")
	return &lines{w, http.NewResponseController(w)}
}

func (l *lines) write(line []byte) error {
	_, err := l.w.Write(append(line, '\n'))
	return err
}

// unrecordedAct says to an operator why something was not done that could not have been recorded.
func unrecordedAct(err error) error {
	if errors.Is(err, audit.ErrFull) || errors.Is(err, audit.ErrSlow) {
		return &control.Error{Code: control.CodeBusy, Message: "it could not be recorded, so it was not done: " + err.Error(), Hint: "look at the disk of the state directory"}
	}
	return err
}

// unrecorded is how a request fails that can't be recorded.
func unrecorded(err error) error {
	if errors.Is(err, audit.ErrBudget) {
		return protocol.Refuse(protocol.ReasonRateLimited, err)
	}
	return protocol.Refuse(protocol.ReasonAuditUnavailable, err)
}
