package store

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"torno.internal/broker/internal/keyring"
)

// A state directory that others can reach, a link, a file of somebody else's, an open key file.
func TestAttack39StateDirectory(t *testing.T) {
	for name, prepare := range map[string]func(dir string) error{
		"open to others":  func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) },
		"writable by all": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o777)) },
		"a link":          func(dir string) error { return os.Symlink(os.TempDir(), dir) },
		"a file":          func(dir string) error { return os.WriteFile(dir, nil, 0o600) },
		"another's": func(dir string) error {
			if os.Getuid() != 0 {
				return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755))
			}
			return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, 12345))
		},
		"key open to others": func(dir string) error {
			s, err := Open(dir)
			if err != nil {
				return err
			}
			return errors.Join(s.Close(), os.Chmod(filepath.Join(dir, keyring.FileName), 0o644))
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			if err := prepare(dir); err != nil {
				t.Fatal(err)
			}
			if s, err := Open(dir); err == nil {
				s.Close()
				t.Error("opened")
			}
		})
	}
}

func TestModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	openStore(t, dir)
	for _, name := range []string{keyring.FileName, dataFile, lockFile} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}
