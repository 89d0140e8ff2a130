package kernel

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// A Pin names a package to the byte.
type Pin struct {
	Package string `json:"package"`
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

//go:embed lock.json
var lockFile []byte

// metaPackages depend on the newest kernel for clouds, by GOARCH.
var metaPackages = map[string]string{"amd64": "linux-image-cloud-amd64", "arm64": "linux-image-cloud-arm64"}

// Pinned returns the package that this version of torno was tested with, for this machine.
func Pinned() (Pin, bool) {
	var pins map[string]Pin
	if err := json.Unmarshal(lockFile, &pins); err != nil {
		panic(err) // it is ours
	}
	p, ok := pins[runtime.GOARCH]
	return p, ok
}

// Fetch gets the kernel from Debian by apt, which checks signatures, and installs it: the pinned one, or
// the newest if that has left the mirrors; say is told which, and what takes time.
func (s Store) Fetch(ctx context.Context, say func(string)) (*Kernel, error) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		return nil, &Error{errors.New("no kernel, and no apt to get Debian's with"), "torno run --kernel FILE takes a Debian package linux-image-cloud-*.deb, a bzImage or a vmlinux"}
	}
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Dir, ".get-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pin, ok := Pinned()
	if ok {
		say("getting the kernel " + pin.Package + " " + pin.Version)
		file, err := download(ctx, dir, pin.Package+"="+pin.Version)
		if err == nil {
			return s.installPinned(file, pin)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	name, err := newest(ctx)
	if err != nil {
		return nil, err
	}
	say("getting the kernel " + name + ": the pinned one is not to be had")
	file, err := download(ctx, dir, name)
	if err != nil {
		return nil, err
	}
	return s.InstallPackage(file, strings.TrimSuffix(filepath.Base(file), ".deb"))
}

func (s Store) installPinned(file string, pin Pin) (*Kernel, error) {
	k, err := s.InstallPackage(file, pin.Package+" "+pin.Version)
	if err == nil && k.SHA256 != pin.SHA256 {
		_ = os.RemoveAll(k.dir)
		return nil, fmt.Errorf("package %s %s has SHA-256 %s, want %s", pin.Package, pin.Version, k.SHA256, pin.SHA256)
	}
	return k, err
}

// download gets one package into dir.
func download(ctx context.Context, dir, name string) (string, error) {
	cmd := exec.CommandContext(ctx, "apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", name)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", &Error{fmt.Errorf("getting the package %q: %s", name, strings.TrimSpace(string(out))), "apt-get update, then again"}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(files) != 1 {
		return "", fmt.Errorf("getting the package %q: apt left %d files", name, len(files))
	}
	return files[0], nil
}

// newest returns the package that the meta package of this machine depends on.
func newest(ctx context.Context) (string, error) {
	meta, ok := metaPackages[runtime.GOARCH]
	if !ok {
		return "", fmt.Errorf("no kernel for %s", runtime.GOARCH)
	}
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", meta).Output()
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: linux-image"); ok && err == nil {
			return "linux-image" + name, nil
		}
	}
	return "", &Error{fmt.Errorf("apt does not know %s", meta), "apt-get update, on Debian; elsewhere torno run --kernel FILE"}
}
