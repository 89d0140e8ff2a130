// Package store keeps a broker's state in one file: sealed secrets by agent, name and version, approved
// agent files, session records, and the audit's signing seed. Values stay sealed; everything else that must not be edited is
// encrypted and authenticated under a key derived from the broker's own.
package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"torno.internal/protocol/seal"
)

// Files in the state directory.
const (
	dataFile = "store.db"
	keyFile  = "key"
	lockFile = "lock"
)

// format is the layout of dataFile; another layout gets another number.
const format = "1"

var (
	bucketMeta     = []byte("meta")     // "format" → format
	bucketSecrets  = []byte("secrets")  // agent 0 name 0 version (8 bytes) → control.SealedSecret as JSON
	bucketVersions = []byte("versions") // agent 0 name → last version (8 bytes), state (1 byte)
	bucketTrusted  = []byte("trusted")  // agent → control.TrustedFile, boxed
	bucketSessions = []byte("sessions") // id → record, boxed
	bucketSigning  = []byte("signing")  // "audit" → seed, boxed
)

// A Store is an open state directory. It is safe for concurrent use. Every change is on disk before the
// call that made it returns.
type Store struct {
	db   *bbolt.DB
	key  seal.PrivateKey
	box  box
	lock *os.File
}

// Open opens the state in dir, or makes it: the directory with mode 0700, a new private key in a file
// of mode 0600. A *BusyError means that another process has it open.
func Open(dir string) (*Store, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	lock, err := takeLock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, err
	}
	s := &Store{lock: lock}
	if err := s.open(dir); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *Store) open(dir string) error {
	var err error
	if s.key, err = loadKey(dir); err != nil {
		return err
	}
	if s.box, err = newBox(s.key); err != nil {
		return err
	}
	s.db, err = bbolt.Open(filepath.Join(dir, dataFile), 0o600, &bbolt.Options{Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("opening %q: %w", filepath.Join(dir, dataFile), err)
	}
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketMeta, bucketSecrets, bucketVersions, bucketTrusted, bucketSessions, bucketSigning} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		switch have := string(meta.Get([]byte("format"))); have {
		case "":
			return meta.Put([]byte("format"), []byte(format))
		case format:
			return nil
		default:
			return fmt.Errorf("the store has format %q, this torno reads %q", have, format)
		}
	})
}

// Key returns the broker's private key.
func (s *Store) Key() seal.PrivateKey { return s.key }

// Close closes the store and gives up the lock.
func (s *Store) Close() error {
	var err error
	if s.db != nil {
		err = s.db.Close()
	}
	return errors.Join(err, s.lock.Close())
}

// checkDir makes dir, or checks that it is ours alone and no symbolic link.
func checkDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, _ := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir():
		return fmt.Errorf("state directory %q is not a directory", dir)
	case st != nil && int(st.Uid) != os.Geteuid():
		return fmt.Errorf("state directory %q belongs to uid %d, not to us", dir, st.Uid)
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("state directory %q has mode %v, so others can reach it; chmod 700 it", dir, info.Mode().Perm())
	}
	return nil
}

// takeLock locks path for this process and writes its pid there.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		held, _ := os.ReadFile(path)
		f.Close()
		pid, _ := strconv.Atoi(strings.TrimSpace(string(held)))
		return nil, &BusyError{Dir: filepath.Dir(path), PID: pid}
	}
	if err := f.Truncate(0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if _, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// loadKey reads the private key, or makes it. A new key is on disk, whole, before it is used.
func loadKey(dir string) (seal.PrivateKey, error) {
	path := filepath.Join(dir, keyFile)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(dir)
	}
	if err != nil {
		return seal.PrivateKey{}, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return seal.PrivateKey{}, err
	}
	if !info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0 {
		return seal.PrivateKey{}, fmt.Errorf("key file %q has mode %v; chmod 600 it", path, info.Mode())
	}
	defer clear(b)
	k, err := seal.ParsePrivateKey(b)
	if err != nil {
		return k, fmt.Errorf("key file %q: %w", path, err)
	}
	return k, nil
}

func makeKey(dir string) (seal.PrivateKey, error) {
	k, err := seal.GenerateKey()
	if err != nil {
		return k, err
	}
	f, err := os.CreateTemp(dir, "key-*") // mode 0600
	if err != nil {
		return k, err
	}
	defer os.Remove(f.Name())
	err = k.Bytes().Use(func(b []byte) error { _, err := f.Write(b); return err })
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return k, err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, keyFile)); err != nil {
		return k, err
	}
	d, err := os.Open(dir)
	if err != nil {
		return k, err
	}
	return k, errors.Join(d.Sync(), d.Close())
}
