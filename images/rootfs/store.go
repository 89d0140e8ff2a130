// Package rootfs keeps the root file systems of VMs, which they see read-only, and builds the one that
// agents get unless told otherwise.
package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// An Image is a root file system in a Store.
type Image struct {
	Name       string    `json:"name"`
	Source     string    `json:"source"` // what it was made from, for people
	Arch       string    `json:"arch"`   // GOARCH
	Filesystem string    `json:"filesystem"`
	Size       int64     `json:"size"` // bytes
	SHA256     string    `json:"sha256"`
	Digest     string    `json:"digest,omitempty"` // of the container image that it was made from
	Created    time.Time `json:"created"`
	Packages   []Package `json:"packages,omitempty"` // where they are known

	dir string
}

// A Package is one that an image was made of.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

// An Error is a failure that a person can do something about.
type Error struct {
	Err  error
	Hint string
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// A Store is a directory of images, one directory each.
type Store struct {
	Dir     string
	Waiting func(line string) // is told when somebody else's build must end first; may be nil
}

// Names of the files of an image.
const (
	imageFile       = "rootfs.img"
	descriptionFile = "image.json"
)

// Place returns the directory below which images and kernels are kept: TORNO_IMAGES, or the place for an
// application's data.
func Place() (string, error) {
	if dir := os.Getenv("TORNO_IMAGES"); dir != "" {
		return filepath.Abs(dir)
	}
	if os.Geteuid() == 0 {
		return "/var/lib/torno/images", nil
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "torno", "images"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", &Error{fmt.Errorf("no place for images: %w", err), "set TORNO_IMAGES"}
	}
	return filepath.Join(home, ".local", "share", "torno", "images"), nil
}

var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CheckName refuses what can't be an image's name.
func CheckName(name string) error {
	if !validName.MatchString(name) {
		return &Error{fmt.Errorf("%q is not an image's name", name), "a name is lower-case letters, digits, dots and dashes, up to 63"}
	}
	return nil
}

// Open returns the image of that name. The error wraps fs.ErrNotExist if there is none.
func (s Store) Open(name string) (*Image, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.Dir, name)
	b, err := os.ReadFile(filepath.Join(dir, descriptionFile))
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = &Error{fmt.Errorf("image %q: %w", name, fs.ErrNotExist), "torno image list shows those that are there; torno image build makes one"}
		}
		return nil, err
	}
	i := &Image{dir: dir}
	if err := json.Unmarshal(b, i); err != nil {
		return nil, damaged(name, err)
	}
	return i, i.check()
}

func damaged(name string, err error) error {
	return &Error{fmt.Errorf("image %q is damaged: %w", name, err), "torno image build --name " + name + " makes it anew"}
}

// check finds an image of another machine, or one cut short, without reading it.
func (i *Image) check() error {
	if i.Arch != runtime.GOARCH {
		return &Error{fmt.Errorf("image %q is for %s, this machine is %s", i.Name, i.Arch, runtime.GOARCH), "torno image build makes one for this machine"}
	}
	info, err := os.Stat(i.Path())
	if err == nil && info.Size() != i.Size {
		err = fmt.Errorf("%d bytes, want %d", info.Size(), i.Size)
	}
	if err != nil {
		return damaged(i.Name, err)
	}
	return nil
}

// Path returns where the file system is.
func (i *Image) Path() string { return filepath.Join(i.dir, imageFile) }

// List returns all images, by name. One that can't be read is left out.
func (s Store) List() ([]*Image, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var images []*Image
	for _, e := range entries {
		if !e.IsDir() || !validName.MatchString(e.Name()) {
			continue
		}
		if i, err := s.Open(e.Name()); err == nil {
			images = append(images, i)
		}
	}
	slices.SortFunc(images, func(a, b *Image) int { return strings.Compare(a.Name, b.Name) })
	return images, nil
}
