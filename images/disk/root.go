package disk

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// FromRoot writes an ext4 file system to out that holds the root file system in dir, with its owners,
// permissions, hard links, devices and capabilities. Whoever is not root owns nothing but their own files; those
// become root's. Sockets are left out.
func FromRoot(dir string, out *os.File) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(archiveRoot(dir, w)) }()
	err := FromTar(r, out)
	r.Close() // an error there must not leave the writer behind
	return err
}

// A rootArchive is a root file system on its way into an archive.
type rootArchive struct {
	*tar.Writer
	root  *os.Root
	left  int64             // bytes of content
	seen  map[inode]string  // files with several names
	owner map[uint32]uint32 // who becomes whom
}

// An inode is what hard links have in common.
type inode struct{ device, number uint64 }

func archiveRoot(dir string, w io.Writer) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	a := &rootArchive{Writer: tar.NewWriter(w), root: root, left: MaxSize, seen: map[inode]string{}, owner: map[uint32]uint32{}}
	if id := os.Geteuid(); id != 0 {
		a.owner[uint32(id)] = 0
	}
	err = fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err == nil {
			err = a.add(name)
		}
		if err != nil {
			return fmt.Errorf("%q: %w", filepath.Join(dir, name), err)
		}
		return nil
	})
	return errors.Join(err, a.Close())
}

func (a *rootArchive) id(of uint32) int {
	if to, ok := a.owner[of]; ok {
		of = to
	}
	return int(of)
}

func (a *rootArchive) add(name string) error {
	info, err := a.root.Lstat(name)
	if err != nil {
		return err
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("no owner is known")
	}
	h := &tar.Header{
		Name: name, Mode: int64(stat.Mode & 0o7777), Uid: a.id(stat.Uid), Gid: a.id(stat.Gid),
		ModTime: info.ModTime().Truncate(time.Second), Format: tar.FormatPAX,
	}
	if id := (inode{stat.Dev, stat.Ino}); stat.Nlink > 1 && !info.IsDir() {
		if first, ok := a.seen[id]; ok {
			h.Typeflag, h.Linkname = tar.TypeLink, first
			return a.WriteHeader(h)
		}
		a.seen[id] = name
	}
	switch stat.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		h.Typeflag, h.Name = tar.TypeDir, name+"/"
	case unix.S_IFLNK:
		h.Typeflag = tar.TypeSymlink
		if h.Linkname, err = a.root.Readlink(name); err != nil {
			return err
		}
	case unix.S_IFCHR, unix.S_IFBLK:
		h.Typeflag, h.Devmajor, h.Devminor = tar.TypeChar, int64(unix.Major(stat.Rdev)), int64(unix.Minor(stat.Rdev))
		if stat.Mode&unix.S_IFMT == unix.S_IFBLK {
			h.Typeflag = tar.TypeBlock
		}
	case unix.S_IFIFO:
		h.Typeflag = tar.TypeFifo
	case unix.S_IFREG:
		return a.addFile(name, h)
	default:
		return nil // a socket
	}
	return a.WriteHeader(h)
}

func (a *rootArchive) addFile(name string, h *tar.Header) error {
	f, err := a.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if a.left -= h.Size; a.left < 0 {
		return ErrTooLarge
	}
	const capability = "security.capability"
	value := make([]byte, 64)
	if n, err := unix.Fgetxattr(int(f.Fd()), capability, value); err == nil && n > 0 {
		h.PAXRecords = map[string]string{"SCHILY.xattr." + capability: string(value[:n])}
	}
	if err := a.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(a, f, h.Size)
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("became shorter meanwhile: %d bytes, want %d", n, h.Size)
	}
	return err
}
