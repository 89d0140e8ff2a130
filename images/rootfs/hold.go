package rootfs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"torno.internal/images/hold"
)

// unfinished begins the names of directories in which an image is being built, and of what is kept for later.
func unfinished(name string) string { return ".new-" + name + "-" }

// hold makes the caller the only one that builds or removes the image of that name, until release is called, and
// removes what a build that was killed left behind. Who else builds is told to Waiting, and waited for.
func (s Store) hold(ctx context.Context, name string) (release func(), err error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	release, err = hold.Take(ctx, filepath.Join(s.Dir, ".lock-"+name), "building the image "+name, s.Waiting)
	if err != nil {
		return nil, explain(err)
	}
	left, err := filepath.Glob(filepath.Join(s.Dir, unfinished(name)+"*"))
	for _, dir := range left {
		if rest := strings.TrimPrefix(filepath.Base(dir), unfinished(name)); strings.Contains(rest, "-") {
			continue // of an image whose name only begins so
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// Remove removes an image. A VM that runs from it goes on.
func (s Store) Remove(ctx context.Context, name string) error {
	release, err := s.hold(ctx, name)
	if err != nil {
		return err
	}
	defer release()
	final := filepath.Join(s.Dir, name)
	if _, err := os.Stat(final); err != nil { // one that is damaged can be removed, too
		_, err = s.Open(name)
		return err
	}
	gone, err := os.MkdirTemp(s.Dir, unfinished(name))
	if err != nil {
		return err
	}
	if err := os.Rename(final, filepath.Join(gone, name)); err != nil {
		return errors.Join(err, os.Remove(gone))
	}
	return os.RemoveAll(gone)
}
