// Package keyring keeps the broker's private key in one file of mode 0600: as it is, or encrypted
// (AES-256-GCM) under a passphrase (Argon2id, RFC 9106), a credential of systemd, or what a command prints.
// It also splits the key into shares (Shamir's scheme over Ristretto255) and puts it together again.
package keyring

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"torno.internal/protocol/seal"
	"torno.internal/protocol/secret"
)

// FileName is the key file's name in the state directory.
const FileName = "key"

// Errors that callers match.
var (
	ErrLocked = errors.New("the key file is protected by a passphrase, and none was given")
	ErrWrong  = errors.New("that does not open the key file")
	ErrNoKey  = errors.New("there is no key file")
)

// A Holder gives the secret that a key file is encrypted under.
type Holder interface {
	// Kind is the holder's kind, as it stands in the file.
	Kind() Kind
	// Secret returns the secret, which the caller wipes.
	Secret() (secret.Value, error)
}

// A Ring is an open key file. It is not safe for concurrent use.
type Ring struct {
	path    string
	private []seal.PrivateKey // the newest first
	wrap    wrapping
}

// Open opens the key file at path. holders are asked by the kind that the file says; the error matches
// ErrLocked if it says a passphrase and there is no such holder, ErrNoKey if there is no file, ErrWrong if
// the holder's secret is not the right one.
func Open(path string, holders ...Holder) (*Ring, error) {
	b, err := read(path)
	if err != nil {
		return nil, err
	}
	defer clear(b)
	f, err := decodeFile(b)
	if err != nil {
		return nil, fmt.Errorf("key file %q: %w", path, err)
	}
	r := &Ring{path: path}
	if r.wrap, err = f.unwrap(holders); err != nil {
		return nil, fmt.Errorf("key file %q: %w", path, err)
	}
	if r.private, err = f.open(&r.wrap); err != nil {
		return nil, fmt.Errorf("key file %q: %w", path, err)
	}
	return r, nil
}

// Create makes a new key, and its file at path, unencrypted. It is on disk, whole, when Create returns.
func Create(path string) (*Ring, error) {
	k, err := seal.GenerateKey()
	if err != nil {
		return nil, err
	}
	return Restore(path, k)
}

// Restore makes a key file of a key that was kept elsewhere, unencrypted, in place of any before.
func Restore(path string, k seal.PrivateKey) (*Ring, error) {
	r := &Ring{path: path, private: []seal.PrivateKey{k}}
	return r, r.write()
}

// Keys returns the private keys, the newest first. There are two while one takes the other's place.
func (r *Ring) Keys() []seal.PrivateKey { return r.private }

// Kind says what the file is encrypted under.
func (r *Ring) Kind() Kind { return r.wrap.kind }

// Add makes a new key and puts it before the others. The file has it when Add returns.
func (r *Ring) Add() error {
	k, err := seal.GenerateKey()
	if err != nil {
		return err
	}
	return r.replace(append([]seal.PrivateKey{k}, r.private...), r.wrap)
}

// Retire forgets all keys but the newest.
func (r *Ring) Retire() error { return r.replace(r.private[:1:1], r.wrap) }

// Protect encrypts the file under the holder's secret from now on, or no longer, for nil.
func (r *Ring) Protect(h Holder) error {
	w, err := newWrapping(h)
	if err != nil {
		return err
	}
	return r.replace(r.private, w)
}

// replace writes keys and wrapping, and keeps the old ones if that fails.
func (r *Ring) replace(private []seal.PrivateKey, w wrapping) error {
	old := *r
	r.private, r.wrap = private, w
	if err := r.write(); err != nil {
		*r = old
		return err
	}
	return nil
}

// write replaces the file in one step: whoever opens it finds the old one or the new one, whole.
func (r *Ring) write() error {
	b, err := encodeFile(r.private, &r.wrap)
	if err != nil {
		return err
	}
	defer clear(b)
	dir := filepath.Dir(r.path)
	f, err := os.CreateTemp(dir, FileName+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), r.path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Sweep removes what writers of the key file at path left when they were killed: it may hold keys. The caller
// is the only writer.
func Sweep(path string) error {
	dir, name := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(dir))
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), name+"-") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// KindOf says what the key file at path is encrypted under, without opening it.
func KindOf(path string) (Kind, error) {
	b, err := read(path)
	if err != nil {
		return 0, err
	}
	defer clear(b)
	f, err := decodeFile(b)
	if err != nil {
		return 0, fmt.Errorf("key file %q: %w", path, err)
	}
	return f.kind, nil
}

// read reads a key file that nobody else can read or write.
func read(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNoKey
	}
	if errors.Is(err, unix.ELOOP) {
		return nil, fmt.Errorf("key file %q is a symbolic link", path)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("key file %q is no file", path)
	case info.Mode().Perm()&0o077 != 0:
		return nil, fmt.Errorf("key file %q has mode %v, so others can reach it; if nobody has: chmod 600 it, else: torno key rotate after that", path, info.Mode().Perm())
	case info.Size() > maxFile:
		return nil, fmt.Errorf("key file %q: %w", path, errFile)
	}
	b := make([]byte, info.Size())
	if _, err := f.ReadAt(b, 0); err != nil {
		return nil, err
	}
	return b, nil
}
