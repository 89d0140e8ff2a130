package store

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"torno.internal/broker/internal/keyring"
)

// A backup is
//
//	magic (8) | id of the key (8) | commit (8) | made (8, nanoseconds since 1970) | manifest (32) | size (8) |
//	the store's file | HMAC-SHA256 of all before, under the manifest's key (32)
//
// The key is not in it.
const (
	backupMagic  = "tornbak1"
	backupHeader = len(backupMagic) + 8 + 8 + 8 + sha256.Size + 8
)

// MaxBackup bounds the store's file in a backup, in bytes.
const MaxBackup = 64 << 30

// BackupInfo is what a backup says about itself. It is authenticated by Restore and VerifyBackup alone.
type BackupInfo struct {
	KeyID    string
	Commit   uint64
	Made     time.Time
	Manifest digest
	Size     int64 // of the store's file, in bytes
}

var errBackup = errors.New("it is damaged, or no backup of torno")

func (i *BackupInfo) encode() []byte {
	id, err := hex.DecodeString(i.KeyID)
	if err != nil || len(id) != boxKeyID {
		panic("the id of a key is not 16 hex digits")
	}
	b := append([]byte(backupMagic), id...)
	b = binary.BigEndian.AppendUint64(b, i.Commit)
	b = binary.BigEndian.AppendUint64(b, uint64(i.Made.UnixNano()))
	b = append(b, i.Manifest[:]...)
	return binary.BigEndian.AppendUint64(b, uint64(i.Size))
}

// DecodeBackup reads the beginning of a backup.
func DecodeBackup(b []byte) (BackupInfo, error) {
	if len(b) < backupHeader || string(b[:len(backupMagic)]) != backupMagic {
		return BackupInfo{}, errBackup
	}
	b = b[len(backupMagic):]
	i := BackupInfo{
		KeyID: hex.EncodeToString(b[:8]), Commit: binary.BigEndian.Uint64(b[8:]),
		Made:     time.Unix(0, int64(binary.BigEndian.Uint64(b[16:]))).UTC(),
		Manifest: digest(b[24:56]),
	}
	size := binary.BigEndian.Uint64(b[56:])
	if size > MaxBackup {
		return BackupInfo{}, fmt.Errorf("%w: a store of %d bytes, at most %d are read", errBackup, size, int64(MaxBackup))
	}
	i.Size = int64(size)
	return i, nil
}

// Backup writes a backup of the store as it is at this moment; others may use the store meanwhile.
func (s *Store) Backup(w io.Writer) (BackupInfo, error) {
	var info BackupInfo
	err := s.view(&s.agents, func(v *view) error {
		k := v.keys.byID(v.m.keyID)
		info = BackupInfo{KeyID: k.id, Commit: v.m.commit, Made: time.Now(), Manifest: v.at, Size: v.tx.Size()}
		mac := hmac.New(sha256.New, k.mac[:])
		both := io.MultiWriter(w, mac)
		if _, err := both.Write(info.encode()); err != nil {
			return err
		}
		if _, err := v.tx.WriteTo(both); err != nil {
			return err
		}
		_, err := w.Write(mac.Sum(nil))
		return err
	})
	return info, err
}

// BackupSize returns how long the whole of a backup is, in bytes.
func (i *BackupInfo) BackupSize() int64 { return int64(backupHeader) + i.Size + sha256.Size }

// VerifyBackup reads a whole backup and everything in it. The key of the state directory dir, which holders
// open, must be the one that it was made with.
func VerifyBackup(dir string, r io.Reader, holders ...keyring.Holder) (BackupInfo, Verdict, error) {
	tmp, err := os.MkdirTemp("", "torno-verify-")
	if err != nil {
		return BackupInfo{}, Verdict{}, err
	}
	defer os.RemoveAll(tmp)
	s := newStore(dir)
	info, err := s.openBackup(r, filepath.Join(tmp, dataFile), holders)
	if err != nil {
		return BackupInfo{}, Verdict{}, err
	}
	v, err := s.Verify()
	return info, v, errors.Join(err, s.file.close())
}

// Restore puts the store of a backup into dir, which no process may have open. The restored store follows on what a has
// recorded last, so that it does not pass for an older one put back, and what a says was revoked since the backup was
// made is revoked again. A store that is there is replaced only with force, and kept beside it.
func Restore(dir string, r io.Reader, a Anchor, force bool, holders ...keyring.Holder) (info BackupInfo, v Verdict, err error) {
	err = locked(dir, func() error {
		path := filepath.Join(dir, dataFile)
		_, statErr := os.Lstat(path)
		if statErr == nil && !force {
			return fmt.Errorf("store %q: %w", path, ErrExists)
		}
		tmp := path + "-restore"
		defer os.Remove(tmp)
		s := newStore(dir)
		if info, err = s.openBackup(r, tmp, holders); err != nil {
			return err
		}
		v, err = s.restored(a)
		if err = errors.Join(err, s.file.close()); err != nil {
			return err
		}
		if statErr == nil {
			if err := keepBefore(path); err != nil {
				return err
			}
		}
		return errors.Join(os.Rename(tmp, path), syncDir(dir))
	})
	return info, v, err
}

