// Package disk makes the disks of VMs: ext4 file systems from archives and directories, without root, and
// empty ones to write to.
package disk

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/Microsoft/hcsshim/ext4/tar2ext4"
)

// MaxSize bounds a file system that is made from something, in bytes.
const MaxSize = 64 << 30

// FromTar writes an ext4 file system to out that holds what the archive does, owners and all. Nobody
// needs to be root for that, for nothing is mounted.
func FromTar(archive io.Reader, out *os.File) error {
	err := tar2ext4.ConvertTarToExt4(archive, out, tar2ext4.MaximumDiskSize(MaxSize))
	if err != nil {
		return fmt.Errorf("writing the file system: %w", err)
	}
	return nil
}

// owner is the user and group to whom all files of FromDirectory belong: the guest's agent.
const owner = 1000

// ErrTooLarge means that a directory holds more than was wanted.
var ErrTooLarge = errors.New("too large")

// FromDirectory writes an ext4 file system to out that holds the files, directories and symbolic links of
// dir, as belonging to the guest's agent. It holds at most max bytes of content; more is ErrTooLarge.
func FromDirectory(dir string, out *os.File, max int64) error {
	r, w := io.Pipe()
	go func() { w.CloseWithError(archive(dir, w, max)) }()
	err := FromTar(r, out)
	r.Close() // an error there must not leave the writer behind
	return err
}

// archive writes dir as a tar.
func archive(dir string, w io.Writer, left int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	t := tar.NewWriter(w)
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // gone meanwhile, or none of the workload's business
		}
		if err != nil {
			return err
		}
		return add(t, root, name, entry, &left)
	})
	return errors.Join(err, t.Close())
}

// add adds one file. What is neither file, directory nor link has no meaning elsewhere.
func add(t *tar.Writer, root *os.Root, name string, entry fs.DirEntry, left *int64) error {
	info, err := entry.Info()
	if err != nil {
		return nil // gone meanwhile
	}
	h := &tar.Header{
		Name: filepath.ToSlash(name), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime().Truncate(time.Second),
		Uid: owner, Gid: owner, Format: tar.FormatPAX,
	}
	switch info.Mode().Type() {
	case fs.ModeDir:
		h.Typeflag, h.Name = tar.TypeDir, h.Name+"/"
		return t.WriteHeader(h)
	case fs.ModeSymlink:
		if h.Linkname, err = root.Readlink(name); err != nil {
			return nil
		}
		h.Typeflag = tar.TypeSymlink
		return t.WriteHeader(h)
	case 0:
		return addFile(t, root, name, h, left)
	}
	return nil
}

func addFile(t *tar.Writer, root *os.Root, name string, h *tar.Header, left *int64) error {
	f, err := root.Open(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Typeflag, h.Size = tar.TypeReg, info.Size()
	if *left -= h.Size; *left < 0 {
		return ErrTooLarge
	}
	if err := t.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.CopyN(t, f, h.Size)
	if errors.Is(err, io.EOF) { // became shorter: fill up, as tar(1) does
		_, err = io.CopyN(t, zeros{}, h.Size-n)
	}
	return err
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Temporary opens a file without a name, which is gone when it is closed.
func Temporary() (*os.File, error) {
	f, err := os.CreateTemp(temporary(), "torno-disk-*")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// temporary returns where what is large is put for a while: on disk, where /tmp may be memory.
func temporary() string {
	if dir := os.Getenv("TMPDIR"); dir != "" {
		return dir
	}
	return "/var/tmp"
}

// TemporaryDirectory makes a directory that everybody may read, and the caller removes.
func TemporaryDirectory() (string, error) {
	dir, err := os.MkdirTemp(temporary(), "torno-*")
	if err != nil {
		return "", err
	}
	return dir, os.Chmod(dir, 0o755)
}

// ErrNoMkfs means that mkfs.ext4 is not installed.
var ErrNoMkfs = errors.New("mkfs.ext4 is not installed (apt-get install e2fsprogs)")

// Scratch returns an empty file system of size bytes that takes up next to nothing until it is written to,
// and is gone when the file is closed.
func Scratch(size int64) (*os.File, error) {
	f, err := Temporary()
	if err != nil {
		return nil, err
	}
	if err := Format(f, size, false); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// minJournal is from how many bytes on a disk has room for a journal of journalSize MiB.
const (
	minJournal  = 512 << 20
	journalSize = 16
)

// Format makes an empty file an empty file system of size bytes. With a journal it is whole after the
// machine that has it mounted dies.
func Format(f *os.File, size int64, journal bool) error {
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		if mkfs = "/usr/sbin/mkfs.ext4"; !exists(mkfs) { // sbin is in few people's PATH
			return ErrNoMkfs
		}
	}
	if err := f.Truncate(size); err != nil {
		return err
	}
	args := []string{"-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"}
	switch {
	case !journal:
		args = append(args, "-O", "^has_journal")
	case size >= minJournal:
		args = append(args, "-J", fmt.Sprintf("size=%d", journalSize))
	}
	cmd := exec.Command(mkfs, append(args, "/proc/self/fd/3")...)
	cmd.ExtraFiles = []*os.File{f}
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a scratch disk of %d bytes: %w: %s", size, err, strings.TrimSpace(string(out)))
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
