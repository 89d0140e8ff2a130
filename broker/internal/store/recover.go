package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"torno.internal/broker/internal/keyring"
	"torno.internal/protocol/seal"
)

// ErrExists means that something would be replaced that only force replaces.
var ErrExists = errors.New("it exists")

// PutKey makes the key file of a state directory that no process has open, of a key that was kept elsewhere.
// One that is there is replaced only with force; a key that the store is not sealed to never replaces any.
func PutKey(dir string, k seal.PrivateKey, force bool) error {
	return locked(dir, func() error {
		path := filepath.Join(dir, keyring.FileName)
		if _, err := os.Lstat(path); err == nil && !force {
			return fmt.Errorf("key file %q: %w", path, ErrExists)
		}
		id, err := sealedTo(filepath.Join(dir, dataFile))
		if err != nil {
			return err
		}
		if id != "" && id != k.Public().ID() {
			return fmt.Errorf("this is key %s, the store in %q is sealed to %s", k.Public().ID(), dir, id)
		}
		_, err = keyring.Restore(path, k)
		return errors.Join(err, keyring.Sweep(path))
	})
}

// locked calls f while no other process has the state directory open. It makes the directory if it is not there.
func locked(dir string, f func() error) (err error) {
	if err := checkDir(dir); err != nil {
		return err
	}
	lock, err := takeLock(filepath.Join(dir, lockFile))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return f()
}

// sealedTo returns the id of the key that the store in a file is sealed to, or nothing if there is no file.
func sealedTo(path string) (id string, err error) {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	f, err := openFile(path, true)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.close() }() // it was only read
	err = f.read(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil
		}
		var err error
		id, err = manifestKey(meta.Get([]byte("agents")))
		return err
	})
	return id, err
}
