package apt

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Download puts the package files into the directory, each under its File, and checks their digests. What is there
// already is not got again.
func (a Apt) Download(ctx context.Context, packages []Package, report Report) error {
	var want []string
	var total int64
	for _, p := range packages {
		if p.check(a.Dir) != nil {
			want = append(want, p.name())
			total += p.Size
		}
	}
	if len(want) == 0 {
		return nil
	}
	if err := a.get(ctx, want, total, report); err != nil {
		return err
	}
	for _, p := range packages {
		if err := p.check(a.Dir); err != nil {
			return err
		}
	}
	return nil
}

// name returns what apt takes for this very package.
func (p Package) name() string {
	if p.Arch == "all" {
		return p.Name + "=" + p.Version
	}
	return p.Name + ":" + p.Arch + "=" + p.Version
}

// get has apt download packages, by name and version.
func (a Apt) get(ctx context.Context, names []string, total int64, report Report) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	cmd, err := a.command(ctx, append([]string{"-o", "APT::Status-Fd=3", "download"}, names...)...)
	if err != nil {
		w.Close()
		return err
	}
	var stderr bytes.Buffer
	cmd.Stderr, cmd.ExtraFiles = &stderr, []*os.File{w}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return err
	}
	status(r, total, func(done int64) { report("getting packages", done, total) })
	if cmd.Wait() != nil {
		return failure(ctx, "getting packages", &stderr)
	}
	return nil
}

// ErrDigest means that a package file is not the one that was meant.
var ErrDigest = errors.New("digest mismatch")

// check compares the package file in dir with what it must be.
func (p Package) check(dir string) error {
	f, err := os.Open(filepath.Join(dir, p.File()))
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("package %s %s: %w: SHA-256 %s, want %s", p.Name, p.Version, ErrDigest, got, p.SHA256)
	}
	return nil
}
