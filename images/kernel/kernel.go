// Package kernel keeps the Linux kernels that VMs boot: unpacked from Debian's packages for clouds, which
// know virtio and little else, with the few modules that a guest needs and the order to load them in.
package kernel

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Kernel is one that is installed in a Store. It is immutable.
type Kernel struct {
	Release string    `json:"release"` // as uname -r says
	Source  string    `json:"source"`  // the package's name and version, or the file that it came from
	SHA256  string    `json:"sha256"`  // of the package or file, hex
	Arch    string    `json:"arch"`    // GOARCH
	Built   time.Time `json:"built"`
	Image   Part      `json:"image"`   // the executable: vmlinux
	Modules []Module  `json:"modules"` // those in wanted, and what they need, in the order to load them in
	Builtin []string  `json:"builtin"` // modules that this kernel has inside

	dir string
}

// A Part is a file beside the description.
type Part struct {
	File   string `json:"file"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A Module is a kernel module, its signature removed.
type Module struct {
	Name  string   `json:"name"` // with underscores
	Needs []string `json:"needs,omitempty"`
	Part
}

// An Error is a failure that a person can do something about.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// A Store is a directory of kernels, one directory each.
type Store struct{ Dir string }

const descriptionFile = "kernel.json"

// Open returns the kernel of that release, or the newest one that was installed if release is empty. The
// error wraps fs.ErrNotExist if there is none.
func (s Store) Open(release string) (*Kernel, error) {
	kernels, err := s.List()
	if err != nil {
		return nil, err
	}
	for _, k := range kernels {
		if release == "" || k.Release == release {
			return k, k.check()
		}
	}
	return nil, fmt.Errorf("kernel %q: %w", release, fs.ErrNotExist)
}

// List returns all kernels, the newest first.
func (s Store) List() ([]*Kernel, error) {
	paths, err := filepath.Glob(filepath.Join(s.Dir, "*", descriptionFile))
	if err != nil {
		return nil, err
	}
	var kernels []*Kernel
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		k := &Kernel{dir: filepath.Dir(path)}
		if err := json.Unmarshal(b, k); err != nil {
			return nil, &Error{fmt.Errorf("reading %q: %w", path, err), "remove the directory; it is made anew"}
		}
		kernels = append(kernels, k)
	}
	slices.SortFunc(kernels, func(a, b *Kernel) int { return b.Built.Compare(a.Built) })
	return kernels, nil
}

// check finds files that are missing or cut short, without reading them.
func (k *Kernel) check() error {
	parts := []Part{k.Image}
	for _, m := range k.Modules {
		parts = append(parts, m.Part)
	}
	for _, p := range parts {
		info, err := os.Stat(filepath.Join(k.dir, p.File))
		if err == nil && info.Size() != p.Size {
			err = fmt.Errorf("has %d bytes, want %d", info.Size(), p.Size)
		}
		if err != nil {
			return &Error{fmt.Errorf("kernel %s: %q: %w", k.Release, p.File, err), "remove " + k.dir + "; it is made anew"}
		}
	}
	return nil
}

// Path returns where the executable is.
func (k *Kernel) Path() string { return filepath.Join(k.dir, k.Image.File) }

// Load returns the modules of sets, and what they need, in the order to load them in, with their contents.
func (k *Kernel) Load(sets ...Set) ([]Module, [][]byte, error) {
	need := map[string]bool{}
	var add func(name string)
	add = func(name string) {
		for _, m := range k.Modules {
			if m.Name == name && !need[name] {
				need[name] = true
				for _, n := range m.Needs {
					add(n)
				}
			}
		}
	}
	for _, set := range sets {
		for _, d := range wanted[set] {
			add(d.module)
		}
	}
	var modules []Module
	var contents [][]byte
	for _, m := range k.Modules {
		if !need[m.Name] {
			continue
		}
		b, err := os.ReadFile(filepath.Join(k.dir, m.File))
		if err != nil {
			return nil, nil, err
		}
		if sum(b) != m.SHA256 {
			return nil, nil, &Error{fmt.Errorf("kernel %s: module %q is damaged", k.Release, m.Name), "remove " + k.dir + "; it is made anew"}
		}
		modules, contents = append(modules, m), append(contents, b)
	}
	return modules, contents, nil
}

// order sorts modules so that each comes after those that it needs.
func order(found map[string]Module) ([]Module, error) {
	var sorted []Module
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name string) error
	visit = func(name string) error {
		m, ok := found[name]
		switch {
		case !ok || state[name] == 2:
			return nil
		case state[name] == 1:
			return fmt.Errorf("module %q needs itself", name)
		}
		state[name] = 1
		for _, n := range m.Needs {
			if err := visit(n); err != nil {
				return err
			}
		}
		state[name] = 2
		sorted = append(sorted, m)
		return nil
	}
	names := make([]string, 0, len(found))
	for name := range found {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return sorted, nil
}

// normal returns a module's name as the kernel compares it.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

var errMissing = errors.New("the kernel lacks a driver that every VM needs, inside and as a module")
