package oci

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// A Source is where the files of an image are. Names are relative and clean.
type Source interface {
	Has(name string) bool
	Open(name string) (f io.ReadCloser, size int64, err error)
}

// A Directory is a Source that is a directory, which nothing leads out of.
type Directory struct{ Root *os.Root }

// Has implements Source.
func (d Directory) Has(name string) bool {
	_, err := d.Root.Lstat(name)
	return err == nil
}

// Open implements Source.
func (d Directory) Open(name string) (io.ReadCloser, int64, error) {
	if !fs.ValidPath(name) {
		return nil, 0, fmt.Errorf("%w: name %.100q", ErrFormat, name)
	}
	f, err := d.Root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe would wait for a writer
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%w: %.100q is no file", ErrFormat, name)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// Bounds of an Archive.
const (
	maxMembers = 1 << 20   // entries
	maxName    = 4095      // bytes of one name, as Linux has it
	maxNames   = 256 << 20 // bytes of all names and targets: they are kept
	maxHops    = 8         // links from one entry to the other
)

// An Archive is a Source that is a tar archive.
type Archive struct {
	in      io.ReaderAt
	members map[string]member
}

// A member is an entry of an archive: where its content is, or what it links to.
type member struct {
	offset, size int64
	target       string
}

// blockSize is what archives are made of; the last ones are zeros.
const blockSize = 512

// ErrCut means that an archive has no end.
var ErrCut = errors.New("the archive is cut short")

// OpenArchive reads an archive's headers.
func OpenArchive(in io.ReaderAt, size int64) (*Archive, error) {
	last := make([]byte, blockSize)
	if _, err := in.ReadAt(last, max(size-blockSize, 0)); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if [blockSize]byte(last) != [blockSize]byte{} || size < blockSize {
		return nil, fmt.Errorf("%w: %w", ErrFormat, ErrCut)
	}
	a := &Archive{in: in, members: map[string]member{}}
	section := io.NewSectionReader(in, 0, size)
	names := 0
	for t := tar.NewReader(section); ; {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		if len(a.members) == maxMembers {
			return nil, fmt.Errorf("%w: more than %d entries", ErrFormat, maxMembers)
		}
		if names += len(h.Name) + len(h.Linkname); len(h.Name) > maxName || len(h.Linkname) > maxName || names > maxNames {
			return nil, fmt.Errorf("%w: names of more than %d bytes, or of %d in all", ErrFormat, maxName, maxNames)
		}
		name := path.Clean(strings.TrimPrefix(h.Name, "/"))
		switch h.Typeflag {
		case tar.TypeReg:
			offset, err := section.Seek(0, io.SeekCurrent) // package tar reads no further than it must
			if err != nil {
				return nil, err
			}
			if h.Size > size-offset { // of a sparse file, which no image has
				return nil, fmt.Errorf("%w: %.100q has %d bytes", ErrFormat, name, h.Size)
			}
			a.members[name] = member{offset: offset, size: h.Size}
		case tar.TypeSymlink: // docker's, from one layer to the same in another image
			a.members[name] = member{target: path.Join(path.Dir(name), h.Linkname)}
		case tar.TypeLink:
			a.members[name] = member{target: path.Clean(h.Linkname)}
		case tar.TypeDir:
			a.members[name] = member{size: -1}
		}
	}
}

// Has implements Source.
func (a *Archive) Has(name string) bool {
	_, ok := a.members[name]
	return ok
}

// Open implements Source.
func (a *Archive) Open(name string) (io.ReadCloser, int64, error) {
	m, ok := a.members[path.Clean(name)]
	for hops := 0; m.target != "" && hops < maxHops; hops++ {
		m, ok = a.members[m.target]
	}
	if !ok {
		return nil, 0, fmt.Errorf("%w: no %.100q", ErrFormat, name)
	}
	if m.target != "" || m.size < 0 {
		return nil, 0, fmt.Errorf("%w: %.100q is no file", ErrFormat, name)
	}
	return io.NopCloser(io.NewSectionReader(a.in, m.offset, m.size)), m.size, nil
}