// restored verifies what was restored, and has it follow on the anchor's last commit.
func (s *Store) restored(a Anchor) (Verdict, error) {
	v, err := s.Verify()
	if err != nil {
		return v, err
	}
	last, err := a.Last()
	if err != nil {
		return v, fmt.Errorf("reading the audit for the last commit: %w", err)
	}
	var revoked []Change
	err = a.Since(v.Commit, func(c Change) {
		if c.Event == EventRevoked {
			revoked = append(revoked, c)
		}
	})
	if err != nil {
		return v, fmt.Errorf("reading the audit for what was revoked since commit %d: %w", v.Commit, err)
	}
	if _, err := s.dropSessions(); err != nil { // one of them may have been revoked since
		return v, err
	}
	s.agents.follow = &last
	return v, s.commit(&s.agents, last.Number+1, func(e *edit) ([]Change, error) {
		changes := []Change{{Event: EventRestored, Name: fmt.Sprintf("commit %d", v.Commit)}}
		for _, c := range revoked {
			again, err := e.revokeAgain(c)
			if err != nil {
				return nil, err
			}
			if again {
				changes = append(changes, c)
			}
		}
		return changes, nil
	})
}

// revokeAgain does what a change did that revoked a version, if that is there with its value.
func (e *edit) revokeAgain(c Change) (done bool, err error) {
	p, err := e.page(prefixAgents + c.Agent)
	if err == nil {
		var en *entry
		if en, err = p.there(c.Name); err == nil {
			_, err = e.revoke(c.Agent, en, c.Version, time.Now())
		}
	}
	if errors.Is(err, ErrNotFound) || errors.Is(err, ErrRevoked) || errors.Is(err, ErrTampered) {
		return false, nil
	}
	return err == nil, err
}

// keepBefore keeps the store that is replaced, in place of one that was kept before.
func keepBefore(path string) error {
	kept := path + ".before-restore"
	if err := os.Remove(kept); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.Link(path, kept)
}

// openBackup copies the store out of a backup to path, checks it, and opens it.
func (s *Store) openBackup(r io.Reader, path string, holders []keyring.Holder) (BackupInfo, error) {
	ring, err := keyring.Open(filepath.Join(s.dir, keyring.FileName), holders...)
	if err != nil {
		return BackupInfo{}, err
	}
	s.ring = ring
	if err := s.useRing(); err != nil {
		return BackupInfo{}, err
	}
	info, err := s.copyBackup(r, path)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("the backup: %w", err)
	}
	s.file, err = openFile(path, false)
	if err != nil {
		return BackupInfo{}, fmt.Errorf("the backup: %w", err)
	}
	return info, nil
}

func (s *Store) copyBackup(r io.Reader, path string) (BackupInfo, error) {
	header := make([]byte, backupHeader)
	if _, err := io.ReadFull(r, header); err != nil {
		return BackupInfo{}, errBackup
	}
	info, err := DecodeBackup(header)
	if err != nil {
		return BackupInfo{}, err
	}
	k := s.keys().byID(info.KeyID)
	if k == nil {
		return BackupInfo{}, fmt.Errorf("%w: the backup was made with key %s, this is %s", ErrOldKey, info.KeyID, s.keys().ids())
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return BackupInfo{}, err
	}
	mac := hmac.New(sha256.New, k.mac[:])
	mac.Write(header)
	err = copyAuthentic(f, r, info.Size, mac)
	return info, errors.Join(err, f.Sync(), f.Close())
}

// copyAuthentic copies size bytes and checks the tag that follows them, behind which nothing may follow.
func copyAuthentic(w io.Writer, r io.Reader, size int64, mac hash.Hash) error {
	if _, err := io.CopyN(io.MultiWriter(w, mac), r, size); err != nil {
		return fmt.Errorf("%w: %w", errBackup, err)
	}
	tail := make([]byte, sha256.Size+1)
	n, err := io.ReadFull(r, tail)
	if n != sha256.Size || !errors.Is(err, io.ErrUnexpectedEOF) || !hmac.Equal(tail[:n], mac.Sum(nil)) {
		return errBackup
	}
	return nil
}
