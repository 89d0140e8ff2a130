package broker

import (
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strconv"

	ctlserver "torno.internal/broker/internal/control"
	"torno.internal/broker/internal/store"
	"torno.internal/protocol/control"
)

// backup sends a backup of the store.
func (b *Broker) backup(w http.ResponseWriter, _ *http.Request) {
	out := &backupWriter{w: w}
	info, err := b.store.Backup(out)
	if err != nil {
		if !out.begun {
			ctlserver.WriteError(w, b.log, explain(err))
			return
		}
		b.log.Error("sending a backup", "err", err)
		panic(http.ErrAbortHandler) // so that nobody takes what was sent for all
	}
	if err := b.store.Note(store.Change{Event: store.EventBackup, Name: "commit " + strconv.FormatUint(info.Commit, 10)}); err != nil {
		b.log.Error("recording an event", "event", store.EventBackup, "err", err)
	}
}

// A backupWriter sends the fields of the response with the first bytes.
type backupWriter struct {
	w     http.ResponseWriter
	begun bool
}

func (b *backupWriter) Write(p []byte) (int, error) {
	if !b.begun {
		b.begun = true
		b.w.Header().Set("Content-Type", "application/octet-stream")
	}
	return b.w.Write(p)
}

func (b *Broker) verifyStore(*http.Request) (control.StoreVerdict, error) {
	v, err := b.store.Verify()
	if err != nil {
		return control.StoreVerdict{}, explain(err)
	}
	return verdictOf(v, nil), nil
}

func verdictOf(v store.Verdict, backup *store.BackupInfo) control.StoreVerdict {
	out := control.StoreVerdict{
		OK: len(v.Broken) == 0, Commit: v.Commit, Manifest: hex.EncodeToString(v.Manifest[:]),
		Agents: v.Agents, Secrets: v.Secrets, Versions: v.Versions, Sessions: v.Sessions,
	}
	if backup != nil {
		info := backupOf(*backup)
		out.Backup = &info
	}
	for _, t := range v.Broken {
		out.Broken = append(out.Broken, control.BrokenEntry{Agent: t.Agent, Name: t.Name, Version: t.Version, Problem: t.Error()})
	}
	return out
}

func backupOf(i store.BackupInfo) control.BackupInfo {
	return control.BackupInfo{KeyID: i.KeyID, Commit: i.Commit, Made: i.Made, Manifest: hex.EncodeToString(i.Manifest[:]), Bytes: i.BackupSize()}
}

// ReadBackupInfo reads what a backup says about itself. Only VerifyBackup and RestoreStore check it.
func ReadBackupInfo(header []byte) (control.BackupInfo, error) {
	i, err := store.DecodeBackup(header)
	if err != nil {
		return control.BackupInfo{}, err
	}
	return backupOf(i), nil
}

// VerifyBackup checks a backup and everything in it.
func VerifyBackup(k KeySource, r io.Reader) (control.StoreVerdict, error) {
	i, v, err := store.VerifyBackup(k.StateDir, r, k.holders()...)
	if err != nil {
		return control.StoreVerdict{}, err
	}
	return verdictOf(v, &i), nil
}

// RestoreStore puts the store of a backup into the state directory, where no broker may run and the key must
// be. One that is there is replaced only with force, and kept beside it. What was revoked since the backup was made stays
// revoked. The audit says that it was restored as soon as a broker runs.
func RestoreStore(k KeySource, r io.Reader, force bool) (control.StoreVerdict, error) {
	a := noneYet{&anchor{dir: filepath.Join(k.StateDir, "audit")}}
	i, v, err := store.Restore(k.StateDir, r, a, force, k.holders()...)
	if err != nil {
		return control.StoreVerdict{}, err
	}
	return verdictOf(v, &i), nil
}

// A noneYet is an anchor whose audit may not be there, which is that of a new machine.
type noneYet struct{ *anchor }

func (a noneYet) Last() (store.Commit, error) {
	c, err := a.anchor.Last()
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return c, err
}

func (a noneYet) Since(number uint64, f func(store.Change)) error {
	if err := a.anchor.Since(number, f); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
