// Package hold keeps processes that make the same thing from doing it at the same time.
package hold

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how often a lock that somebody else holds is tried again.
const poll = 200 * time.Millisecond

// Take makes the caller the only holder of the file at path, which is made if need be and stays, until release is
// called or the process ends. Waiting, which may be nil, is told once of who holds it meanwhile; what is for people.
func Take(ctx context.Context, path, what string, waiting func(line string)) (release func(), err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	err = await(ctx, f, what, waiting)
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(fmt.Sprint(os.Getpid())), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { f.Close() }, nil
}

func await(ctx context.Context, f *os.File, what string, waiting func(line string)) error {
	for told := false; ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if !told && waiting != nil {
			holder := make([]byte, 20)
			n, _ := f.ReadAt(holder, 0)
			waiting(fmt.Sprintf("waiting for process %s, which is %s", holder[:n], what))
			told = true
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(poll):
		}
	}
}
