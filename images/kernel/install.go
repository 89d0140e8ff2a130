package kernel

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"torno.internal/images/deb"
)

// maxImage bounds a packed kernel, in bytes.
const maxImage = 256 << 20

// An install is a kernel that is being put together.
type install struct {
	kernel  Kernel
	image   []byte
	modules map[string]Module
	builtin map[string]bool
	data    map[string][]byte // of the modules
}

// InstallPackage installs the kernel of a Debian package. Source names it for people. Nothing half
// installed is left behind.
func (s Store) InstallPackage(file, source string) (*Kernel, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	digest := sha256.New()
	in := newInstall(source)
	err = deb.Files(io.TeeReader(f, digest), in.file)
	if err == nil {
		_, err = io.Copy(digest, f)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %q: %w", file, err)
	}
	in.kernel.SHA256 = hex.EncodeToString(digest.Sum(nil))
	return s.finish(in)
}

// InstallFiles installs a kernel that is there already: a bzImage or vmlinux, with the modules in
// directory modules (such as /lib/modules/RELEASE), which may be empty if the kernel has all inside.
func (s Store) InstallFiles(image, modules string) (*Kernel, error) {
	in := newInstall(image)
	var err error
	if in.image, err = os.ReadFile(image); err != nil {
		return nil, err
	}
	in.kernel.SHA256 = sum(in.image)
	if modules != "" {
		if err := in.directory(modules); err != nil {
			return nil, err
		}
	}
	return s.finish(in)
}

func newInstall(source string) *install {
	return &install{
		kernel:  Kernel{Source: source, Arch: runtime.GOARCH, Built: time.Now().UTC()},
		modules: map[string]Module{}, builtin: map[string]bool{}, data: map[string][]byte{},
	}
}

// directory takes the modules of a directory tree.
func (in *install) directory(dir string) error {
	return filepath.WalkDir(dir, func(name string, entry os.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || !in.wants(name) {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return in.file(&tar.Header{Name: name, Typeflag: tar.TypeReg}, f)
	})
}

// wants reports whether a file's content matters.
func (in *install) wants(name string) bool {
	_, _, isModule := moduleName(name)
	return isModule || path.Base(name) == "modules.builtin"
}

// file takes one file of a package.
func (in *install) file(h *tar.Header, content io.Reader) error {
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	name, compression, isModule := moduleName(h.Name)
	switch {
	case isModule && !strings.Contains(h.Name, "/vsock_loopback"): // it would give the guest CID 1
		data, needs, err := readModule(compression, content)
		if err != nil {
			return fmt.Errorf("module %q: %w", name, err)
		}
		in.data[name] = data
		in.modules[name] = Module{Name: name, Needs: needs}
	case path.Base(h.Name) == "modules.builtin":
		text, err := io.ReadAll(io.LimitReader(content, maxModule))
		for line := range strings.Lines(string(text)) {
			if name, _, ok := moduleName(strings.TrimSpace(line)); ok {
				in.builtin[name] = true
			}
		}
		return err
	case strings.HasPrefix(path.Base(h.Name), "vmlinuz-"):
		var err error
		in.image, err = io.ReadAll(io.LimitReader(content, maxImage))
		return err
	}
	return nil
}

// finish writes what was found into a directory of its own.
func (s Store) finish(in *install) (*Kernel, error) {
	vmlinux, release, err := unpack(in.image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", in.kernel.Source, err)
	}
	if release == "" {
		release = "file-" + in.kernel.SHA256[:16]
	}
	if release != filepath.Base(release) || strings.HasPrefix(release, ".") {
		return nil, fmt.Errorf("%s: release %q", in.kernel.Source, release)
	}
	in.kernel.Release = release
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(s.Dir, ".new-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o755), in.write(dir, vmlinux)); err != nil {
		return nil, err
	}
	final := filepath.Join(s.Dir, release)
	if err := os.RemoveAll(final); err != nil {
		return nil, err
	}
	if err := os.Rename(dir, final); err != nil {
		return nil, err
	}
	in.kernel.dir = final
	return &in.kernel, nil
}

// write writes the kernel, its modules and, last, their description.
func (in *install) write(dir string, vmlinux []byte) error {
	k := &in.kernel
	var err error
	if k.Image, err = writePart(dir, "vmlinux", vmlinux); err != nil {
		return err
	}
	needed, err := in.needed()
	if err != nil {
		return err
	}
	for _, m := range needed {
		if m.Part, err = writePart(dir, m.Name+".ko", in.data[m.Name]); err != nil {
			return err
		}
		k.Modules = append(k.Modules, m)
	}
	for name := range in.builtin {
		k.Builtin = append(k.Builtin, name)
	}
	slices.Sort(k.Builtin)
	b, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return err
	}
	_, err = writePart(dir, descriptionFile, b)
	return err
}

// needed returns the modules of all sets and what they need, in order.
func (in *install) needed() ([]Module, error) {
	need := map[string]Module{}
	var add func(name string)
	add = func(name string) {
		m, ok := in.modules[name]
		if _, seen := need[name]; !ok || seen {
			return
		}
		need[name] = m
		for _, n := range m.Needs {
			add(n)
		}
	}
	for _, set := range wanted {
		for _, d := range set {
			add(d.module)
		}
	}
	for _, d := range wanted[Common] {
		if _, ok := need[d.module]; !ok && len(in.modules) > 0 && !in.builtin[d.module] {
			return nil, &Error{fmt.Errorf("%s: %w: %q", in.kernel.Source, errMissing, d.module), "Debian's linux-image-cloud packages have all that is needed"}
		}
	}
	return order(need)
}

func writePart(dir, name string, b []byte) (Part, error) {
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		return Part{}, err
	}
	return Part{File: name, Size: int64(len(b)), SHA256: sum(b)}, nil
}

func sum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}
