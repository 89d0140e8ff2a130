package rootfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"torno.internal/images/apt"
	"torno.internal/images/deb"
	"torno.internal/images/disk"
	"torno.internal/images/hold"
)

// sourcesFile holds, beside the packages, what the image's own apt is to look for packages in.
const sourcesFile = "sources.list"

// repository gets a lock's packages and makes of them, in a directory that everybody can read, what apt can
// install from. Package files are kept for the next build.
func (s Store) repository(ctx context.Context, lock *Lock, report apt.Report) (dir string, err error) {
	a, err := s.aptFor(ctx, lock.Suite)
	if err != nil {
		return "", err
	}
	release, err := hold.Take(ctx, filepath.Join(s.Dir, ".packages.lock"), "getting packages", s.Waiting)
	if err != nil {
		return "", err
	}
	defer release()
	if err := a.Download(ctx, lock.Packages, report); err != nil {
		return "", packageError(err)
	}
	if dir, err = disk.TemporaryDirectory(); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			err = explain(errors.Join(err, os.RemoveAll(dir)))
		}
	}()
	var index bytes.Buffer
	for _, p := range lock.Packages {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		b, err := os.ReadFile(filepath.Join(a.Dir, p.File()))
		if err != nil {
			return "", err
		}
		control, err := deb.Control(bytes.NewReader(b))
		if err != nil {
			return "", fmt.Errorf("package %s: %w", p.Name, err)
		}
		fmt.Fprintf(&index, "%s\nFilename: ./%s\nSize: %d\nSHA256: %s\n\n", control, p.File(), p.Size, p.SHA256)
		if err := os.WriteFile(filepath.Join(dir, p.File()), b, 0o644); err != nil {
			return "", err
		}
	}
	for name, b := range map[string][]byte{"Packages": index.Bytes(), sourcesFile: []byte(strings.Join(a.Sources, "\n") + "\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			return "", err
		}
	}
	return dir, nil
}
