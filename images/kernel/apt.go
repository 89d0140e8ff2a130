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
	"slices"
	"strings"

	"torno.internal/images/apt"
	"torno.internal/images/hold"
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
// the newest if that has left the mirrors. Say is told which, and who is waited for, report how far it is. Of those
// who fetch at the same time one does, and the others get what it got.
func (s Store) Fetch(ctx context.Context, say func(string), report apt.Report) (*Kernel, error) {
	release, err := hold.Take(ctx, filepath.Join(s.Dir, ".lock"), "getting the kernel", say)
	if err != nil {
		return nil, err
	}
	defer release()
	if k, err := s.Open(""); err == nil {
		return k, nil
	}
	a := apt.Apt{Dir: filepath.Join(s.Dir, ".packages")}
	if pin, ok := Pinned(); ok {
		say("getting the kernel " + pin.Package + " " + pin.Version)
		k, err := s.get(ctx, a, pin.Package+"="+pin.Version, pin.SHA256, report)
		if !errors.Is(err, apt.ErrGone) {
			return k, err
		}
	}
	name, err := newest(ctx)
	if err != nil {
		return nil, err
	}
	say("getting the kernel " + name + ": the pinned one is not to be had")
	return s.get(ctx, a, name, "", report)
}

// get gets one package, by name and perhaps version, and installs the kernel in it. The digest is the one that is
// pinned; empty: what apt says.
func (s Store) get(ctx context.Context, a apt.Apt, name, digest string, report apt.Report) (*Kernel, error) {
	all, err := a.Resolve(ctx, name)
	if errors.Is(err, apt.ErrMissing) {
		return nil, &Error{errors.New("no kernel, and no apt to get Debian's with"), "torno run --kernel FILE takes a Debian package linux-image-cloud-*.deb, a bzImage or a vmlinux"}
	}
	if err != nil {
		return nil, &Error{err, "apt-get update, then again"}
	}
	base, _, _ := strings.Cut(name, "=")
	i := slices.IndexFunc(all, func(p apt.Package) bool { return p.Name == base })
	if i < 0 {
		return nil, fmt.Errorf("apt knows what %q needs, and not itself", name)
	}
	p := all[i]
	if digest != "" {
		p.SHA256 = digest
	}
	if err := a.Download(ctx, []apt.Package{p}, report); err != nil {
		return nil, &Error{err, "apt-get update, then again"}
	}
	file := filepath.Join(a.Dir, p.File())
	defer os.RemoveAll(file)
	return s.InstallPackage(file, p.Name+" "+p.Version)
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
