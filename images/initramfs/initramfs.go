// Package initramfs writes the archives from which Linux fills its first root file system: cpio in the
// format "newc" (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
package initramfs

import (
	"fmt"
	"io"
	"math"
	"path"
	"strings"
)

// A File is an entry of the archive.
type File struct {
	Name string // relative, clean
	Mode uint32 // type and permissions, as stat(2) has them
	Data []byte // content, or a symbolic link's target
}

// File types (inode(7)).
const (
	Directory = 0o040000
	Regular   = 0o100000
	Symlink   = 0o120000
)

const (
	headerSize = 110 // bytes
	trailer    = "TRAILER!!!"
)

// Write writes an archive of files, all owned by root and without times: the same files give the same
// bytes. Directories must come before what is in them.
func Write(w io.Writer, files []File) error {
	seen := map[string]bool{".": true}
	for i, f := range files {
		switch {
		case f.Name == "" || f.Name != path.Clean(f.Name) || path.IsAbs(f.Name) || strings.HasPrefix(f.Name, "../") || strings.ContainsRune(f.Name, 0):
			return fmt.Errorf("name %q is not clean and relative", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("%q comes twice", f.Name)
		case !seen[path.Dir(f.Name)]:
			return fmt.Errorf("%q comes before its directory", f.Name)
		case uint64(len(f.Data)) > math.MaxUint32:
			return fmt.Errorf("%q has %d bytes, more than the format knows", f.Name, len(f.Data))
		}
		seen[f.Name] = true
		if err := write(w, i+1, f); err != nil {
			return err
		}
	}
	return write(w, 0, File{Name: trailer})
}

// write writes one entry: thirteen numbers in hexadecimal after the magic, the name with its NUL, the
// data; name and data end at multiples of four.
func write(w io.Writer, inode int, f File) error {
	links := 1
	if f.Mode&Directory == Directory {
		links = 2
	}
	name := len(f.Name) + 1
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		inode, f.Mode, 0, 0, links, 0, len(f.Data), 0, 0, 0, 0, name, 0)
	if _, err := io.WriteString(w, header+f.Name+strings.Repeat("\x00", 1+pad(headerSize+name))); err != nil {
		return err
	}
	if _, err := w.Write(f.Data); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.Repeat("\x00", pad(len(f.Data))))
	return err
}

// pad returns how many bytes are missing to a multiple of four.
func pad(n int) int { return -n & 3 }
