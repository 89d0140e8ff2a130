package store

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"torno.internal/broker/internal/keyring"
)

// backup returns a backup of the store.
func backup(t *testing.T, s *Store) []byte {
	t.Helper()
	var b bytes.Buffer
	info, err := s.Backup(&b)
	if err != nil {
		t.Fatal(err)
	}
	if int64(b.Len()) != info.BackupSize() {
		t.Errorf("%d bytes, BackupSize says %d", b.Len(), info.BackupSize())
	}
	if got, err := DecodeBackup(b.Bytes()); err != nil || got.Commit != info.Commit || got.Manifest != info.Manifest || got.KeyID != s.Public().ID() {
		t.Errorf("header %+v, %v; want %+v", got, err, info)
	}
	return b.Bytes()
}

// What was backed up is what is restored, on another machine too, where there is no audit; the audit that is
// there says so, and nothing passes for an older store put back.
func TestBackupRestore(t *testing.T) {
	for _, elsewhere := range []bool{false, true} {
		t.Run(fmt.Sprint(elsewhere), func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			m := &memory{}
			s := openStore(t, dir)
			anchored(t, s, m)
			furnish(t, s)
			b := backup(t, s)
			set(t, s, sealed(t, s, "a", "K", 3, "later"))
			s.Close()
			force := true
			if elsewhere {
				other := filepath.Join(t.TempDir(), "state")
				if err := os.Mkdir(other, 0o700); err != nil {
					t.Fatal(err)
				}
				copyFile(t, filepath.Join(dir, keyring.FileName), filepath.Join(other, keyring.FileName))
				dir, m, force = other, &memory{}, false
			} else if _, _, err := Restore(dir, bytes.NewReader(b), &memory{}, false); !errors.Is(err, ErrExists) {
				t.Errorf("without force: %v", err)
			}
			last, _ := m.Last()
			_, v, err := Restore(dir, bytes.NewReader(b), m, force)
			if err != nil || len(v.Broken) > 0 || v.Secrets != 3 || v.Versions != 4 || v.Agents != 2 || v.Sessions != 3 {
				t.Fatalf("%+v, %v", v, err)
			}
			if _, err := os.Stat(filepath.Join(dir, dataFile+".before-restore")); (err == nil) == elsewhere {
				t.Errorf("the store that was there: %v", err)
			}
			s = openStore(t, dir)
			if f := anchored(t, s, m); len(f) > 0 {
				t.Errorf("found %v", f)
			}
			checkSecrets(t, s)
			if ids, err := s.Sessions(); err != nil || len(ids) > 0 {
				t.Errorf("sessions %v, %v: one may have been revoked since", ids, err)
			}
			if c := m.commits[len(m.commits)-1]; c.Changes[0].Event != EventRestored || c.Number <= last.Number {
				t.Errorf("recorded: %+v", c)
			}
			set(t, s, sealed(t, s, "a", "K", 3, "again"))
			s.Close()
			s = openStore(t, dir)
			if f := anchored(t, s, m); len(f) > 0 {
				t.Errorf("found later: %v", f)
			}
		})
	}
}

// TestAttack35RevokedInBackup restores a backup in which secrets have values that were revoked since: they stay revoked, and
// what was only deleted is there again.
func TestAttack35RevokedInBackup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	m := &memory{}
	s := openStore(t, dir)
	anchored(t, s, m)
	furnish(t, s)
	set(t, s, sealed(t, s, "a", "LEAKED", 1, "one"))
	set(t, s, sealed(t, s, "a", "LEAKED", 2, "two"))
	b := backup(t, s)
	if _, err := s.RevokeSecret("a", "LEAKED", 1); err != nil {
		t.Fatal(err)
	}
	if _, err := s.DeleteSecret("a", "K"); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if _, _, err := Restore(dir, bytes.NewReader(b), m, true); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and when it is opened again
		s = openStore(t, dir)
		if f := anchored(t, s, m); len(f) > 0 {
			t.Errorf("found %v", f)
		}
		if _, err := s.Unseal("a", "LEAKED", 1); !errors.Is(err, ErrRevoked) {
			t.Errorf("the revoked version: %v", err)
		}
		for name, version := range map[string]int{"LEAKED": 2, "K": 2} {
			if value, err := s.Unseal("a", name, version); err != nil || value.Len() == 0 {
				t.Errorf("the control: %s version %d: %v", name, version, err)
			}
		}
		s.Close()
	}
	if c := m.commits[len(m.commits)-1]; len(c.Changes) != 2 || c.Changes[1] != (Change{EventRevoked, "a", "LEAKED", 1}) {
		t.Errorf("recorded: %+v", c)
	}
}

// A backup while others write is consistent: each restores, at a commit of its own.
func TestBackupWhileWriting(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	furnish(t, s)
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for v := 3; ; v++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if err := s.PutSession("s1", []byte(fmt.Sprint(v))); err != nil {
				done <- err
				return
			}
		}
	}()
	for range 10 {
		b := backup(t, s)
		_, v, err := VerifyBackup(dir, bytes.NewReader(b))
		if err != nil || len(v.Broken) > 0 || v.Versions != 4 {
			t.Errorf("%+v, %v", v, err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A backup that was cut, lengthened or changed anywhere, or made with another key, replaces nothing.
func TestDamagedBackup(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	s := openStore(t, dir)
	furnish(t, s)
	b := backup(t, s)
	other := openStore(t, filepath.Join(t.TempDir(), "state"))
	foreign := backup(t, other)
	s.Close()
	before, err := os.ReadFile(filepath.Join(dir, dataFile))
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{"longer": append(bytes.Clone(b), 0), "another key's": foreign, "empty": nil, "cut in the tag": b[:len(b)-1], "header alone": b[:backupHeader]}
	for i := 0; i < len(b); i += 1 + len(b)/97 {
		flipped := bytes.Clone(b)
		flipped[i] ^= 1
		cases[fmt.Sprintf("byte %d", i)] = flipped
	}
	for name, bad := range cases {
		if _, _, err := Restore(dir, bytes.NewReader(bad), &memory{}, true); err == nil || !strings.Contains(err.Error(), "backup") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if after, err := os.ReadFile(filepath.Join(dir, dataFile)); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the store has changed (%v)", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, dataFile+"?*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if _, _, err := Restore(dir, bytes.NewReader(b), &memory{}, true); err != nil {
		t.Errorf("the control: %v", err)
	}
}

func FuzzDecodeBackup(f *testing.F) {
	i := BackupInfo{KeyID: "0123456789abcdef", Commit: 7, Size: 4096}
	f.Add(i.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		i, err := DecodeBackup(b)
		if err != nil {
			if i != (BackupInfo{}) {
				t.Error("something beside an error")
			}
			return
		}
		if again := i.encode(); !bytes.Equal(again, b[:backupHeader]) || i.Size > MaxBackup {
			t.Errorf("%x reads as %x", b, again)
		}
	})
}
