package rootfs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"torno.internal/images/disk"
)

// Base is the name of the image that agents get unless told otherwise.
const Base = "base"

// basePackages are what Base holds beside what every Debian has.
var basePackages = []string{
	"ca-certificates", "curl", "git", "iproute2", "less", "nodejs", "openssh-client", "procps", "python3", "python3-requests", "xz-utils",
}

// leftOut are files of packages that nobody reads in a VM.
var leftOut = []string{"/usr/share/man/*", "/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/lintian/*"}

// BuildBase builds Base from Debian's packages by mmdebstrap, which needs no container engine and, where
// the kernel lets users have namespaces, no root. Lines of its progress go to progress.
func (s Store) BuildBase(ctx context.Context, name string, progress io.Writer) (*Image, error) {
	release, err := s.hold(ctx, name)
	if err != nil {
		return nil, err
	}
	defer release()
	mmdebstrap, err := exec.LookPath("mmdebstrap")
	if err != nil {
		return nil, &Error{errors.New("mmdebstrap is not installed, which builds images from Debian's packages"), "apt-get install mmdebstrap; elsewhere torno image build --from ROOTFS.tar"}
	}
	suite, err := suite()
	if err != nil {
		return nil, err
	}
	args := []string{"--variant=minbase", "--include=" + strings.Join(basePackages, ","), "--aptopt=Acquire::Languages none"}
	for _, path := range leftOut {
		args = append(args, "--dpkgopt=path-exclude="+path)
	}
	cmd := exec.CommandContext(ctx, mmdebstrap, append(args, suite, "-")...)
	cmd.Stderr = progress
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) } // it cleans up after itself
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=0", "LC_ALL=C")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	image, err := s.build(name, "Debian "+suite, func(f *os.File) error { return disk.FromTar(out, f) })
	if waited := cmd.Wait(); waited != nil && ctx.Err() == nil {
		err = &Error{fmt.Errorf("mmdebstrap: %w", waited), "its output says why; apt-get update may help"}
	}
	if err != nil {
		return nil, errors.Join(ctx.Err(), err)
	}
	return image, image.publish(s)
}

// suite returns this machine's release of Debian, or the one that images are tested with.
func suite() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", &Error{errors.New("this machine's release is unknown"), "torno image build --from ROOTFS.tar"}
	}
	id, codename := "", ""
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			id = strings.Trim(v, `"`)
		}
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"`)
		}
	}
	if (id != "debian" && id != "ubuntu") || codename == "" {
		return "", &Error{fmt.Errorf("this machine runs %q, whose packages make no image", id), "torno image build --from ROOTFS.tar"}
	}
	return codename, nil
}

// build makes an image in a directory without its final name, of what write writes.
func (s Store) build(name, source string, write func(f *os.File) error) (*Image, error) {
	dir, err := os.MkdirTemp(s.Dir, unfinished(name))
	if err != nil {
		return nil, err
	}
	image := &Image{Name: name, Source: source, Arch: runtime.GOARCH, Filesystem: "ext4", Created: time.Now().UTC(), dir: dir}
	if err := errors.Join(os.Chmod(dir, 0o755), image.write(write)); err != nil {
		return nil, explain(errors.Join(err, os.RemoveAll(dir)))
	}
	return image, nil
}

// explain adds what helps against a full disk.
func explain(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return &Error{err, "free space there, or set TORNO_IMAGES to a directory on a larger disk; temporary files are in $TMPDIR, by default /var/tmp"}
	}
	return err
}

// write writes the file system.
func (i *Image) write(write func(f *os.File) error) error {
	f, err := os.OpenFile(i.Path(), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	if i.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return err
	}
	i.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return f.Sync()
}

// publish writes the description and gives an image its name, in the place of one that had it. Whenever it is
// interrupted, there is the old one or the new, whole.
func (i *Image) publish(s Store) error {
	b, err := json.MarshalIndent(i, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(i.dir, descriptionFile), b, 0o644); err != nil {
		return explain(err)
	}
	final := filepath.Join(s.Dir, i.Name)
	err = unix.Renameat2(unix.AT_FDCWD, i.dir, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE)
	old := i.dir // a VM that runs from it keeps the file open
	if errors.Is(err, unix.ENOENT) {
		err, old = os.Rename(i.dir, final), ""
	}
	if err != nil {
		return err
	}
	i.dir = final
	if old == "" {
		return nil
	}
	return os.RemoveAll(old)
}
